"""The grouped inbox: notifications of one event type and subject as one item, made when it is read.

Every query is bound to the recipient's id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from msgspec import Struct, convert, structs

from tocsin.engine.store.archive import archive_single
from tocsin.engine.store.database import Database, Queries
from tocsin.engine.store.notification import (
    Filter,
    Inbox,
    Initiator,
    MarkedAll,
    Notification,
    count_fitting,
    get_notification,
    mark_all_read,
    mark_read,
    to_inbox,
    to_safe,
    undo_token,
)
from tocsin.engine.store.pagination import (
    NO_CURSOR,
    OWN_NODE,
    Cursor,
    Position,
    cursor_of,
    from_opaque,
    page,
    read_as_of,
    read_nodes,
    to_opaque,
    unreadable,
    write_as_of,
    write_nodes,
)
from tocsin.engine.text import GroupFacts, about_of, group_title
from tocsin.sql import load

_SQL = load("group")
_KEY = re.compile(
    r"u~(?P<unread>[a-z0-9_.]{3,200})~(?P<about>[A-Za-z0-9._:/-]{1,200})"
    r"|r~(?P<read>[a-z0-9_.]{3,200})~(?P<thing>[A-Za-z0-9._:/-]{1,200})~(?P<day>\d{4}-\d\d-\d\d)"
    r"|s~(?P<id>[1-9]\d{0,17})"
)
_MOST_SHOWN = 3  # people
_WIDTH = len(Notification.__struct_fields__)  # the first columns of a row of list_groups


class GroupKey(Struct, frozen=True):
    """Which group: the unread or one day's read ones of a type and subject, or one notification."""

    event_type: str | None = None
    subject: str | None = None
    day: date | None = None  # None: the unread ones
    notification_id: int | None = None

    def __str__(self) -> str:
        """Returns the opaque text for clients."""
        if self.notification_id is not None:
            return to_opaque(f"s~{self.notification_id}")
        kind, day = ("u", "") if self.day is None else ("r", f"~{self.day}")
        return to_opaque(f"{kind}~{self.event_type}~{self.subject}{day}")


class GroupCursor(Struct, frozen=True):
    """A position between two groups, and the snapshot from which the first page was read."""

    place: Cursor
    as_of: str

    def __str__(self) -> str:
        """Returns the opaque text for clients."""
        return to_opaque(f"{self.place.plain}/{write_nodes({OWN_NODE: Position(self.as_of)})}")


class Group(Struct, frozen=True):
    """Several notifications as one item; `others` are people besides `initiators`."""

    group_key: str
    count: int
    unread: int
    initiators: list[Initiator]  # the three newest, each once
    others: int
    title: str
    latest: Notification
    oldest_at: datetime
    capped: bool  # there are more than the 1,000 newest, which were counted

    def with_pictures_of(self, hosts: Sequence[str]) -> Group:
        """Returns it with the people's pictures that are on one of these hosts, or a path."""
        if all(
            each.avatar_url is None
            for each in (*self.initiators, self.latest.initiator_profile)
            if each
        ):
            return self
        initiators = [each.with_picture_of(hosts) for each in self.initiators]
        latest = self.latest.with_picture_of(hosts)
        return structs.replace(self, initiators=initiators, latest=latest)


class GroupedInbox(Struct, frozen=True):
    """A page of groups, and the snapshot from which the first page was read."""

    results: list[Group]
    next: GroupCursor | None
    previous: GroupCursor | None
    as_of: str  # opaque


class InboxPreferences(Struct, frozen=True):
    """How a person's inbox is shown."""

    grouped: bool


class _Facts(Struct, frozen=True):
    """What a row of `list_groups` has besides its newest notification; null for a group of one where it may be."""

    day: date | None
    single: bool
    count: int | None
    capped: bool | None
    oldest_at: datetime | None
    initiators: list[dict[str, str | None]] | None
    people: int | None
    title_many: dict[str, dict[str, str]] | None
    locale: str | None


class _Head(Struct, frozen=True):
    """A group's place in the list."""

    id: int
    created_at: datetime
    latest: Notification
    facts: _Facts


async def list_groups(
    database: Queries,
    recipient_id: str,
    wanted: Filter,
    *,
    cursor: GroupCursor | None,
    limit: int,
) -> GroupedInbox:
    """Returns a page of groups; later pages show what was there when the first one was read."""
    place = None if cursor is None else cursor.place
    rows = await database.tuples(
        _SQL["list_groups"],
        recipient_id=recipient_id,
        read=wanted.read,
        event_type=wanted.event_type,
        category=wanted.category,
        subject=wanted.subject,
        as_of=cursor.as_of if cursor else database.snapshot,
        at=place and place.at,
        id=place and place.id,
        newer=place is not None and place.newer,
        limit=limit + 1,
    )
    heads = [_to_head(columns) for columns in rows if columns[0] is not None]
    kept = min(limit, count_fitting([head.latest for head in heads]))
    cut = page(heads[: kept + 1], place, kept)
    as_of = rows[0][_WIDTH]
    return GroupedInbox(
        [_to_group(head) for head in cut.results],
        None if cut.next is None else GroupCursor(cut.next, as_of),
        None if cut.previous is None else GroupCursor(cut.previous, as_of),
        write_as_of(as_of),
    )


def _to_head(columns: tuple[Any, ...]) -> _Head:
    latest = Notification(*columns[:_WIDTH])
    return _Head(latest.id, latest.created_at, latest, _Facts(*columns[_WIDTH + 1 :]))


