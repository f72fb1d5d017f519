"""Counts the ledger's minutes as they are over: every HTTP process stands by, one at a time does it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from tocsin.engine.model import Conflict, Unavailable
from tocsin.engine.store.database import Database
from tocsin.engine.store.delivery_minute import keep_minutes

_AGAIN = 5.0  # seconds
_BEHIND = timedelta(minutes=2)
_BREATH = 0.05  # seconds between two hours that are caught up with

log = structlog.get_logger("tocsin.minutes")


async def keep_counting(database: Database) -> None:
    """Counts until it is cancelled; what was missed while nothing ran, back to a day ago."""
    while True:
        pause = _AGAIN
        try:
            now = datetime.now(UTC)
            kept = await keep_minutes(database, now)
            if kept is not None and kept < now - _BEHIND:
                pause = _BREATH
        except (Unavailable, Conflict):
            pass
        except Exception:
            # charts alone hang on it
            log.exception("minutes not counted")
        await asyncio.sleep(pause)
