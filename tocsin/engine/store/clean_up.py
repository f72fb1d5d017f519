"""What is over, removed in batches, so that no lock is held long."""

from __future__ import annotations

from datetime import datetime, timedelta

from tocsin.engine.store.database import Database
from tocsin.sql import load

_SQL = load("clean_up")
_BATCH = 1000


async def clean_up(database: Database, *, now: datetime, retention: timedelta) -> int:
    """Removes notifications that were over `retention` before `now`, and yesterday's keys; how many notifications."""
    removed = 0
    while True:
        before = now - retention
        count = int(
            await database.value(_SQL["clean_up_notifications"], before=before, limit=_BATCH)
        )
        removed += count
        if count < _BATCH:
            break
    while await database.value(_SQL["clean_up_keys"], now=now, limit=_BATCH) == _BATCH:
        pass
    return removed


async def count_over(database: Database, *, now: datetime, retention: timedelta) -> int:
    """How many notifications a clean-up would remove."""
    return int(await database.value(_SQL["count_over"], before=now - retention))
