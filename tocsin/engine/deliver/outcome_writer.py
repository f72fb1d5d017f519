"""The ledger's pen: outcomes of many messages, written in as few statements as the database needs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog

from tocsin.engine.model import Claimed, Conflict, DeliveryState, Settlement, Unavailable
from tocsin.engine.store import delivery as store
from tocsin.engine.store.database import Database
from tocsin.engine.store.delivery import Settled

# The one line per attempt, written many at a time: a worker says thousands a second.

_SOON = 0.02  # seconds

_attempt_lines = structlog.get_logger("tocsin.deliver")


class AttemptLog:
    """Collects lines for a moment; never a body, an address or a token is in them."""

    def __init__(self) -> None:
        self._lines: list[dict[str, Any]] = []

    def note(self, together: Sequence[Claimed], settlement: Settlement, started: float) -> None:
        """What became of deliveries that went as one message, handed over at `started` (monotonic)."""
        if not self._lines:
            asyncio.get_running_loop().call_later(_SOON, self.flush)
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
                    "ms": ms,
                }
            )

    def flush(self) -> None:
        """Writes what is there."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        many = getattr(
            _attempt_lines, "many", None
        )  # of our own logs (logs.py); others get a line each
        if many is not None:
            many("attempt", lines)
            return
        for line in lines:
            _attempt_lines.info("attempt", **line)


_BATCH = 500
_RETRY = 0.2  # seconds, while a transaction of an app is in the way

Written = Callable[[int], object]

log = structlog.get_logger("tocsin.ledger")


def _nothing(_delivery_id: int) -> None:
    pass


class Ledger:
    """Writes each outcome as soon as it can: alone when idle, with all that came meanwhile under load.

    An outcome that isn't written is a mail sent twice, so it is kept until the database is back.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[tuple[Settled, Written]] = []
        self._wanted = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._caught_up = asyncio.Event()
        self._caught_up.set()

    @property
    def behind(self) -> bool:
        """Whether there are outcomes that could not be written since the database is away."""
        return not self._caught_up.is_set()

    async def caught_up(self) -> None:
        """Waits until these are written: everything else comes after them."""
        await self._caught_up.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """At work; at the end, waits a moment for what is not yet written."""
        writer = asyncio.create_task(self._run(), name="ledger")
        try:
            yield
        finally:
            try:
                await asyncio.wait_for(self._idle.wait(), 2.0)
            except TimeoutError:
                log.error("outcomes not written", count=len(self._waiting))
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    def write(self, settled: Settled, written: Written = _nothing) -> None:
        """Has an outcome written, and calls `written` with its delivery once it is."""
        self._waiting.append((settled, written))
        self._wanted.set()
        self._idle.clear()

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            batch = self._waiting[:_BATCH]
            ours: set[int] = set()
            for together in _by_statement([settled for settled, _ in batch]):
                ours |= await self._settle(together)
            del self._waiting[: len(batch)]
            for settled, written in batch:
                if settled.delivery_id not in ours:
                    # another worker took it over: its own outcome is the one that counts
                    log.warning("claim lost", delivery_id=settled.delivery_id, state=settled.state)
                written(settled.delivery_id)
            if not self._waiting:
                self._wanted.clear()
                self._idle.set()
                self._caught_up.set()

    async def _settle(self, settled: list[Settled]) -> set[int]:
        while True:
            try:
                return await store.settle(self._database, settled)
            except Unavailable:
                self._caught_up.clear()
                await self._database.availability.wait()
                await asyncio.sleep(_RETRY)  # a full disk leaves the connection as it is
            except Conflict:
                await asyncio.sleep(_RETRY)
            except Exception:
                if len(settled) == 1:
                    # its lease ends, and it is taken up again, as often as attempts are allowed
                    log.exception("outcome not written", delivery_id=settled[0].delivery_id)
                    return {settled[0].delivery_id}
                # one that can't be written must not take the others along
                written = [await self._settle([one]) for one in settled]
                return set().union(*written)


def _by_statement(batch: Sequence[Settled]) -> list[list[Settled]]:
    """What was sent, which most is, is written by a lighter statement."""
    sent = [one for one in batch if one.state is DeliveryState.SENT]
    others = [one for one in batch if one.state is not DeliveryState.SENT]
    return [each for each in (sent, others) if each]
