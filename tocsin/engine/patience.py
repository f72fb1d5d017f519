"""Retries while the database is away or a transaction of an app is in the way, until the worker stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tocsin.engine.ledger import Ledger
from tocsin.engine.model import Conflict, Unavailable
from tocsin.engine.store.availability import Availability

_AGAIN = 0.2  # seconds

T = TypeVar("T")


class Patience:
    """Retries a query: a job that failed would only be run again.

    After an outage, the outcomes that the worker knows are written first (`ledger`).
    """

    def __init__(self, availability: Availability, ledger: Ledger) -> None:
        self._availability = availability
        self._ledger = ledger
        self._over = asyncio.Event()

    @property
    def over(self) -> bool:
        """Whether the worker stops."""
        return self._over.is_set()

    def end(self) -> None:
        """The worker stops: no query is retried any more."""
        self._over.set()

    async def ask(
        self,
        query: Callable[[], Awaitable[T]],
        *,
        undo: Callable[[], Awaitable[object]] | None = None,
        at_least_once: bool = False,
    ) -> T | None:
        """Returns the query's result; None where the worker stops before there is one.

        A query whose connection was lost may have been executed all the same: `undo` runs before it is retried. One
        that runs `at_least_once` is also tried while the worker stops.
        """
        lost = False
        while at_least_once or not self.over:
            at_least_once = False
            try:
                if self._ledger.behind:
                    await self._pause(self._ledger.caught_up())
                if lost and undo is not None:
                    await undo()
                    lost = False
                return await query()
            except Unavailable:
                lost = True
                await self._pause(self._availability.wait())
                await self._pause(
                    asyncio.sleep(_AGAIN)
                )  # a full disk leaves the connection as it is
            except Conflict:
                await self._pause(asyncio.sleep(_AGAIN))
        return None

    async def _pause(self, waiting: Awaitable[object]) -> None:
        """Waits, but no longer than until the worker stops."""
        tasks = {asyncio.ensure_future(waiting), asyncio.ensure_future(self._over.wait())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
