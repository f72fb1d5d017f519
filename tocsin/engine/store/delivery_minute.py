"""The ledger by the minute: what reached its end, and what waits; for charts that must not scan it."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import Struct

from tocsin.engine.store.database import Database
from tocsin.sql import load

_SQL = load("delivery_minute")
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


async def keep_minutes(database: Database, now: datetime) -> datetime | None:
    """Counts minutes that are over, an hour of them at most; up to when, None while another process does it."""
    kept: datetime | None = await database.value(_SQL["keep_minutes"], now=now, most=MOST)
    return kept


async def kept_minutes(database: Database, since: datetime, step: timedelta) -> list[Minute]:
    """What was kept since a time, in steps of so long."""
    return await database.rows(Minute, _SQL["kept_minutes"], since=since, step=step)


async def ended_lately(database: Database, now: datetime) -> list[Lately]:
    """What reached its end in the last minute, and since the last one that is kept."""
    return await database.rows(Lately, _SQL["ended_lately"], now=now)


async def unfinished(database: Database) -> list[Unfinished]:
    """What waits, counted up to MOST on a channel."""
    return await database.rows(Unfinished, _SQL["unfinished"], most=MOST)


async def channels(database: Database) -> list[ChannelRow]:
    """The channels that send."""
    return await database.rows(ChannelRow, _SQL["channels"])
