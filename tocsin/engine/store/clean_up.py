"""What is over, removed in batches, so that no lock is held long."""

from __future__ import annotations

from datetime import datetime, timedelta

from tocsin.engine.store.database import Database
from tocsin.sql import load

_SQL = load("clean_up")
_BATCH = 1000


async def clean_up(database: Database, *, now: datetime, retention: timedelta) -> int:
    """Removes notifications that were over `retention` before `now`; how many.

    With them go their digests and events, yesterday's keys, and the pushes that corrected badges; stale devices are
    disabled, and what the ledger lost sight of is due.
    """
    before = now - retention
    removed = await _in_batches(database, "clean_up_notifications", before=before)
    await _in_batches(database, "clean_up_digests", before=before)
    await _in_batches(database, "clean_up_events", before=before)
    await _in_batches(database, "clean_up_keys", now=now)
    await _in_batches(database, "clean_up_badge_pushes", now=now)
    await _in_batches(database, "disable_stale_devices", now=now)
    await _in_batches(database, "call_lost", now=now)
    return removed


async def _in_batches(database: Database, statement: str, **until: datetime) -> int:
    removed = 0
    while True:
        count = int(await database.value(_SQL[statement], limit=_BATCH, **until))
        removed += count
        if count < _BATCH:
            return removed


async def count_over(database: Database, *, now: datetime, retention: timedelta) -> int:
    """How many notifications a clean-up would remove."""
    return int(await database.value(_SQL["count_over"], before=now - retention))
