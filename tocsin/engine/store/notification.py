"""People's notifications and their buttons: every query is bound to the recipient's id."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any, Literal, NoReturn, Self
from urllib.parse import urlsplit

from msgspec import Struct, convert, structs

from tocsin.engine.model import Acted, NotFound, Refused
from tocsin.engine.store.database import Database, Queries
from tocsin.engine.store.pagination import (
    Cursor,
    Page,
    page,
    read_as_of,
    to_opaque,
    write_as_of,
)
from tocsin.engine.text import sanitise
from tocsin.sql import load

_SQL = load("notification")
_LARGEST_PAGE = 2_000_000  # characters of bodies
_LONG_HTML = 10_000  # characters

Closed = Literal["cancelled", "replaced", "expired"]
"""Why no button of a notification can be pressed any more."""

_KEY = re.compile("[a-z0-9_-]{1,40}")
_NO_NOTIFICATION = "There is no such notification of yours."
_OVER: dict[str, str] = {
    "cancelled": "The event was cancelled, so there is nothing left to choose.",
    "replaced": "A newer notification has replaced this one: choose there.",
    "expired": "The time in which this could be chosen is over.",
}


class Action(Struct, frozen=True):
    """A button of a notification; `url` opens after the press."""

    key: str
    label: str
    url: str | None = None
    style: Literal["primary", "danger"] | None = None


class Initiator(Struct, frozen=True):
    """The person that caused an event, as others see them; name and picture where the app gave them."""

    id: str
    name: str | None
    avatar_url: str | None

    def with_picture_of(self, hosts: Sequence[str]) -> Initiator:
        """Returns it without its picture unless that is on one of these hosts, or a path."""
        if self.avatar_url is None or _is_on(self.avatar_url, hosts):
            return self
        return structs.replace(self, avatar_url=None)


def _is_on(url: str, hosts: Sequence[str]) -> bool:
    """Returns whether a Content-Security-Policy with these hosts would load it; `*.` is each host below one."""
    if url.startswith("/"):
        return True
    parts = urlsplit(url.lower())
    found = parts.netloc.removesuffix(":443")
    return parts.scheme == "https" and any(
        found.endswith(host[1:]) if host.startswith("*.") else found == host for host in hosts
    )


class Notification(Struct, frozen=True):
    """One notification as a person's client gets it, by REST and by the stream."""

    id: int
    event_id: int
    event_type: str
    category: str
    title: str
    body: str
    body_html: str | None  # sanitised
    action_url: str | None
    metadata: dict[str, Any]
    initiator: str | None
    subject: str | None  # what it is about
    read: bool
    read_at: datetime | None
    created_at: datetime
    archived: bool  # taken out of the inbox by the person
    actions: list[Action] | None
    acted: Acted | None  # None: no button was pressed yet
    initiator_profile: Initiator | None  # None: nobody caused it

    def with_picture_of(self, hosts: Sequence[str]) -> Self:
        """Returns it without the initiator's picture unless that is on one of these hosts, or a path."""
        profile = self.initiator_profile and self.initiator_profile.with_picture_of(hosts)
        if profile is self.initiator_profile:
            return self
        return structs.replace(self, initiator_profile=profile)


class Filter(Struct, frozen=True):
    """Which part of an inbox, or of the archive; None is all."""

    read: bool | None = None
    event_type: str | None = None
    category: str | None = None
    subject: str | None = None
    archived: bool = False


class Inbox(Struct, frozen=True):
    """A page of an inbox, and the snapshot from which it was read."""

    page: Page[Notification]
    as_of: str  # opaque


class AttemptRecord(Struct, frozen=True):
    """One attempt at a delivery."""

    at: datetime
    outcome: str
    reason: str | None
    provider: str | None = None  # host and port of a mail server, or another provider's name


class DeviceRecord(Struct, frozen=True):
    """A person's device; `token` are its last six characters, None of one too short to show any."""

    platform: str
    token: str | None
    disabled_reason: str | None


class MailEventRecord(Struct, frozen=True):
    """What was reported on a mail after it was sent."""

    kind: str  # bounce or complaint
    reason: str
    at: datetime


