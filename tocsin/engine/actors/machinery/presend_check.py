"""The last look: one batched query for those about to be sent and those next in line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from tocsin.engine.actors.machinery.breaker import Clock
from tocsin.engine.actors.machinery.mailbox import FRESH, Envelope
from tocsin.engine.actors.machinery.supervision import describe
from tocsin.engine.model import Look, Unavailable, Unsent, Withheld

PATIENCE = 5.0
"""Seconds to wait for a look's answer."""

log = structlog.get_logger(__name__)


class Lookout:
    """Looks for several senders at once, and ahead for as many as they get sent in time.

    Whoever needs a look while another is under way waits for it, and mostly finds itself covered.
    """

    def __init__(self, look: Look, *, least: int, most: int, clock: Clock) -> None:
        self._look = look
        self._least = least
        self._most = most
        self._clock = clock
        self._ahead = most
        self._lock = asyncio.Lock()

    async def see(self, envelope: Envelope, others: Callable[[], Iterable[Envelope]]) -> bool:
        """Makes sure that its last look holds; false if it is settled (withheld, no longer ours, no answer)."""
        if not envelope.fresh:
            async with self._lock:
                if not envelope.done and not envelope.fresh:
                    self._adapt(wasted=envelope.looked_at)
                    await self._see([envelope, *self._company(envelope, others())])
        return not envelope.done

    def _adapt(self, *, wasted: bool) -> None:
        """Halves the reach when a look was in vain since its message didn't get sent in time."""
        reach = self._ahead // 2 if wasted else self._ahead + self._least
        self._ahead = min(self._most, max(self._least, reach))

    def _company(self, envelope: Envelope, others: Iterable[Envelope]) -> list[Envelope]:
        """Those to be looked at in the same query."""
        company: list[Envelope] = []
        for other in others:
            if len(company) + 1 >= self._ahead:
                break
            if other is not envelope and not (other.done or other.begun or other.fresh):
                company.append(other)
        return company

    async def _see(self, batch: list[Envelope]) -> None:
        started = self._clock()
        try:
            async with asyncio.timeout(PATIENCE):
                verdicts = await self._look([envelope.message for envelope in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing of these may leave
            if not isinstance(error, Unavailable):  # the database has a line of its own
                log.warning("last look failed", messages=len(batch), **describe(error))
            for envelope in batch:
                envelope.settle(Unsent("look_failed", 1.0))
            return
        for envelope in batch:
            verdict = verdicts.get(envelope.message.delivery_id)
            if verdict is None:
                envelope.settle(Withheld(None, "claim_lost"))
            elif verdict.withheld is not None:
                envelope.settle(verdict.withheld, verdict)
            else:
                envelope.verdict = verdict
                envelope.fresh_until = started + FRESH
                envelope.looked_at = True
