"""The deadline: ends what takes a sender too long."""

from __future__ import annotations

import asyncio
from typing import Any

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
