"""Dead letters: deliveries that failed for good, and their replay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct

from tocsin.engine.store.database import Database
from tocsin.engine.store.page import Cursor
from tocsin.sql import load

_SQL = load("dead_letter")
_LAST = 2**63 - 1
_COUNTED = 50_000  # of the newest
BATCH = 500
"""How many are replayed in one statement."""


class DeadLetter(Struct, frozen=True):
    """A delivery that failed; `held` says why a replay would leave it as it is."""

    delivery_id: int
    notification_id: int | None
    event_id: int | None
    recipient_id: str | None
    channel: str
    event_type: str | None
    title: str | None
    reason: str | None
    last_reason: str | None  # what the last attempt was told
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
    """How many are due again, and how many stay as they are, by cause; `next`: where to go on, None at the end."""

    replayed: int
    kept: dict[str, int]
    next: Cursor | None = None


class _Id(Struct):
    delivery_id: int
    failed_at: datetime


async def dead_letters(
    database: Database, wanted: DeadFilter, *, cursor: Cursor | None, limit: int
) -> tuple[list[DeadLetter], Cursor | None]:
    """A page of them, newest first, and the place of the next one."""
    found = await database.rows(
        DeadLetter, _SQL["dead_letters"], **_place(wanted, cursor), limit=limit + 1
    )
    kept = found[:limit]
    if len(found) <= limit:
        return kept, None
    return kept, Cursor(kept[-1].failed_at, kept[-1].delivery_id)


async def dead_letter_reasons(database: Database, since: datetime) -> list[DeadReason]:
    """How many failed since a time, by channel and reason; of the newest 50,000."""
    return await database.rows(DeadReason, _SQL["dead_letter_reasons"], since=since, most=_COUNTED)


async def replay(database: Database, delivery_ids: Sequence[int], *, lift: bool) -> Replayed:
    """Tries these anew; with `lift`, addresses and devices that their refusal closed are opened again first."""
    done = await database.row(Replayed, _SQL["replay"], delivery_ids=list(delivery_ids), lift=lift)
    assert done is not None
    return done


async def replay_batch(
    database: Database, wanted: DeadFilter, *, cursor: Cursor | None, lift: bool
) -> Replayed:
    """Tries the next BATCH that match anew, from the newest on: what fails meanwhile is not met again."""
    found = await database.rows(_Id, _SQL["dead_letter_ids"], **_place(wanted, cursor), limit=BATCH)
    if not found:
        return Replayed(0, {})
    done = await replay(database, [each.delivery_id for each in found], lift=lift)
    last = Cursor(found[-1].failed_at, found[-1].delivery_id) if len(found) == BATCH else None
    return Replayed(done.replayed, done.kept, last)


async def replay_all(database: Database, wanted: DeadFilter, *, lift: bool) -> Replayed:
    """Tries all that match anew, batch by batch."""
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
