"""The mailbox: messages that wait for a sender, in order of priority."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator

from tocsin.engine.actors.machinery.breaker import Clock
from tocsin.engine.model import (
    CheckResult,
    Deferred,
    Message,
    Outcome,
    Priority,
    Settlement,
    Unknown,
)

FRESH = 0.2
"""Seconds that a presend check holds from its start: at most 250 ms are promised at the first byte."""
_NEVER = float("-inf")

Settled = Callable[[Settlement], object]


class Envelope:
    """One message on its way through an actor, with its presend check and how far it came.

    `settled` is called with its outcome, at once and once.
    """

    __slots__ = (
        "_clock",
        "_settled",
        "begun",
        "check_result",
        "checked",
        "committed",
        "done",
        "draft",
        "fresh_until",
        "message",
    )

    def __init__(self, message: Message, settled: Settled, clock: Clock) -> None:
        self._clock = clock
        self._settled = settled
        self.message = message
        self.draft = b""  # what could be written before the presend check
        self.check_result: CheckResult | None = None
        self.fresh_until = _NEVER
        self.checked = False  # by its actor
        self.begun = False  # its first byte has left
        self.committed = False  # the provider may have accepted it
        self.done = False  # its outcome is known, or no longer awaited

    @property
    def fresh(self) -> bool:
        """Whether its presend check still holds."""
        return self._clock() < self.fresh_until

    def begin(self) -> bool:
        """Called right before its first byte: false if the presend check is too old, or nobody waits for it."""
        self.begun = self.fresh and not self.done
        return self.begun

    def commit(self) -> None:
        """Called right before the byte from which on the provider may accept it: then a loss is `Unknown`."""
        self.committed = True

    def settle(self, outcome: Outcome, check_result: CheckResult | None = None) -> None:
        """Hands its outcome to whoever sent it; the first one counts."""
        if not self.done:
            self.done = True
            self._settled(Settlement(outcome, check_result))

    def give_up(self, reason: str) -> None:
        """Settles what could not be finished by how far it came."""
        if self.committed:
            self.settle(Unknown(reason), self.check_result)
        else:
            self.settle(Deferred(reason), self.check_result)


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
        """Takes out the next one."""
        for queue in self._queues.values():
            if queue:
                return queue.popleft()
        return None

    def clear(self) -> list[Envelope]:
        """Takes out all."""
        everything = list(self)
        for queue in self._queues.values():
            queue.clear()
        return everything