class DeliveryRecord(Struct, frozen=True):
    """The state of a delivery; `address` in clear."""

    channel: str
    state: str
    reason: str | None
    address: str | None
    attempts: list[AttemptRecord]
    due_at: datetime | None = None  # while it waits
    digest: bool = False  # the digest that it was in
    device: DeviceRecord | None = None  # for push, while it is the person's
    by_name: bool = False  # the address is the name of a target
    settled_at: datetime | None = None  # when it reached a final state
    mail_event: MailEventRecord | None = None


class Decisions(Struct, frozen=True):
    """All that is recorded about the channels of one notification."""

    notification_id: int
    event_id: int
    title: str
    created_at: datetime
    recipient_id: str | None  # None for an address that nobody has claimed
    event_type: str
    event_type_label: str
    category_label: str
    archived: bool
    left_inbox: str | None  # why it did: cancelled, withdrawn or replaced
    channels: list[str]  # those decided, in their order
    decisions: dict[str, list[str]]  # channel: [decision, reason] or [decision, reason, scope]
    deliveries: list[dict[str, Any]]
    disabled_devices: list[dict[str, Any]]  # where push had none to go to
    because: str | None = None  # of a topic: followed, replied, mentioned, muted or not_mentioned
    topic: str | None = None
    email: str | None = None  # that the event was for, in place of recipients
    complaints: list[str] = []  # scopes in which a complaint turned email off


class MarkedAll(Struct, frozen=True):
    """How many were marked, and the token to undo it."""

    marked: int
    undo: str | None  # None: nothing was marked


async def list_notifications(
    database: Queries, recipient_id: str, wanted: Filter, *, cursor: Cursor | None, limit: int
) -> Inbox:
    """Returns a page of a person's inbox or archive; a shorter one where its notifications are large."""
    newer = cursor is not None and cursor.newer
    arguments: dict[str, object] = {
        "recipient_id": recipient_id,
        "at": cursor and cursor.at,
        "id": cursor and cursor.id,
        "limit": limit + 1,
    }
    if newer or wanted != Filter():
        rows = await database.tuples(
            _SQL["list_filtered"],
            **arguments,
            read=wanted.read,
            event_type=wanted.event_type,
            category=wanted.category,
            subject=wanted.subject,
            archived=wanted.archived,
            newer=newer,
        )
    else:
        rows = await database.tuples(_SQL["list_notifications"], **arguments)
    return await to_inbox(rows, cursor, limit, database.snapshot)


async def to_inbox(
    rows: Sequence[tuple[Any, ...]], cursor: Cursor | None, limit: int, snapshot: str | None
) -> Inbox:
    """Makes a page of up to `limit + 1` rows, nearest to the cursor first; a shorter one where they are large.

    A row has the fields of Notification in their order, and the snapshot, unless that is given; an empty page is a row
    with the snapshot.
    """
    found = [Notification(*columns[:-1]) for columns in rows if columns[0] is not None]
    kept = min(limit, count_fitting(found))
    cut = page(found[: kept + 1], cursor, kept)
    results = []
    for each in cut.results:
        results.append(to_safe(each))
        if len(each.body_html or "") > _LONG_HTML:
            await asyncio.sleep(0)  # it took a millisecond or more
    return Inbox(structs.replace(cut, results=results), write_as_of(snapshot or rows[0][-1]))


def count_fitting(found: Sequence[Notification]) -> int:
    """Returns how many of them make a page that is not too large to encode at once, at least one."""
    sizes = accumulate(len(each.body) + len(each.body_html or "") for each in found)
    return max(1, sum(size <= _LARGEST_PAGE for size in sizes))


async def get_notification(
    session: Queries, recipient_id: str, notification_id: int
) -> Notification:
    """Returns one of a person's own, in the inbox or not; raises NotFound."""
    found = await session.row(
        Notification,
        _SQL["get_notification"],
        recipient_id=recipient_id,
        notification_id=notification_id,
    )
    if found is None:
        raise NotFound("There is no such notification of yours.")
    return to_safe(found)


async def mark_read(
    database: Database, recipient_id: str, notification_id: int, *, read: bool
) -> Notification:
    """Marks one read or unread and returns it; raises NotFound."""
    async with database.session() as session:
        await session.run(
            _SQL["mark_read"],
            recipient_id=recipient_id,
            notification_id=notification_id,
            read=read,
        )
        return await get_notification(session, recipient_id, notification_id)


