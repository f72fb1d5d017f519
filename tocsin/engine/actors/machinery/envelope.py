"""One message on its way through an actor, what became of it, and the mailbox in which it waits."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator

from msgspec import Struct

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

OnSettled = Callable[[Settlement], object]


class SendResult(Struct, frozen=True):
    """What became of one message, and what that means for the provider and the connection."""

    outcome: Outcome
    provider_failed: bool = False  # the provider as a whole failed: counts for the breaker
    keep_connection: bool = True  # it may be used again
    pause: float | None = None  # seconds in which the provider wants no requests at all


class RetryNow(Struct, frozen=True):
    """Nothing of the message was sent: it is prepared and checked again at once."""

    keep_connection: bool  # false: with another connection


class NoResponse(Struct, frozen=True):
    """No response, or none that can be read.

    `reason` is a stable word; `unprocessed` if it is certain that the provider did not process the request.
    """

    reason: str
    unprocessed: bool = False


class Envelope:
    """One message on its way through an actor, with its presend check and its progress.

    `on_settled` is called exactly once, with its settlement.
    """

    __slots__ = (
        "_clock",
        "_on_settled",
        "begun",
        "check_result",
        "checked",
        "committed",
        "done",
        "draft",
        "fresh_until",
        "message",
    )

    def __init__(self, message: Message, on_settled: OnSettled, clock: Clock) -> None:
        self._clock = clock
        self._on_settled = on_settled
        self.message = message
        self.draft = b""  # what could be written before the presend check
        self.check_result: CheckResult | None = None
        self.fresh_until = _NEVER
        self.checked = False  # by its actor
        self.begun = False  # its first byte was sent
        self.committed = False  # the provider may have accepted it
        self.done = False  # it is settled, or its settlement no longer awaited

    @property
    def fresh(self) -> bool:
        """Whether its presend check still holds."""
        return self._clock() < self.fresh_until

    def begin(self) -> bool:
        """Called right before the first byte; false if the check is too old, or its settlement is no longer awaited."""
        self.begun = self.fresh and not self.done
        return self.begun

    def commit(self) -> None:
        """Called right before the byte from which on the provider may accept it: a loss is then `Unknown`."""
        self.committed = True

    def settle(self, outcome: Outcome, check_result: CheckResult | None = None) -> None:
        """Reports its outcome; only the first one counts."""
        if not self.done:
            self.done = True
            self._on_settled(Settlement(outcome, check_result))

    def give_up(self, reason: str) -> None:
        """Settles a message that could not be finished: `Unknown` if the provider may have accepted it."""
        if self.committed:
            self.settle(Unknown(reason), self.check_result)
        else:
            self.settle(Deferred(reason), self.check_result)


class Mailbox:
    """Messages that wait for a sender, by priority, then in order of arrival."""

    def __init__(self) -> None:
        self._queues: dict[Priority, deque[Envelope]] = {
            priority: deque() for priority in sorted(Priority, reverse=True)
        }

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def __iter__(self) -> Iterator[Envelope]:
        return itertools.chain.from_iterable(self._queues.values())

    def put(self, envelope: Envelope) -> None:
        """Adds a message behind those of its priority."""
        self._queues[envelope.message.priority].append(envelope)

    def pop(self) -> Envelope | None:
        """Removes and returns the next message."""
        for queue in self._queues.values():
            if queue:
                return queue.popleft()
        return None

    def clear(self) -> list[Envelope]:
        """Removes and returns all messages."""
        everything = list(self)
        for queue in self._queues.values():
            queue.clear()
        return everything
