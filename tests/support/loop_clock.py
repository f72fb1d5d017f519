"""The event loop's clock, advanced by a test, so that a deadline may be long and no slow machine reaches it."""

from __future__ import annotations

import asyncio
from typing import TypeVar

T = TypeVar("T")

LONGEST = 3600.0  # seconds that a test may let pass, none of which it waits for


class LoopClock:
    """The clock of the running loop, which all its timeouts and timers use."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._ahead = 0.0
        real = loop.time
        setattr(loop, "time", lambda: real() + self._ahead)  # noqa: B010 - mypy knows a method there

    def advance(self, seconds: float) -> None:
        """Advances the clock: what is due within this time is due now."""
        self._ahead += seconds

    async def advance_until_done(self, task: asyncio.Task[T], step: float = 1.0) -> T:
        """Lets `step` seconds pass in each turn of the loop, until the task has ended; returns its result."""
        for _ in range(int(LONGEST / step)):
            if task.done():
                break
            self.advance(step)
            await asyncio.sleep(0)
        assert task.done(), f"not within {LONGEST:.0f} s of the loop's clock"
        return task.result()
