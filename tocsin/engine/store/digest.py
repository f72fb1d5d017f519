"""Digests: when a person gets one, its content, and how they are made."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, time
from enum import StrEnum

from msgspec import Struct

from tocsin.engine.model import Entry, Invalid
from tocsin.engine.store.database import Database, Queries, Session
from tocsin.engine.text import nearest
from tocsin.sql import load

_SQL = load("digest")
_BATCH = 500  # people in one statement
# At most so many are queued: enough to keep the email actor busy, few enough that retries are soon sent.
_AT_WORK = 2000
_WAIT = 0.5  # seconds


class Frequency(StrEnum):
    """How often a person gets a digest."""

    OFF = "off"
    DAILY = "daily"
    WEEKLY = "weekly"


class Weekday(StrEnum):
    """The day of a weekly one."""

    MONDAY = "monday"
    TUESDAY = "tuesday"
    WEDNESDAY = "wednesday"
    THURSDAY = "thursday"
    FRIDAY = "friday"
    SATURDAY = "saturday"
    SUNDAY = "sunday"


class DigestPreferences(Struct, frozen=True):
    """When a person gets a digest, and of which categories."""

    frequency: Frequency
    categories: list[str]
    all_categories: bool  # they chose none: all are in it, later ones too
    send_at: str  # HH:MM, by the clock of `timezone`
    timezone: str  # an IANA name
    weekday: Weekday  # of a weekly one
    next_at: datetime | None


ALL = ("*",)


class DigestChange(Struct, frozen=True):
    """What is None stays as it is."""

    frequency: Frequency | None = None
    categories: Sequence[str] | None = None  # ALL for all, later ones too
    send_at: time | None = None
    timezone: str | None = None
    weekday: Weekday | None = None


class Assembled(Struct, frozen=True):
    """The result of one batch."""

    people: int  # whose digest was due
    digests: int  # to be sent
    unsent: int  # with nothing in them that is still unread


OnProgress = Callable[[Assembled], None]


class _Row(Struct):
    frequency: str
    categories: list[str] | None
    send_at: time
    timezone: str
    weekday: int
    next_at: datetime | None


async def get_digest_preferences(session: Queries, recipient_id: str) -> DigestPreferences:
    """Returns a person's; for one without a choice, off with the defaults."""
    row = await session.row(_Row, _SQL["get_digest_preference"], recipient_id=recipient_id)
    row = row or _Row("off", None, time(6), "UTC", 1, None)
    categories = row.categories
    if categories is None:
        categories = await session.value(_SQL["digest_categories"])
    return DigestPreferences(
        Frequency(row.frequency),
        categories,
        row.categories is None,
        f"{row.send_at:%H:%M}",
        row.timezone,
        list(Weekday)[row.weekday - 1],
        row.next_at,
    )


async def digest_timezone(database: Database, recipient_id: str) -> str | None:
    """Returns the time zone of a person's digest; None where neither it nor the person has one."""
    timezone: str | None = await database.value(_SQL["digest_timezone"], recipient_id=recipient_id)
    return timezone


async def set_digest_preferences(
    database: Database, recipient_id: str, change: DigestChange
) -> DigestPreferences:
    """Changes what is not None, and creates the person where it is a first write; raises Invalid."""
    async with database.transaction() as session:
        await _check(session, change)
        await session.run(
            _SQL["set_digest_preference"],
            recipient_id=recipient_id,
            frequency=change.frequency,
            categories=None
            if change.categories is None
            else list(dict.fromkeys(change.categories)),
            send_at=change.send_at,
            timezone=change.timezone,
            weekday=change.weekday and list(Weekday).index(change.weekday) + 1,
        )
        return await get_digest_preferences(session, recipient_id)


async def _check(session: Session, change: DigestChange) -> None:
    known = await session.value(_SQL["digest_categories"])
    for category in change.categories or ():
        if category not in known and change.categories != ALL:
            near = nearest(category, known)
            hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known)}."
            raise Invalid(
                "unknown category",
                ("categories", f"{category[:100]!r} is no category of digests. {hint}"),
            )
    if change.timezone is not None:
        await check_timezone(session, change.timezone)


async def check_timezone(session: Session, timezone: str) -> None:
    """Raises Invalid unless the database knows a zone by this name."""
    if not await session.value(_SQL["is_timezone"], timezone=timezone):
        cure = f"{timezone[:60]!r} is not known. Use an IANA name such as Europe/Rome."
        raise Invalid("unknown timezone", ("timezone", cure))


async def make_digests(
    database: Database,
    now: datetime,
    *,
    leftovers: bool = True,
    at_once: bool = False,
    on_progress: OnProgress | None = None,
) -> Assembled:
    """Creates each digest that was due by `now`, once however many processes run this; returns how many.

    `leftovers`: also for people with something waiting and no next digest. `at_once` queues any number.
    """
    total = Assembled(0, 0, 0)
    if leftovers:
        await schedule_leftover_digests(database, now)
    while True:
        if not at_once and await digests_at_work(database, _AT_WORK) >= _AT_WORK:
            await asyncio.sleep(_WAIT)
            continue
        batch = await assemble_digests(database, now, _BATCH)
        total = Assembled(
            total.people + batch.people,
            total.digests + batch.digests,
            total.unsent + batch.unsent,
        )
        if on_progress:
            on_progress(total)
        if batch.people < _BATCH:
            return total


async def assemble_digests(database: Database, now: datetime, limit: int) -> Assembled:
    """Makes the digests of one batch of people."""
    return await database.one(Assembled, _SQL["assemble_digests"], now=now, limit=limit)


async def schedule_leftover_digests(database: Database, now: datetime) -> int:
    """Makes a digest due now for people with entries but no next digest; returns for how many."""
    return int(await database.value(_SQL["schedule_leftover_digests"], now=now))


async def digests_at_work(database: Database, limit: int) -> int:
    """Returns how many are made and not sent yet, counted up to `limit`."""
    return int(await database.value(_SQL["digests_at_work"], limit=limit))


async def digest_entries(database: Database, digest_ids: Sequence[int]) -> dict[int, list[Entry]]:
    """Returns the entries of some digests; an empty list for one that has none any more."""
    entries: defaultdict[int, list[Entry]] = defaultdict(list)
    for entry in await database.rows(Entry, _SQL["digest_entries"], digest_ids=list(digest_ids)):
        entries[entry.digest_id or 0].append(entry)
    return {digest_id: entries[digest_id] for digest_id in digest_ids}


async def waiting_entries(database: Database, recipient_id: str) -> list[Entry]:
    """Returns what would be in a person's digest now."""
    return await database.rows(Entry, _SQL["waiting_entries"], recipient_id=recipient_id)
