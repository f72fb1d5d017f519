"""Patience with a database that is away, until it is time to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from tocsin.engine.model import Conflict, Unavailable

_AGAIN = 1.0  # seconds

T = TypeVar("T")


class Patience:
    """Asks again until there is an answer: a job that failed would be asked for again as well."""

    def __init__(self) -> None:
        self._over = asyncio.Event()

    @property
    def over(self) -> bool:
        """Whether it is time to stop."""
        return self._over.is_set()

    def end(self) -> None:
        """It is time to stop."""
        self._over.set()

    async def ask(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """The answer; None where it is time to stop before there is one."""
        while not self.over:
            try:
                return await ask()
            except (Unavailable, Conflict):
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), _AGAIN)
        return None