async def mark_all_read(
    database: Database, recipient_id: str, wanted: Filter, *, as_of: str | None
) -> MarkedAll:
    """Marks what a list can show; with `as_of`, what that list could show."""
    return await database.one(
        _to_marked_all,
        _SQL["mark_all_read"],
        recipient_id=recipient_id,
        category=wanted.category,
        event_type=wanted.event_type,
        subject=wanted.subject,
        as_of=None if as_of is None else read_as_of(as_of),
    )


async def mark_seen(database: Database, recipient_id: str, *, as_of: str | None) -> None:
    """Moves the person's mark to that list, or to now; raises Invalid."""
    await database.run(
        _SQL["mark_seen"],
        recipient_id=recipient_id,
        as_of=None if as_of is None else read_as_of(as_of),
    )


def _to_marked_all(marked: int, read_at: datetime) -> MarkedAll:
    return MarkedAll(marked, undo_token("read", read_at) if marked else None)


def undo_token(change: Literal["read", "archived"], at: datetime) -> str:
    """Returns what undoes a change of many notifications, all of which have this `read_at` or `archived_at`."""
    return to_opaque(f"{change} {at.isoformat()}")


async def unread_by_category(database: Database, recipient_id: str) -> dict[str, int]:
    """Returns how many unread ones a person has in each category that has some."""
    return await database.pairs(_SQL["unread_by_category"], recipient_id=recipient_id)


async def why(
    database: Queries, notification_ids: Sequence[int], *, recipient_id: str | None = None
) -> dict[int, Decisions]:
    """Returns decisions and deliveries by notification; with `recipient_id`, those of that person only."""
    rows = await database.rows(
        Decisions, _SQL["why"], notification_ids=list(notification_ids), recipient_id=recipient_id
    )
    return {row.notification_id: row for row in rows}


def to_safe(notification: Notification) -> Notification:
    """Returns it with a sanitised body, and with types for what PostgreSQL has as JSON."""
    changed: dict[str, object] = {}
    if notification.actions is not None:
        changed["actions"] = convert(notification.actions, list[Action])
        changed["acted"] = convert(notification.acted, Acted | None)
    if notification.initiator_profile is not None:
        changed["initiator_profile"] = convert(notification.initiator_profile, Initiator)
    if notification.body_html is not None:
        changed["body_html"] = sanitise(notification.body_html)
    return structs.replace(notification, **changed) if changed else notification


class PressResult(Struct, frozen=True):
    """How a press ended, and the key that counts, if any.

    `outcome` is `acted`, also if that key was chosen before; `other`, if another one was; or one of `Closed`.
    """

    outcome: Literal["acted", "other"] | Closed
    chosen: str | None


class ActionsState(Struct, frozen=True):
    """Whether the buttons of a notification can still be pressed, and the language of its person."""

    closed: Closed | None
    locale: str | None


async def press(
    database: Database, recipient_id: str, notification_id: int, key: str
) -> Notification:
    """Presses a button and returns the notification; raises NotFound, Conflict, and Refused if it counts no more."""
    result = await try_press(database, recipient_id, notification_id, key)
    if result.outcome in _OVER:
        raise Refused(_OVER[result.outcome], result.outcome)
    async with database.session() as session:
        notification = await get_notification(session, recipient_id, notification_id)
    if result.outcome == "other":
        first = f"The first choice counts, which was {result.chosen}."
        raise Refused(first, "chosen", notification.acted)
    return notification


async def try_press(
    database: Database, recipient_id: str, notification_id: int, key: str
) -> PressResult:
    """Presses a button and returns how that ended; raises NotFound and Conflict."""
    if not _KEY.fullmatch(key):
        _refuse_key()
    person = {"recipient_id": recipient_id, "notification_id": notification_id}
    # one statement, which commits by itself
    result = await database.one(PressResult, _SQL["press_action"], **person, key=key)
    found: str = result.outcome
    if found == "unknown":
        raise NotFound(_NO_NOTIFICATION)
    if found == "unknown_key":
        _refuse_key()
    return result


async def actions_state(
    database: Database, recipient_id: str, notification_id: int
) -> ActionsState:
    """Returns the state of a notification's buttons; raises NotFound."""
    found = await database.row(
        ActionsState,
        _SQL["actions_state"],
        recipient_id=recipient_id,
        notification_id=notification_id,
    )
    if found is None:
        raise NotFound(_NO_NOTIFICATION)
    return found


def _refuse_key() -> NoReturn:
    raise NotFound("This notification has no such action: `actions` has the keys.")
