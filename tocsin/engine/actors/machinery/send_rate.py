"""How many messages a second are sent on a channel: all workers take slots from one sequence.

A worker takes a block of slots at a time: a quarter of a second of the rate, or as many as messages wait.
So a message costs no statement, the workers' slots are disjoint, and nothing has to be given back: a slot that was not
used expires. In any time t at most rate * (t + EXPIRES) + 1 messages are begun, however many workers there are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from tocsin.engine.actors.machinery.envelope import Clock
from tocsin.engine.model import Conflict, Unavailable

BLOCK = 0.25
"""Seconds of the rate in one block of slots."""
EXPIRES = 0.25
"""Seconds after its time for which a slot may be used: so a sender that is a little late loses none."""
_RETRY = 0.5  # seconds until slots are asked for again, while the database is unavailable

TakeSlots = Callable[[int, float], Awaitable[float]]
"""Takes so many slots that are so many seconds apart; returns in how many seconds the first one is."""

T = TypeVar("T")


class SendRate:
    """The slots of one worker for a channel of `rate` messages a second, for all actors of the channel."""

    def __init__(self, rate: float, take: TakeSlots, *, clock: Clock = time.monotonic) -> None:
        self.rate = rate
        self._gap = 1 / rate
        self._take = take
        self._clock = clock
        self._first = 0.0  # when the first slot that is left may be used
        self._left = 0
        self._lock = asyncio.Lock()
        self._closed = asyncio.Event()

    async def next(self, pop: Callable[[], T | None], waiting: Callable[[], int]) -> T | None:
        """Waits for a slot and returns the next message, as `pop` has it then; None if no message waits.

        So the order of the messages is decided when one of them may be sent.
        """
        async with self._lock:
            if not waiting() or not await self._slot(waiting):
                return None
            message = pop()
            if message is not None:
                self._left -= 1
                self._first += self._gap
            return message

    def close(self) -> None:
        """Ends all waiting: the worker stops."""
        self._closed.set()

    async def _slot(self, waiting: Callable[[], int]) -> bool:
        """Waits until there is a slot that may be used now; false if the worker stops."""
        self._drop_expired()
        while not self._left and not self._closed.is_set():
            count = max(1, min(waiting(), int(self.rate * BLOCK)))
            try:
                delay = await self._take(count, self._gap)
            except (Unavailable, Conflict):
                await self._sleep(_RETRY)
            else:
                self._first, self._left = self._clock() + delay, count
        await self._sleep(self._first - self._clock())
        return not self._closed.is_set()

    def _drop_expired(self) -> None:
        late = self._clock() - EXPIRES - self._first
        if self._left and late > 0:
            expired = min(self._left, int(late / self._gap) + 1)
            self._left -= expired
            self._first += expired * self._gap

    async def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._closed.wait()
