"""The presend check: one query for the messages about to be sent and the next ones in the mailbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from tocsin.engine.actors.machinery.breaker import Clock
from tocsin.engine.actors.machinery.envelope import FRESH, Envelope
from tocsin.engine.actors.machinery.supervision import describe
from tocsin.engine.model import PresendCheck, Unavailable, Unsent, Withheld

CHECK_TIMEOUT = 5.0
"""Seconds to wait for the result of a check."""

log = structlog.get_logger(__name__)


class PresendChecker:
    """Checks for several senders in one query, and for as many waiting messages as are then sent in time.

    A sender that needs a check while another one runs waits for that one, which mostly includes its message.
    """

    def __init__(self, presend_check: PresendCheck, *, least: int, most: int, clock: Clock) -> None:
        self._presend_check = presend_check
        self._least = least
        self._most = most
        self._clock = clock
        self._ahead = most
        self._lock = asyncio.Lock()

    async def check(self, envelope: Envelope, others: Callable[[], Iterable[Envelope]]) -> bool:
        """Checks a message unless its last check still holds; false where that settled it (withheld, or no result)."""
        if not envelope.fresh:
            async with self._lock:
                if not envelope.done and not envelope.fresh:
                    self._adapt(wasted=envelope.checked)
                    await self._check([envelope, *self._next_ones(envelope, others())])
        return not envelope.done

    def _adapt(self, *, wasted: bool) -> None:
        """Halves the number of messages checked ahead where one was not sent in time."""
        ahead = self._ahead // 2 if wasted else self._ahead + self._least
        self._ahead = min(self._most, max(self._least, ahead))

    def _next_ones(self, envelope: Envelope, others: Iterable[Envelope]) -> list[Envelope]:
        """Returns the messages to check in the same query."""
        following: list[Envelope] = []
        for other in others:
            if len(following) + 1 >= self._ahead:
                break
            if other is not envelope and not (other.done or other.begun or other.fresh):
                following.append(other)
        return following

    async def _check(self, batch: list[Envelope]) -> None:
        started = self._clock()
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                check_results = await self._presend_check([envelope.message for envelope in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, none of these may be sent
            if not isinstance(error, Unavailable):  # the database logs its own outages
                log.warning("presend check failed", messages=len(batch), **describe(error))
            for envelope in batch:
                envelope.settle(Unsent("look_failed", 1.0))
            return
        for envelope in batch:
            check_result = check_results.get(envelope.message.delivery_id)
            if check_result is None:
                envelope.settle(Withheld(None, "claim_lost"))
            elif check_result.withheld is not None:
                envelope.settle(check_result.withheld, check_result)
            else:
                envelope.check_result = check_result
                envelope.fresh_until = started + FRESH
                envelope.checked = True
