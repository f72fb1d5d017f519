"""The ledger by the minute: what reached its end, and what waits; for charts that must not scan it."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from msgspec import Struct

from tocsin.engine.store.database import Database
from tocsin.sql import load

_SQL = load("operations")

# What an operator looks up: a person, an event's people, a notification.


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


class ToldLine(Struct, frozen=True):
    """One notification of a list."""

    id: int
    event_id: int
    event_type: str
    title: str
    created_at: datetime
    in_inbox: bool
    read_at: datetime | None
    recipient_id: str | None


async def find_person(database: Database, recipient_id: str) -> PersonLine | None:
    """The person of this id, or None."""
    found = await database.row(PersonLine, _SQL["find_person"], recipient_id=recipient_id)
    if found is None:
        return None
    devices = msgspec.convert(found.devices, list[DeviceLine])
    return msgspec.structs.replace(found, devices=devices)


async def recipients_with_address(database: Database, address: str) -> list[str]:
    """The ids of those who have this address."""
    return list(await database.value(_SQL["recipients_with_address"], address=address))


async def notifications_of_person(
    database: Database, recipient_id: str, limit: int
) -> list[ToldLine]:
    """The newest notifications of a person."""
    return await database.rows(
        ToldLine, _SQL["notifications_of_person"], recipient_id=recipient_id, limit=limit
    )


async def notifications_of_event(database: Database, event_id: int, limit: int) -> list[ToldLine]:
    """The recipients of an event, the first ones by their ids."""
    return await database.rows(
        ToldLine, _SQL["notifications_of_event"], event_id=event_id, limit=limit
    )


async def notification_exists(database: Database, notification_id: int) -> bool:
    """Whether there is a notification of this id."""
    return bool(await database.value(_SQL["notification_exists"], notification_id=notification_id))


MOST = 50_000
"""What waits on a channel is counted this far; of a bigger backlog "so many or more" is known."""


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
    """The same of now; `recent`: within the last 60 s; `uncounted`: not in any minute that is kept."""

    at: datetime
    channel: str
    state: str
    reason: str
    took: int
    n: int
    recent: bool
    uncounted: bool


class Unfinished(Struct, frozen=True):
    """Deliveries that are not at their end, alike; `oldest_at` is when the oldest was asked for."""

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
    """Counts minutes that are over, an hour of them at most; up to when, None while another process does it."""
    kept: datetime | None = await database.value(_SQL["count_minutes"], now=now, most=MOST)
    return kept


async def counted_minutes(database: Database, since: datetime, step: timedelta) -> list[Minute]:
    """What was kept since a time, in steps of so long."""
    return await database.rows(Minute, _SQL["counted_minutes"], since=since, step=step)


async def settled_lately(database: Database, now: datetime) -> list[Lately]:
    """What reached its end in the last minute, and since the last one that is kept."""
    return await database.rows(Lately, _SQL["settled_lately"], now=now)


async def unfinished(database: Database) -> list[Unfinished]:
    """What waits, counted up to MOST on a channel."""
    return await database.rows(Unfinished, _SQL["unfinished"], most=MOST)


async def channels(database: Database) -> list[ChannelRow]:
    """The channels that send."""
    return await database.rows(ChannelRow, _SQL["channels"])
