"""Supervision: what crashes is started again, later each time until it does some work."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from pathlib import PurePath
from typing import Any

import structlog

from tocsin.engine.actors.machinery.breaker import back_off

# The deadline: ends what takes a sender too long.

_Task = asyncio.Task[Any]


class Deadline:
    """Cancels a task that works on one message for more than `seconds`, and knows that it did.

    One timer for all senders, set anew when it rings: hardly a message is ever late, and a timer for each would cost
    as much as its whole way.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[_Task, float] = {}
        self._late: set[_Task] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, task: _Task) -> None:
        """The task has a message now."""
        loop = task.get_loop()
        self._since[task] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._ring, loop)

    def missed(self, task: _Task) -> bool:
        """Whether the task was cancelled for being late, and for nothing else."""
        if task not in self._late:
            return False
        self._late.remove(task)
        return task.uncancel() == 0

    def end(self, task: _Task) -> None:
        """It is done with it."""
        self._since.pop(task, None)
        if self._late:
            self.missed(task)

    def close(self) -> None:
        """Ends nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() - self._seconds
        for task in [task for task, since in self._since.items() if since <= due]:
            del self._since[task]
            self._late.add(task)
            task.cancel()
        oldest = min(self._since.values(), default=None)
        self._timer = None
        if oldest is not None:
            self._timer = loop.call_at(oldest + self._seconds, self._ring, loop)


log = structlog.get_logger(__name__)

Well = Callable[[], None]


async def supervise(
    run: Callable[[Well], Awaitable[None]],
    *,
    name: str,
    resting: Callable[[float], None],
    rested: Callable[[], None],
    first: float = 0.05,
    most: float = 5.0,
) -> None:
    """Keeps `run` running until it returns; `run` says by its argument that it got some work done.

    The first crash is followed by a start at once: one poison message stops nothing. After that
    `resting(seconds)` is called before each pause, `rested()` when it is over.
    """
    crashes = 0

    def well() -> None:
        nonlocal crashes
        crashes = 0

    while True:
        try:
            await run(well)
        except Exception as error:  # noqa: BLE001 - a supervisor meets every bug
            crashes += 1
            log.error("actor crashed", actor=name, crashes=crashes, **describe(error))
        else:
            return
        if crashes == 1:
            continue
        delay = back_off(crashes - 1, first=first, most=most)
        resting(delay)
        await asyncio.sleep(delay)
        rested()


def describe(error: BaseException) -> dict[str, str]:
    """What may be logged of an exception: its type and place, never its text, which may hold an address."""
    frames = traceback.extract_tb(error.__traceback__)
    at = f"{PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return {"error": type(error).__name__, "at": at}
