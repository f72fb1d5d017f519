"""The outbox of app webhooks: makes deliveries of what happened, as long as an app webhook wants any of it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import structlog

from tocsin.engine.model import Conflict, Unavailable
from tocsin.engine.store import webhook as store
from tocsin.engine.store.database import Database

# Rows of one statement, each of up to 500 messages.
_ROWS = 20
# Seconds between two looks at the outbox, and while there is no app webhook.
_PAUSE = 0.25
_PAUSE_WITHOUT = 2.0
_CHECK_FAILING = timedelta(minutes=1)

log = structlog.get_logger("tocsin.webhooks")


async def keep_queueing_webhooks(database: Database) -> None:
    """Empties the outbox, and disables webhooks that fail for too long, until cancelled; any number of workers may."""
    checked_at = datetime.now(UTC)
    while True:
        pause = _PAUSE_WITHOUT
        with suppress(Unavailable, Conflict):
            if await store.is_wanted(database):
                pause = _PAUSE
                while await store.queue_webhooks(database, _ROWS) == _ROWS:
                    pass
            now = datetime.now(UTC)
            if now - checked_at >= _CHECK_FAILING:
                for each in await store.disable_failing(database, now=now, since=checked_at):
                    log.warning("webhook disabled", webhook=each.name, reason=each.reason)
                checked_at = now
        await asyncio.sleep(pause)
