"""What operators look up: people and their notifications, dead letters and their replay, the ledger by the minute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import Struct

from tocsin.engine.store.database import Database, Queries
from tocsin.engine.store.pagination import Cursor
from tocsin.sql import load

_SQL = load("operations")
_LAST = 2**63 - 1
_COUNTED = 50_000  # of the newest
BATCH = 500
"""How many are replayed in one statement."""
MOST = 50_000
"""Waiting deliveries of a channel are counted up to this number."""


class DeviceLine(Struct, frozen=True):
    """One device of a person."""

    platform: str
    provider: str
    token: str
    registered_at: datetime
    disabled_at: datetime | None
    disabled_reason: str | None


class PersonLine(Struct, frozen=True):
    """What decides what reaches a person; the address in clear."""

    id: str
    email: str | None
    locale: str | None
    timezone: str | None
    created_at: datetime
    unread: int
    suppressed: str | None  # why the address must not be mailed
    suppressed_at: datetime | None
    digest: str | None
    quiet_hours: bool
    devices: list[DeviceLine]


class NotificationLine(Struct, frozen=True):
    """One notification of a list."""

    id: int
    event_id: int
    event_type: str
    title: str
    created_at: datetime
    in_inbox: bool
    read_at: datetime | None
    recipient_id: str | None


async def find_person(database: Queries, recipient_id: str) -> PersonLine | None:
    """Returns the person of this id, or None."""
    return await database.row(_to_person, _SQL["find_person"], recipient_id=recipient_id)


def _to_person(**columns: object) -> PersonLine:
    return msgspec.convert(columns, PersonLine)


async def recipients_with_address(database: Queries, address: str) -> list[str]:
    """Returns the ids of the recipients that have this address."""
    return list(await database.value(_SQL["recipients_with_address"], address=address))


async def notifications_of_person(
    database: Queries, recipient_id: str, limit: int
) -> list[NotificationLine]:
    """Returns the newest notifications of a person."""
    return await database.rows(
        NotificationLine, _SQL["notifications_of_person"], recipient_id=recipient_id, limit=limit
    )


async def notifications_of_event(
    database: Queries, event_id: int, limit: int
) -> list[NotificationLine]:
    """Returns the notifications of an event, the first ones by their recipients' ids."""
    return await database.rows(
        NotificationLine, _SQL["notifications_of_event"], event_id=event_id, limit=limit
    )


async def notification_exists(database: Queries, notification_id: int) -> bool:
    """Returns whether there is a notification of this id."""
    return bool(await database.value(_SQL["notification_exists"], notification_id=notification_id))


# Dead letters: deliveries that failed permanently, and their replay.


class DeadLetter(Struct, frozen=True):
    """A delivery that failed; `held` is why a replay would leave it as it is."""

    delivery_id: int
    notification_id: int | None
    event_id: int | None
    recipient_id: str | None
    channel: str
    event_type: str | None
    title: str | None
    reason: str | None
    last_reason: str | None  # the reason of the last attempt
    attempts: int
    address: str | None  # in clear
    created_at: datetime
    failed_at: datetime
    held: str | None


class DeadReason(Struct, frozen=True):
    """How many failed for one reason."""

    channel: str
    reason: str
    n: int
    first_at: datetime
    last_at: datetime


class DeadFilter(Struct, frozen=True):
    """Which dead letters; None is all."""

    since: datetime
    channel: str | None = None
    reason: str | None = None


class Replayed(Struct, frozen=True):
    """How many are due again, and how many stay as they are, by cause; `next` batch, None at the end."""

    replayed: int
    kept: dict[str, int]
    next: Cursor | None = None


async def dead_letters(
    database: Queries, wanted: DeadFilter, *, cursor: Cursor | None, limit: int
) -> tuple[list[DeadLetter], Cursor | None]:
    """Returns a page of them, newest first, and the position of the next one."""
    found = await database.rows(
        DeadLetter, _SQL["dead_letters"], **_place(wanted, cursor), limit=limit + 1
    )
    kept = found[:limit]
    if len(found) <= limit:
        return kept, None
    return kept, Cursor(kept[-1].failed_at, kept[-1].delivery_id)


async def dead_letter_reasons(database: Queries, since: datetime) -> list[DeadReason]:
    """Returns how many failed since a time, by channel and reason; of the newest 50,000."""
    return await database.rows(DeadReason, _SQL["dead_letter_reasons"], since=since, most=_COUNTED)


