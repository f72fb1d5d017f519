"""Pacing: at most so many messages a second, evenly spaced."""

from __future__ import annotations

import asyncio

from tocsin.engine.actors.breaker import Clock


class Pace:
    """Gives each message its slot; `rate` is messages per second, None for as fast as it goes."""

    def __init__(self, rate: float | None, clock: Clock) -> None:
        self._gap = 1 / rate if rate else 0.0
        self._clock = clock
        self._next = 0.0

    async def wait(self) -> None:
        """Waits for the next free slot and takes it."""
        if not self._gap:
            return
        now = self._clock()
        slot = max(now, self._next)
        self._next = slot + self._gap
        if slot > now:
            await asyncio.sleep(slot - now)
