"""The mailbox: messages that wait for a sender, in order of priority."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Iterator

from tocsin.engine.actors.breaker import Clock
from tocsin.engine.model import (
    Deferred,
    Message,
    Outcome,
    Priority,
    Settlement,
    Unknown,
    Verdict,
)

FRESH = 0.2
"""Seconds that a look holds from its start: the promise is 250 ms, the rest is for the way out."""


class Envelope:
    """One message on its way through an actor, with its last look and how far it came."""

    __slots__ = (
        "_clock",
        "begun",
        "committed",
        "draft",
        "fresh_until",
        "looked_at",
        "message",
        "result",
        "verdict",
        "waiting",
    )

    def __init__(self, message: Message, clock: Clock) -> None:
        self._clock = clock
        self.message = message
        self.result: asyncio.Future[Settlement] = asyncio.get_running_loop().create_future()
        self.draft = b""  # what could be written before the look
        self.verdict: Verdict | None = None
        self.fresh_until = float("-inf")
        self.looked_at = False  # by its actor
        self.waiting = True  # in the mailbox, holding a seat
        self.begun = False  # its first byte has left
        self.committed = False  # the provider may have accepted it

    @property
    def done(self) -> bool:
        """Whether its outcome is known, or no longer awaited."""
        return self.result.done()

    @property
    def fresh(self) -> bool:
        """Whether its last look still holds."""
        return self.verdict is not None and self._clock() < self.fresh_until

    def begin(self) -> bool:
        """Called right before its first byte: false if the last look is too old, or nobody waits for it."""
        self.begun = self.fresh and not self.done
        return self.begun

    def commit(self) -> None:
        """Called right before the byte from which on the provider may accept it: then a loss is `Unknown`."""
        self.committed = True

    def settle(self, outcome: Outcome, verdict: Verdict | None = None) -> None:
        """Hands its outcome to whoever sent it; the first one counts."""
        if not self.result.done():
            self.result.set_result(Settlement(outcome, verdict))

    def give_up(self, reason: str) -> None:
        """Settles what could not be finished by how far it came."""
        if self.committed:
            self.settle(Unknown(reason), self.verdict)
        else:
            self.settle(Deferred(reason), self.verdict)


class Mailbox:
    """First the higher priority, then who came first."""

    def __init__(self) -> None:
        self._queues: dict[Priority, deque[Envelope]] = {
            priority: deque() for priority in sorted(Priority, reverse=True)
        }

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def __iter__(self) -> Iterator[Envelope]:
        return itertools.chain.from_iterable(self._queues.values())

    def put(self, envelope: Envelope) -> None:
        """Adds one behind those of its priority."""
        self._queues[envelope.message.priority].append(envelope)

    def pop(self) -> Envelope | None:
        """Takes out the next one whose outcome is still open."""
        envelope = next((envelope for envelope in self if not envelope.done), None)
        if envelope is not None:
            self.remove(envelope)
        return envelope

    def remove(self, envelope: Envelope) -> None:
        """Takes out this one."""
        self._queues[envelope.message.priority].remove(envelope)
        envelope.waiting = False
