"""A person's inbox, and the person of a token."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from litestar import Request, Response, delete, patch, post
from litestar.datastructures import ResponseHeader, State
from litestar.di import NamedDependency
from litestar.params import FromQuery, JSONBody, QueryParameter
from msgspec import Meta, Struct

from tocsin.engine.explain.why import Explanation, explain
from tocsin.engine.model import Badge, NotFound, Notification
from tocsin.engine.store import notification as store
from tocsin.engine.store.event import check_filter
from tocsin.engine.store.notification import Filter
from tocsin.http.auth import Person, people_router
from tocsin.http.fields import (
    CategoryName,
    CursorText,
    EventTypeName,
    Limit,
    RowId,
    Topic,
    page_links,
    read_cursor,
    without_nulls,
)
from tocsin.http.middleware import COUNT_FAILED, COUNT_PATH
from tocsin.http.openapi import get
from tocsin.http.people.groups import GroupListing, check_alone, list_grouped, list_members
from tocsin.http.requests import Services

_UNDO = "Tocsin-Undo"
PATH = "/api/notifications/"

AsOf = Annotated[str, Meta(max_length=20_000)]
PersonRequest = Request[Any, Person, State]
ReadFilter = Annotated[
    bool | None, QueryParameter(description="Only read ones (true) or unread ones (false).")
]


class InboxListing(Struct, frozen=True):
    """A page, newest first; `as_of` is for mark-all-read."""

    results: list[Notification]
    next: str | None
    previous: str | None
    as_of: str


class ReadState(Struct, frozen=True, forbid_unknown_fields=True):
    """Read, or put back to unread."""

    read: bool = True


class MarkAll(Struct, frozen=True, forbid_unknown_fields=True):
    """What a list with these filters, at that moment, could show."""

    category: CategoryName | None = None
    event_type: EventTypeName | None = None
    subject: Topic | None = None
    as_of: AsOf | None = None


class Seen(Struct, frozen=True, forbid_unknown_fields=True):
    """The list that the person saw."""

    as_of: AsOf | None = None


class Undo(Struct, frozen=True, forbid_unknown_fields=True):
    """Which mark-all to take back."""

    undo: Annotated[str, Meta(min_length=1, max_length=200)]


class Unmarked(Struct, frozen=True):
    """How many are unread again."""

    unmarked: int


class CountByCategory(Struct, frozen=True):
    """The badge, and each category's share."""

    count: int
    categories: dict[str, int]


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
    subject: Annotated[
        str | None,
        QueryParameter(
            pattern="^[A-Za-z0-9._:/-]{1,200}$", description="Only those that are about this."
        ),
    ] = None,
    grouped: Annotated[
        bool, QueryParameter(description="Notifications of one event type and subject as one item.")
    ] = False,
    group_key: Annotated[
        CursorText | None, QueryParameter(description="Only the members of this group.")
    ] = None,
) -> InboxListing | GroupListing:
    """List the inbox.

    Newest first. `next` and `previous` keep the filters; pages stay put while new ones arrive. With `grouped`, each
    result is a group; with `group_key`, the list has the members of that group, and no other filter.
    """
    await check_filter(services.database, event_type, category)
    wanted = Filter(read, event_type, category, subject)
    kept = without_nulls(
        limit=limit, read=read, event_type=event_type, category=category, subject=subject
    )
    person = request.auth.recipient_id
    if group_key is not None:
        check_alone(wanted, grouped=grouped)
        inbox = await list_members(services.database, person, group_key, cursor=cursor, limit=limit)
        kept = without_nulls(limit=limit, group_key=group_key)
    elif grouped:
        return await list_grouped(services, person, wanted, cursor=cursor, limit=limit, kept=kept)
    else:
        inbox = await store.list_notifications(
            services.database, person, wanted, cursor=read_cursor(cursor), limit=limit
        )
    older, newer = page_links(services, PATH, inbox.page, kept)
    return InboxListing(inbox.page.results, older, newer, inbox.as_of)


@get(PATH + "{notification_id:int}/")
async def get_notification(
    request: PersonRequest, services: NamedDependency[Services], notification_id: RowId
) -> Notification:
    """Read one.

    Also one that never was in the inbox, or was removed from it.
    """
    return await store.get_notification(
        services.database, request.auth.recipient_id, notification_id
    )


@patch(PATH + "{notification_id:int}/read/")
async def mark_read(
    request: PersonRequest,
    services: NamedDependency[Services],
    notification_id: RowId,
    data: JSONBody[ReadState | None] = None,
) -> Notification:
    """Mark one read, or unread."""
    return await store.mark_read(
        services.database,
        request.auth.recipient_id,
        notification_id,
        read=(data or ReadState()).read,
    )


@delete(PATH + "{notification_id:int}/")
async def archive(
    request: PersonRequest, services: NamedDependency[Services], notification_id: RowId
) -> None:
    """Remove one from the inbox.

    It leaves list and badge; by its id it is still found.
    """
    await store.archive(services.database, request.auth.recipient_id, notification_id)


@post(
    PATH + "mark-all-read/",
    status_code=200,
    response_headers=[
        ResponseHeader(
            name=_UNDO,
            description="What takes it back; for the call to undo it.",
            documentation_only=True,
        )
    ],
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
    await check_filter(services.database, chosen.event_type, chosen.category)
    marked = await store.mark_all_read(
        services.database,
        request.auth.recipient_id,
        Filter(event_type=chosen.event_type, category=chosen.category, subject=chosen.subject),
        as_of=chosen.as_of,
    )
    return Response(Marked(marked.marked), headers={_UNDO: marked.undo})


@post(
    PATH + "mark-all-read/undo/",
    description=f"`undo` is the header `{_UNDO}` of its response. What was touched since stays as it is.",
    status_code=200,
)
async def undo_mark_all_read(
    request: PersonRequest, services: NamedDependency[Services], data: JSONBody[Undo]
) -> Unmarked:
    """Undo a mark-all."""
    return Unmarked(
        await store.undo_mark_all_read(services.database, request.auth.recipient_id, data.undo)
    )


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

    Exact; categories without any are left out.
    """
    counts = await store.unread_by_category(services.database, request.auth.recipient_id)
    return CountByCategory(sum(counts.values()), counts)


@get(PATH + "{notification_id:int}/why/")
async def why(
    request: PersonRequest, services: NamedDependency[Services], notification_id: RowId
) -> Explanation:
    """Why did (not) this reach me?"""
    decided = await store.why(
        services.database, [notification_id], recipient_id=request.auth.recipient_id
    )
    if notification_id not in decided:
        raise NotFound
    return explain(decided[notification_id])


class Me(Struct, frozen=True):
    """The person of the token, and when it expires."""

    recipient: str
    expires_at: datetime


@get("/api/me/")
async def me(request: PersonRequest) -> Me:
    """Read the signed-in person.

    So that a page notices when its cookie has become somebody else's.
    """
    person = request.auth
    return Me(person.recipient_id, datetime.fromtimestamp(int(person.expires_at), UTC))


ROUTERS = (
    people_router(
        "Inbox",
        list_notifications,
        get_notification,
        mark_read,
        archive,
        mark_all_read,
        undo_mark_all_read,
        unread_count,
        mark_seen,
        unread_by_category,
        why,
        me,
    ),
)
