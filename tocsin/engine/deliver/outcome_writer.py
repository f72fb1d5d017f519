"""Writes outcomes to the ledger and to the log, many in one statement under load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog

from tocsin.background import cancel_tasks
from tocsin.engine.model import Claimed, Conflict, DeliveryState, Settlement, Unavailable
from tocsin.engine.store import delivery as store
from tocsin.engine.store.database import Database
from tocsin.engine.store.delivery import SettledDelivery

RETRY = 0.2
"""Seconds until a statement is retried that failed by a full disk or an open transaction of an app."""
_BATCH = 500
_LOG_AFTER = 0.02  # seconds

OnWritten = Callable[[int], object]
CountAttempts = Callable[[Sequence[dict[str, Any]]], None]  # given what the log lines have

log = structlog.get_logger("tocsin.ledger")
_attempt_lines = structlog.get_logger("tocsin.deliver")


class AttemptLog:
    """Logs a line for each attempt, many lines at once; none holds a body, an address or a token."""

    def __init__(self, count: CountAttempts | None = None) -> None:
        self._count = count
        self._lines: list[dict[str, Any]] = []

    def note(self, together: Sequence[Claimed], settlement: Settlement, started: float) -> None:
        """Logs the outcome of deliveries that went as one message, sent at `started` (monotonic)."""
        if not self._lines:
            asyncio.get_running_loop().call_later(_LOG_AFTER, self.flush)
        outcome = settlement.outcome
        name = type(outcome).__name__.lower()
        reason = getattr(outcome, "reason", None)
        ms = round((time.monotonic() - started) * 1000, 1)
        for claimed in together:
            self._lines.append(
                {
                    "delivery_id": claimed.delivery_id,
                    "channel": claimed.channel,
                    "attempt": claimed.attempt,
                    "outcome": name,
                    "reason": reason,
                    "provider": settlement.provider,
                    "ms": ms,
                }
            )

    def flush(self) -> None:
        """Writes all lines now."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        if self._count is not None:
            self._count(lines)
        # the logger of logs.py takes many lines at once
        many = getattr(_attempt_lines, "many", None)
        if many is not None:
            many("attempt", lines)
            return
        for line in lines:
            _attempt_lines.info("attempt", **line)


def _nothing(_delivery_id: int) -> None:
    pass


class OutcomeWriter:
    """Writes each outcome as soon as possible: alone when idle, in batches under load.

    An outcome that is lost is a mail sent twice, so each is kept until the database is available.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[tuple[SettledDelivery, OnWritten]] = []
        self._any = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._caught_up = asyncio.Event()
        self._caught_up.set()

    @property
    def behind(self) -> bool:
        """Whether outcomes could not be written because the database is unavailable."""
        return not self._caught_up.is_set()

    async def caught_up(self) -> None:
        """Waits until these are written."""
        await self._caught_up.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Writes until the block ends, and then what is left, for 2 s at most."""
        writer = asyncio.create_task(self._run(), name="outcomes")
        try:
            yield
        finally:
            try:
                await asyncio.wait_for(self._idle.wait(), 2.0)
            except TimeoutError:
                log.error("outcomes not written", count=len(self._waiting))
            await cancel_tasks(writer)

    def write(self, settled: SettledDelivery, on_written: OnWritten = _nothing) -> None:
        """Queues an outcome, and calls `on_written` with its delivery once it is written."""
        self._waiting.append((settled, on_written))
        self._any.set()
        self._idle.clear()

    async def _run(self) -> None:
        while True:
            await self._any.wait()
            batch = self._waiting[:_BATCH]
            written_ids: set[int] = set()
            for together in _by_statement([settled for settled, _ in batch]):
                written_ids |= await self._settle(together)
            del self._waiting[: len(batch)]
            for settled, on_written in batch:
                if settled.delivery_id not in written_ids:
                    # another worker claimed it: the outcome of that claim counts
                    log.warning("claim lost", delivery_id=settled.delivery_id, state=settled.state)
                on_written(settled.delivery_id)
            if not self._waiting:
                self._any.clear()
                self._idle.set()
                self._caught_up.set()

    async def _settle(self, settled: list[SettledDelivery]) -> set[int]:
        while True:
            try:
                return await store.settle(self._database, settled)
            except Unavailable:
                self._caught_up.clear()
                await self._database.availability.wait()
                await asyncio.sleep(RETRY)  # a full disk leaves the connection open
            except Conflict:
                await asyncio.sleep(RETRY)
            except Exception:
                if len(settled) == 1:
                    # its lease runs out, and it is tried again, as often as attempts are allowed
                    log.exception("outcome not written", delivery_id=settled[0].delivery_id)
                    return {settled[0].delivery_id}
                # one that can't be written must not keep the others from being written
                written = [await self._settle([one]) for one in settled]
                return set().union(*written)


def _by_statement(batch: Sequence[SettledDelivery]) -> list[list[SettledDelivery]]:
    """Separates what was sent, as most was: it has a cheaper statement."""
    sent = [one for one in batch if one.state is DeliveryState.SENT]
    others = [one for one in batch if one.state is not DeliveryState.SENT]
    return [each for each in (sent, others) if each]