def _to_group(head: _Head) -> Group:
    facts, latest = head.facts, to_safe(head.latest)
    key = (
        GroupKey(notification_id=head.id)
        if facts.single
        else GroupKey(latest.event_type, latest.subject, facts.day)
    )
    if facts.count is None:
        people = [latest.initiator_profile] if latest.initiator_profile else []
        unread = 0 if latest.read else 1
        return Group(
            str(key), 1, unread, people, 0, latest.title, latest, latest.created_at, capped=False
        )
    initiators = convert(facts.initiators, list[Initiator])
    people_count = facts.people or 0
    title = group_title(
        facts.title_many,
        facts.locale,
        GroupFacts(
            facts.count,
            latest.title,
            initiators[0].name if initiators else None,
            max(people_count - 1, 0),
            about_of(latest.metadata),
            bool(facts.capped),
        ),
    )
    return Group(
        str(key),
        facts.count,
        0 if latest.read else facts.count,
        initiators,
        max(people_count - _MOST_SHOWN, 0),
        title,
        latest,
        facts.oldest_at or latest.created_at,
        capped=bool(facts.capped),
    )


def parse_group_key(text: str) -> GroupKey:
    """Reads a group's key; raises Invalid when it is not one of ours."""
    found = _KEY.fullmatch(from_opaque(text))
    try:
        if found and found["id"]:
            return GroupKey(notification_id=int(found["id"]))
        if found and found["unread"]:
            return GroupKey(found["unread"], found["about"])
        if found:
            return GroupKey(found["read"], found["thing"], date.fromisoformat(found["day"]))
    except ValueError:  # there is no such day
        pass
    raise unreadable(
        "group_key",
        text,
        "group_key is not one of a grouped list",
        "Pass the group_key of a group of GET /api/notifications/?grouped=true as it is.",
    )


def parse_group_cursor(text: str) -> GroupCursor:
    """Reads a cursor of a list of groups; raises Invalid when it is not one."""
    place, _, nodes = from_opaque(text).partition("/")
    cursor, position = cursor_of(place), read_nodes(nodes).get(OWN_NODE)
    if cursor is None or position is None:
        raise unreadable("cursor", text, *NO_CURSOR)
    return GroupCursor(cursor, position.snapshot)


async def list_group_members(
    database: Queries, recipient_id: str, key: GroupKey, *, cursor: Cursor | None, limit: int
) -> Inbox:
    """Returns a page of the notifications in a group, newest first."""
    newer = cursor is not None and cursor.newer
    rows = await database.tuples(
        _SQL["list_group_members"],
        **_arguments(recipient_id, key),
        notification_id=key.notification_id,
        newer=newer,
        at=cursor and cursor.at,
        id=cursor and cursor.id,
        limit=limit + 1,
    )
    return await to_inbox(rows, cursor, limit, database.snapshot)


async def mark_group_read(
    database: Database, recipient_id: str, key: GroupKey, *, as_of: str | None
) -> MarkedAll:
    """Marks the notifications of a group read; with `as_of`, those that this list could show."""
    if key.notification_id is not None:
        if (await get_notification(database, recipient_id, key.notification_id)).read:
            return MarkedAll(0, None)
        marked = await mark_read(database, recipient_id, key.notification_id, read=True)
        assert marked.read_at is not None
        return MarkedAll(1, undo_token("read", marked.read_at))
    if key.day is not None:
        return MarkedAll(0, None)
    wanted = Filter(event_type=key.event_type, subject=key.subject)
    return await mark_all_read(database, recipient_id, wanted, as_of=as_of)


async def mark_group_unread(
    database: Database, recipient_id: str, key: GroupKey, *, as_of: str | None
) -> MarkedAll:
    """Marks the notifications of a group unread; with `as_of`, those that this list could show."""
    snapshot = None if as_of is None else read_as_of(as_of)
    if key.notification_id is not None:
        await get_notification(database, recipient_id, key.notification_id)
    return await database.one(
        _to_marked_unread,
        _SQL["mark_group_unread"],
        **_arguments(recipient_id, key),
        notification_id=key.notification_id,
        as_of=snapshot,
    )


def _to_marked_unread(marked: int, xid: str) -> MarkedAll:
    return MarkedAll(marked, to_opaque(f"unread {xid}") if marked else None)


async def archive_group(
    database: Database, recipient_id: str, key: GroupKey, *, as_of: str | None
) -> str | None:
    """Removes the notifications of a group from list and badge; with `as_of`, those that this list could show.

    Returns what undoes it, None if there was nothing to remove. Raises NotFound and Invalid.
    """
    if key.notification_id is not None:
        return await archive_single(database, recipient_id, key.notification_id)
    archived_at = await database.value(
        _SQL["archive_group"],
        **_arguments(recipient_id, key),
        as_of=None if as_of is None else read_as_of(as_of),
    )
    return None if archived_at is None else undo_token("archived", archived_at)


def _arguments(recipient_id: str, key: GroupKey) -> Mapping[str, object]:
    return {
        "recipient_id": recipient_id,
        "event_type": key.event_type,
        "subject": key.subject,
        "day": key.day,
    }


async def get_inbox_preferences(session: Queries, recipient_id: str) -> InboxPreferences:
    """Returns how a person's inbox is shown; for an unknown person the defaults."""
    return await session.one(
        InboxPreferences, _SQL["get_inbox_preferences"], recipient_id=recipient_id
    )


async def set_inbox_preferences(
    database: Database, recipient_id: str, *, grouped: bool | None
) -> InboxPreferences:
    """Changes what is not None, and creates the person where it is a first write."""
    async with database.session() as session:
        await session.run(_SQL["set_inbox_preferences"], recipient_id=recipient_id, grouped=grouped)
        return await get_inbox_preferences(session, recipient_id)
