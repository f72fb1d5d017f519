"""A person's inbox: its lists and groups, what is marked, archived and undone of many."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated

from litestar import Response, delete, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import Meta, Struct

from tocsin.engine.model import Badge, Invalid
from tocsin.engine.store import archive as archive_store
from tocsin.engine.store import group as group_store
from tocsin.engine.store import notification as store
from tocsin.engine.store.database import Queries
from tocsin.engine.store.event import check_filter
from tocsin.engine.store.group import Group, GroupedInbox, InboxPreferences
from tocsin.engine.store.notification import Filter, Notification
from tocsin.http.auth import PersonRequest, people_router
from tocsin.http.fields import (
    UNDO,
    UNDO_HEADER,
    CategoryName,
    CursorText,
    EventTypeName,
    Limit,
    Topic,
    page_links,
    read_cursor,
    undo_header,
    without_nulls,
)
from tocsin.http.middleware import COUNT_FAILED, COUNT_PATH
from tocsin.http.openapi import get
from tocsin.http.positions import read_from
from tocsin.http.requests import Services

PATH = "/api/notifications/"

AsOf = Annotated[str, Meta(max_length=20_000)]
ReadFilter = Annotated[
    bool | None, QueryParameter(description="Only read ones (true) or unread ones (false).")
]


SubjectFilter = Annotated[
    Topic | None, QueryParameter(description="Only those that are about this.")
]
ArchivedFilter = Annotated[
    bool, QueryParameter(description="What was taken out of the inbox, in place of the inbox.")
]
GroupedFilter = Annotated[
    bool, QueryParameter(description="Notifications of one event type and subject as one item.")
]
GroupKeyFilter = Annotated[
    CursorText | None, QueryParameter(description="Only the members of this group.")
]


class InboxListing(Struct, frozen=True):
    """A page, newest first; `as_of` is for `mark-all-read`, `archive-all` and `seen`."""

    results: list[Notification]
    next: str | None
    previous: str | None
    as_of: str


class MarkAll(Struct, frozen=True, forbid_unknown_fields=True):
    """What a list with these filters, at that moment, could show."""

    category: CategoryName | None = None
    event_type: EventTypeName | None = None
    subject: Topic | None = None
    as_of: AsOf | None = None


class Seen(Struct, frozen=True, forbid_unknown_fields=True):
    """The list that the person saw."""

    as_of: AsOf | None = None


class CountByCategory(Struct, frozen=True):
    """The badge, and each category's share."""

    count: int
    categories: dict[str, int]


class ArchiveAll(MarkAll, frozen=True, forbid_unknown_fields=True):
    """What a list with these filters, at that moment, could show."""

    read: bool | None = None


class Archived(Struct, frozen=True):
    """How many were archived."""

    archived: int


class Undo(Struct, frozen=True, forbid_unknown_fields=True):
    """Which change to take back."""

    undo: Annotated[str, Meta(min_length=1, max_length=200)]


class Undone(Struct, frozen=True):
    """How many are as they were before."""

    undone: int


class Marked(Struct, frozen=True):
    """How many were marked."""

    marked: int


@get(PATH)
async def list_notifications(
    request: PersonRequest,
    services: NamedDependency[Services],
    limit: Limit = 20,
    cursor: FromQuery[CursorText | None] = None,
    read: ReadFilter = None,
    event_type: FromQuery[EventTypeName | None] = None,
    category: FromQuery[CategoryName | None] = None,
    subject: SubjectFilter = None,
    archived: ArchivedFilter = False,
    grouped: GroupedFilter = False,
    group_key: GroupKeyFilter = None,
) -> InboxListing | GroupListing:
    """List the inbox, or the archive.

    Newest first, by the time at which they were made. `next` and `previous` keep the filters; pages stay put while new
    ones arrive. With `grouped`, each result is a group; with `group_key`, the list has the members of that group, and
    no other filter.
    """
    wanted = Filter(read, event_type, category, subject, archived)
    kept = without_nulls(
        limit=limit,
        read=read,
        event_type=event_type,
        category=category,
        subject=subject,
        archived=archived or None,
    )
    if grouped and group_key is None:
        return await list_grouped(request, services, wanted, cursor=cursor, limit=limit, kept=kept)

    person, place = request.auth.recipient_id, read_cursor(cursor)

    async def read_page(source: Queries) -> store.Inbox:
        await check_filter(source, event_type, category, subject)
        if group_key is None:
            return await store.list_notifications(source, person, wanted, cursor=place, limit=limit)
        if grouped or wanted != Filter():
            cure = "Leave out grouped and the other filters: the key names the notifications."
            raise Invalid("group_key excludes other filters", ("group_key", cure))
        key = group_store.parse_group_key(group_key)
        return await group_store.list_group_members(source, person, key, cursor=place, limit=limit)

    inbox = await read_from(request, services, read_page)
    if group_key is not None:
        kept = without_nulls(limit=limit, group_key=group_key)
    older, newer = page_links(services, PATH, inbox.page, kept)
    hosts = services.settings.avatar_hosts
    results = [each.with_picture_of(hosts) for each in inbox.page.results]
    return InboxListing(results, older, newer, inbox.as_of)


