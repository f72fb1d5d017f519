"""Several providers of one channel in order: the next one is used where one fails.

A message goes on to the next provider only if it is certain that the one before did not accept it: its breaker is open,
it could not be reached, or its connection failed before the byte from which on it may accept the message. An unknown
outcome, and any reply about the message itself, ends the attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tocsin.engine.actors.machinery.admission import Permits
from tocsin.engine.actors.machinery.base import Actor
from tocsin.engine.model import ActorReport, Priority


class Failover:
    """The actors of a channel's providers, in the order in which they are used; it takes the place of one actor.

    Each has its own breaker, mailbox and senders, and its own report.
    """

    def __init__(self, actors: Sequence[Actor[Any]]) -> None:
        self.actors = actors

    async def start(self) -> None:
        """Starts all actors."""
        for actor in self.actors:
            await actor.start()

    async def stop(self, grace: float = 5.0) -> None:
        """Stops all actors at once; see Actor."""
        await asyncio.gather(*(actor.stop(grace) for actor in self.actors))

    @asynccontextmanager
    async def acquire(
        self, wanted: int, priority: Priority = Priority.NORMAL
    ) -> AsyncIterator[Permits]:
        """Holds permits of the first provider that grants any; the messages may go on to those after it.

        Where none grants any, `retry_after` is the shortest of theirs.
        """
        waits: list[float] = []
        for position, actor in enumerate(self.actors):
            async with actor.acquire(wanted, priority) as permits:
                if permits.retry_after:
                    waits.append(permits.retry_after)
                if not permits.retry_after or actor is self.actors[-1]:
                    permits.retry_after = 0.0 if permits.size else min(waits, default=0.0)
                    permits.following = [each.admission for each in self.actors[position + 1 :]]
                    yield permits
                    return

    def reports(self) -> list[ActorReport]:
        """Returns the state of each."""
        return [actor.report() for actor in self.actors]
