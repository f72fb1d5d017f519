"""The grouped inbox: notifications of one event type and subject as one item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from litestar import Request, Response, delete, patch
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta, Struct

from tocsin.engine.model import Invalid
from tocsin.engine.store import group as store
from tocsin.engine.store.database import Database
from tocsin.engine.store.group import Group, GroupCursor, InboxPreferences
from tocsin.engine.store.notification import Filter, Inbox
from tocsin.http.auth import Person, people_router
from tocsin.http.fields import UNDO_HEADER, read_cursor, undo_header
from tocsin.http.openapi import get
from tocsin.http.requests import Services

_LIST = "/api/notifications/"
PATH = _LIST + "groups/{group_key:str}/"
PREFERENCES_PATH = "/api/inbox-preferences/"

_PersonRequest = Request[Any, Person, State]
_AsOf = Annotated[str, Meta(max_length=20_000)]


class GroupListing(Struct, frozen=True):
    """A page of groups, newest first; `as_of` is for marking a group read or archiving it."""

    results: list[Group]
    next: str | None
    previous: str | None
    as_of: str


class ReadGroup(Struct, frozen=True, forbid_unknown_fields=True):
    """Read, or put back to unread; with `as_of` of a list, no more than what that list could show."""

    read: bool = True
    as_of: _AsOf | None = None


class MarkedGroup(Struct, frozen=True):
    """How many were marked."""

    marked: int


class ChangedInboxPreferences(Struct, frozen=True, forbid_unknown_fields=True):
    """What is left out stays as it is."""

    grouped: bool | None = None


async def list_grouped(
    services: Services,
    recipient_id: str,
    wanted: Filter,
    *,
    cursor: str | None,
    limit: int,
    kept: Mapping[str, str],
) -> GroupListing:
    """Returns a page of groups with its links; raises Invalid for a cursor of another list."""
    place = None if cursor is None else store.parse_group_cursor(cursor)
    inbox = await store.list_groups(
        services.database, recipient_id, wanted, cursor=place, limit=limit
    )

    def link(to: GroupCursor | None) -> str | None:
        query = {**kept, "grouped": "true", "cursor": str(to)}
        return None if to is None else services.url(_LIST, query)

    hosts = services.settings.avatar_hosts
    results = [each.with_pictures_of(hosts) for each in inbox.results]
    return GroupListing(results, link(inbox.next), link(inbox.previous), inbox.as_of)


async def list_members(
    database: Database, recipient_id: str, group_key: str, *, cursor: str | None, limit: int
) -> Inbox:
    """Returns a page of a group's members; raises Invalid for a key that is none."""
    key = store.parse_group_key(group_key)
    return await store.list_group_members(
        database, recipient_id, key, cursor=read_cursor(cursor), limit=limit
    )


def check_listed(wanted: Filter) -> None:
    """Raises Invalid for groups of the archive."""
    if wanted.archived:
        raise Invalid(
            "archived excludes grouped",
            ("archived", "Leave out grouped: the archive has no groups."),
        )


def check_alone(wanted: Filter, *, grouped: bool) -> None:
    """Raises Invalid where another filter stands beside `group_key`."""
    if grouped or wanted != Filter():
        raise Invalid(
            "group_key excludes other filters",
            (
                "group_key",
                "Leave out grouped and the other filters: the key names the notifications.",
            ),
        )


@patch(PATH + "read/", response_headers=[UNDO_HEADER])
async def mark_group_read(
    request: _PersonRequest,
    services: NamedDependency[Services],
    group_key: FromPath[str],
    data: JSONBody[ReadGroup | None] = None,
) -> Response[MarkedGroup]:
    """Mark a group read, or unread.

    With `as_of` of a list, what came into the group after that list stays as it is.
    """
    chosen = data or ReadGroup()
    mark = store.mark_group_read if chosen.read else store.mark_group_unread
    found = await mark(
        services.database,
        request.auth.recipient_id,
        store.parse_group_key(group_key),
        as_of=chosen.as_of,
    )
    return Response(MarkedGroup(found.marked), headers=undo_header(found.undo))


@delete(PATH, response_headers=[UNDO_HEADER])
async def archive_group(
    request: _PersonRequest,
    services: NamedDependency[Services],
    group_key: FromPath[str],
    as_of: Annotated[
        _AsOf | None,
        QueryParameter(description="That of a list: what came into the group later stays."),
    ] = None,
) -> Response[None]:
    """Remove a group from the inbox.

    Its notifications leave list and badge; in the archive and by their ids they are still found.
    """
    undo = await store.archive_group(
        services.database,
        request.auth.recipient_id,
        store.parse_group_key(group_key),
        as_of=as_of,
    )
    return Response(None, headers=undo_header(undo))


@get(PREFERENCES_PATH)
async def get_inbox_preferences(
    request: _PersonRequest, services: NamedDependency[Services]
) -> InboxPreferences:
    """Read how the inbox is shown."""
    return await store.get_inbox_preferences(services.database, request.auth.recipient_id)


@patch(PREFERENCES_PATH)
async def change_inbox_preferences(
    request: _PersonRequest,
    services: NamedDependency[Services],
    data: JSONBody[ChangedInboxPreferences],
) -> InboxPreferences:
    """Change how the inbox is shown.

    With `grouped` false, each notification is a group of one.
    """
    return await store.set_inbox_preferences(
        services.database, request.auth.recipient_id, grouped=data.grouped
    )


ROUTERS = (
    people_router("Inbox", mark_group_read, archive_group),
    people_router("Preferences", get_inbox_preferences, change_inbox_preferences),
)