@post(
    PATH + "mark-all-read/",
    status_code=200,
    response_headers=[UNDO_HEADER],
)
async def mark_all_read(
    request: PersonRequest,
    services: NamedDependency[Services],
    data: JSONBody[MarkAll | None] = None,
) -> Response[Marked]:
    """Mark all read.

    With `as_of` of a list, no more than what that list could show.
    """
    chosen = data or MarkAll()
    await check_filter(services.database, chosen.event_type, chosen.category, chosen.subject)
    marked = await store.mark_all_read(
        services.database,
        request.auth.recipient_id,
        Filter(event_type=chosen.event_type, category=chosen.category, subject=chosen.subject),
        as_of=chosen.as_of,
    )
    return Response(Marked(marked.marked), headers=undo_header(marked.undo))


@get(COUNT_PATH)
async def unread_count(request: PersonRequest, services: NamedDependency[Services]) -> Badge:
    """Count the unread ones, and the unseen ones among them.

    Exact, from a snapshot taken after the request arrived. Unseen are those that came after the list that the person
    saw last, by `POST …/seen/`; before the first one, all.
    """
    failed: Exception | None = request.scope["state"].get(COUNT_FAILED)
    if failed is not None:
        raise failed
    return await services.hub.count(request.auth.recipient_id)


@post(PATH + "archive-all/", status_code=200, response_headers=[UNDO_HEADER])
async def archive_all(
    request: PersonRequest,
    services: NamedDependency[Services],
    data: JSONBody[ArchiveAll | None] = None,
) -> Response[Archived]:
    """Archive all.

    With `as_of` of a list, no more than what that list could show; with `read` true, only what was read.
    """
    chosen = data or ArchiveAll()
    await check_filter(services.database, chosen.event_type, chosen.category, chosen.subject)
    changed = await archive_store.archive_all(
        services.database,
        request.auth.recipient_id,
        Filter(chosen.read, chosen.event_type, chosen.category, chosen.subject),
        as_of=chosen.as_of,
    )
    return Response(Archived(changed.archived), headers=undo_header(changed.undo))


@post(
    PATH + "undo/",
    description=f"`undo` is the header `{UNDO}` of the change's response. What was changed since stays as it is.",
    status_code=200,
)
async def undo(
    request: PersonRequest, services: NamedDependency[Services], data: JSONBody[Undo]
) -> Undone:
    """Undo a change of many notifications."""
    return Undone(await archive_store.undo(services.database, request.auth.recipient_id, data.undo))


@post(PATH + "seen/", status_code=200)
async def mark_seen(
    request: PersonRequest,
    services: NamedDependency[Services],
    data: JSONBody[Seen | None] = None,
) -> Badge:
    """Mark the inbox as seen.

    For a bell that opens: what the list with this `as_of` could show is no longer `unseen`, on any device, and stays
    unread. The mark never moves back. Without `as_of`, everything until now is seen.
    """
    await store.mark_seen(
        services.database, request.auth.recipient_id, as_of=(data or Seen()).as_of
    )
    return await services.hub.count(request.auth.recipient_id)


@get(PATH + "unread-count/by-category/")
async def unread_by_category(
    request: PersonRequest, services: NamedDependency[Services]
) -> CountByCategory:
    """Count the unread ones by category.

    The counts are exact; categories without unread notifications are left out.
    """
    counts = await store.unread_by_category(services.database, request.auth.recipient_id)
    return CountByCategory(sum(counts.values()), counts)


class Me(Struct, frozen=True):
    """The person of the token, and when it expires."""

    recipient: str
    expires_at: datetime