async def replay(database: Database, delivery_ids: Sequence[int], *, lift: bool) -> Replayed:
    """Queues these again; with `lift`, enables addresses and devices first that were disabled by the refusal."""
    return await database.one(Replayed, _SQL["replay"], delivery_ids=list(delivery_ids), lift=lift)


async def replay_batch(
    database: Database, wanted: DeadFilter, *, cursor: Cursor | None, lift: bool
) -> Replayed:
    """Replays the next BATCH that match, from the newest on; what fails meanwhile is not included."""
    letters, after = await dead_letters(database, wanted, cursor=cursor, limit=BATCH)
    done = await replay(database, [each.delivery_id for each in letters], lift=lift)
    return Replayed(done.replayed, done.kept, after)


async def replay_all(database: Database, wanted: DeadFilter, *, lift: bool) -> Replayed:
    """Replays all that match, in batches."""
    replayed, kept = 0, Counter[str]()
    cursor: Cursor | None = None
    while True:
        done = await replay_batch(database, wanted, cursor=cursor, lift=lift)
        replayed += done.replayed
        kept.update(done.kept)
        if done.next is None:
            return Replayed(replayed, dict(kept))
        cursor = done.next


def _place(wanted: DeadFilter, cursor: Cursor | None) -> dict[str, object]:
    return {
        "since": wanted.since,
        "channel": wanted.channel,
        "reason": wanted.reason,
        "at": cursor.at if cursor else datetime.max.replace(tzinfo=UTC),
        "id": cursor.id if cursor else _LAST,
    }


# The ledger by the minute, for charts that must not scan it.


class Minute(Struct, frozen=True):
    """Deliveries of one channel and state in a minute, or in a step of several; three arrays of equal length.

    Of an end, `n` is how many reached it; of queued, sending and deferred, how many were so at its end. `took` is the
    class of the latency, -1 for none.
    """

    at: datetime
    channel: str
    state: str
    reasons: list[str]
    took: list[int]
    n: list[int]


class Lately(Struct, frozen=True):
    """The same of the current minute; `recent`: within the last 60 s; `uncounted`: not in any counted minute."""

    at: datetime
    channel: str
    state: str
    reason: str
    took: int
    n: int
    recent: bool
    uncounted: bool


class Unfinished(Struct, frozen=True):
    """Deliveries that are not at their end, alike; `oldest_at` is when the oldest was created."""

    channel: str
    state: str
    reason: str
    n: int
    oldest_at: datetime


class ChannelRow(Struct, frozen=True):
    """One channel that sends."""

    channel: str
    available: bool  # some worker has a provider
    late: float  # seconds by which its oldest due delivery is late


async def count_minutes(database: Database, now: datetime) -> datetime | None:
    """Counts minutes that are over, at most an hour; returns up to when, None while another process counts."""
    kept: datetime | None = await database.value(_SQL["count_minutes"], now=now, most=MOST)
    return kept


async def counted_minutes(database: Queries, since: datetime, step: timedelta) -> list[Minute]:
    """Returns what was counted since a time, in steps of this length."""
    return await database.rows(Minute, _SQL["counted_minutes"], since=since, step=step)


async def settled_lately(database: Queries, now: datetime) -> list[Lately]:
    """Returns what reached its end in the last minute, and since the last counted one."""
    return await database.rows(Lately, _SQL["settled_lately"], now=now)


async def unfinished(database: Queries) -> list[Unfinished]:
    """Returns what waits, counted up to MOST on a channel."""
    return await database.rows(Unfinished, _SQL["unfinished"], most=MOST)


async def channels(database: Queries) -> list[ChannelRow]:
    """Returns the channels that send."""
    return await database.rows(ChannelRow, _SQL["channels"])


class RunningFanOut(Struct, frozen=True):
    """An event that is being fanned out in slices; `since` is when that began."""

    event_id: int
    event_type: str
    title: str
    fanned_out: int
    total: int
    since: datetime


async def running_fan_outs(database: Queries) -> list[RunningFanOut]:
    """Returns the first twenty."""
    return await database.rows(RunningFanOut, _SQL["running_fan_outs"])


class ThrottledApp(Struct, frozen=True):
    """An app that notifies people beyond a limit, with the event type of most of it."""

    caller: str  # role: or key:
    key_name: str | None
    event_type: str
    channel: str
    deliveries: int  # that wait
    people: int
    since: datetime
    due_at: datetime


async def throttled_apps(database: Queries, *, at_least: int) -> list[ThrottledApp]:
    """Returns those that cause `at_least` deliveries to one person to wait, the worst first."""
    return await database.rows(ThrottledApp, _SQL["throttled_apps"], at_least=at_least)
