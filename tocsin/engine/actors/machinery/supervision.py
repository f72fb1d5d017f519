"""Supervision of senders: a deadline for each message, and a restart after a crash."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from tocsin.engine.actors.machinery.breaker import backoff
from tocsin.engine.actors.machinery.envelope import describe

_Task = asyncio.Task[Any]


class Deadline:
    """Cancels a task that works on one message for more than `seconds`, and remembers that it did.

    One timer serves all senders, since few messages are ever late: a timer for each message would cost as much as
    sending it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[_Task, float] = {}
        self._late: set[_Task] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, task: _Task) -> None:
        """Starts the time of a task that begins with a message."""
        loop = task.get_loop()
        self._since[task] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._on_timer, loop)

    def missed(self, task: _Task) -> bool:
        """Returns whether the task was cancelled by its deadline, and by nothing else."""
        if task not in self._late:
            return False
        self._late.remove(task)
        return task.uncancel() == 0

    def end(self, task: _Task) -> None:
        """Stops the time of a task."""
        self._since.pop(task, None)
        if self._late:
            self.missed(task)

    def close(self) -> None:
        """Stops the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _on_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() - self._seconds
        for task in [task for task, since in self._since.items() if since <= due]:
            del self._since[task]
            self._late.add(task)
            task.cancel()
        oldest = min(self._since.values(), default=None)
        self._timer = None
        if oldest is not None:
            self._timer = loop.call_at(oldest + self._seconds, self._on_timer, loop)


log = structlog.get_logger(__name__)

MarkProgress = Callable[[], None]


async def supervise(
    run: Callable[[MarkProgress], Awaitable[None]],
    *,
    name: str,
    paused: Callable[[float], None],
    resumed: Callable[[], None],
    first: float = 0.05,
    most: float = 5.0,
) -> None:
    """Runs `run` until it returns, and again after each crash; `run` calls its argument after each piece of work.

    After the first crash it starts again at once: one message that crashes its sender stops nothing. After the next
    ones there is a pause: `paused(seconds)` is called before it, `resumed()` after it.
    """
    crashes = 0

    def mark_progress() -> None:
        nonlocal crashes
        crashes = 0

    while True:
        try:
            await run(mark_progress)
        except Exception as error:  # noqa: BLE001 - any bug of an actor
            crashes += 1
            log.error("actor crashed", actor=name, crashes=crashes, **describe(error))
        else:
            return
        if crashes == 1:
            continue
        delay = backoff(crashes - 1, first=first, most=most) * random.uniform(0.5, 1.0)
        paused(delay)
        await asyncio.sleep(delay)
        resumed()