@get("/api/me/")
async def me(request: PersonRequest) -> Me:
    """Read the signed-in person.

    So a page can notice that its cookie has become that of another person.
    """
    person = request.auth
    return Me(person.recipient_id, datetime.fromtimestamp(int(person.expires_at), UTC))


GROUP_PATH = PATH + "groups/{group_key:str}/"
PREFERENCES_PATH = "/api/inbox-preferences/"


class GroupListing(Struct, frozen=True):
    """A page of groups, newest first; `as_of` is for marking a group read or archiving it."""

    results: list[Group]
    next: str | None
    previous: str | None
    as_of: str


class ReadGroup(Struct, frozen=True, forbid_unknown_fields=True):
    """Read, or put back to unread; with `as_of` of a list, no more than what that list could show."""

    read: bool = True
    as_of: AsOf | None = None


class ChangedInboxPreferences(Struct, frozen=True, forbid_unknown_fields=True):
    """What is left out stays as it is."""

    grouped: bool | None = None


async def list_grouped(
    request: PersonRequest,
    services: Services,
    wanted: Filter,
    *,
    cursor: str | None,
    limit: int,
    kept: Mapping[str, str],
) -> GroupListing:
    """Returns a page of groups with its links; raises Invalid for the archive, and for a cursor of another list."""
    if wanted.archived:
        cure = "Leave out grouped: the archive has no groups."
        raise Invalid("archived excludes grouped", ("archived", cure))
    place = None if cursor is None else group_store.parse_group_cursor(cursor)

    async def read_page(source: Queries) -> GroupedInbox:
        await check_filter(source, wanted.event_type, wanted.category, wanted.subject)
        return await group_store.list_groups(
            source, request.auth.recipient_id, wanted, cursor=place, limit=limit
        )

    inbox = await read_from(request, services, read_page, after=place.as_of if place else None)
    older, newer = page_links(services, PATH, inbox, {**kept, "grouped": "true"})
    hosts = services.settings.avatar_hosts
    results = [each.with_pictures_of(hosts) for each in inbox.results]
    return GroupListing(results, older, newer, inbox.as_of)


@patch(GROUP_PATH + "read/", response_headers=[UNDO_HEADER])
async def mark_group_read(
    request: PersonRequest,
    services: NamedDependency[Services],
    group_key: FromPath[str],
    data: JSONBody[ReadGroup | None] = None,
) -> Response[Marked]:
    """Mark a group read, or unread.

    With `as_of` of a list, what came into the group after that list stays as it is.
    """
    chosen = data or ReadGroup()
    mark = group_store.mark_group_read if chosen.read else group_store.mark_group_unread
    found = await mark(
        services.database,
        request.auth.recipient_id,
        group_store.parse_group_key(group_key),
        as_of=chosen.as_of,
    )
    return Response(Marked(found.marked), headers=undo_header(found.undo))


@delete(GROUP_PATH, response_headers=[UNDO_HEADER])
async def archive_group(
    request: PersonRequest,
    services: NamedDependency[Services],
    group_key: FromPath[str],
    as_of: Annotated[
        AsOf | None,
        QueryParameter(description="That of a list: what came into the group later stays."),
    ] = None,
) -> Response[None]:
    """Remove a group from the inbox.

    Its notifications leave list and badge; in the archive and by their ids they are still found.
    """
    undo = await group_store.archive_group(
        services.database,
        request.auth.recipient_id,
        group_store.parse_group_key(group_key),
        as_of=as_of,
    )
    return Response(None, headers=undo_header(undo))


@get(PREFERENCES_PATH)
async def get_inbox_preferences(
    request: PersonRequest, services: NamedDependency[Services]
) -> InboxPreferences:
    """Read how the inbox is shown."""
    return await group_store.get_inbox_preferences(services.database, request.auth.recipient_id)


@patch(PREFERENCES_PATH)
async def change_inbox_preferences(
    request: PersonRequest,
    services: NamedDependency[Services],
    data: JSONBody[ChangedInboxPreferences],
) -> InboxPreferences:
    """Change how the inbox is shown.

    With `grouped` false, each notification is a group of one.
    """
    return await group_store.set_inbox_preferences(
        services.database, request.auth.recipient_id, grouped=data.grouped
    )


ROUTERS = (
    people_router(
        "Inbox",
        list_notifications,
        mark_all_read,
        unread_count,
        archive_all,
        undo,
        mark_seen,
        unread_by_category,
        me,
        mark_group_read,
        archive_group,
    ),
    people_router("Preferences", get_inbox_preferences, change_inbox_preferences),
)
