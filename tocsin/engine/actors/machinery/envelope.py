"""One message on its way through an actor: its presend check, its outcome, and the mailbox in which it waits."""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath

import structlog
from msgspec import Struct

from tocsin.engine.model import (
    CheckResult,
    Deferred,
    Message,
    Outcome,
    PresendCheck,
    Priority,
    Settlement,
    Unavailable,
    Unknown,
    Unsent,
    Withheld,
)

FRESH = 0.2
"""Seconds that a presend check holds from its start: at most 250 ms are promised at the first byte."""
CHECK_TIMEOUT = 5.0
"""Seconds to wait for the result of a check."""
_NEVER = float("-inf")

Clock = Callable[[], float]
OnSettled = Callable[[Settlement], object]

log = structlog.get_logger(__name__)


class SendResult(Struct, frozen=True):
    """What became of one message, and what that means for the provider and the connection."""

    outcome: Outcome
    provider_failed: bool = False  # the provider as a whole failed: counts for the breaker
    keep_connection: bool = True  # it may be used again
    pause: float | None = None  # seconds in which the provider wants no requests at all


class RetryNow(Struct, frozen=True):
    """Nothing of the message was sent: it is prepared and checked again at once."""

    keep_connection: bool  # false: with another connection


class Envelope(Struct, eq=False):
    """One message on its way through an actor, with its presend check and its progress.

    `on_settled` is called exactly once, with its settlement.
    """

    message: Message
    on_settled: OnSettled
    clock: Clock
    provider: str | None = None
    draft: bytes = b""  # what could be written before the presend check
    check_result: CheckResult | None = None
    fresh_until: float = _NEVER
    checked: bool = False  # by its actor
    begun: bool = False  # its first byte was sent
    begun_at: float | None = None  # when (monotonic)
    committed: bool = False  # the provider may have accepted it
    done: bool = False  # it is settled, or its settlement no longer awaited

    @property
    def fresh(self) -> bool:
        """Whether its presend check still holds."""
        return self.clock() < self.fresh_until

    def begin(self) -> bool:
        """Called right before the first byte; false if the check is too old, or its settlement is no longer awaited."""
        now = self.clock()
        self.begun = now < self.fresh_until and not self.done
        if self.begun:
            self.begun_at = now
        return self.begun

    def commit(self) -> None:
        """Called right before the byte from which on the provider may accept it: a loss is then `Unknown`."""
        self.committed = True

    def settle(
        self,
        outcome: Outcome,
        check_result: CheckResult | None = None,
        *,
        elsewhere: bool = False,
    ) -> None:
        """Reports its outcome; only the first one counts. `elsewhere`: another provider may be tried."""
        if not self.done:
            self.done = True
            self.on_settled(
                Settlement(outcome, check_result, self.provider, elsewhere, self.begun_at)
            )

    def give_up(self, reason: str, *, elsewhere: bool = False) -> None:
        """Settles a message that could not be finished: `Unknown` if the provider may have accepted it."""
        if self.committed:
            self.settle(Unknown(reason), self.check_result)
        else:
            self.settle(Deferred(reason), self.check_result, elsewhere=elsewhere)


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

    def waiting(self, priority: Priority) -> int:
        """Returns how many messages of this priority wait."""
        return len(self._queues[priority])

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


class PresendChecker:
    """Checks for several senders in one query, and for as many waiting messages as are then sent in time.

    A sender that needs a check while another one runs waits for that one, which mostly includes its message.
    """

    def __init__(self, presend_check: PresendCheck, *, least: int, most: int, clock: Clock) -> None:
        self._presend_check = presend_check
        self._least = least
        self._most = most
        self._clock = clock
        self._ahead = most
        self._lock = asyncio.Lock()

    async def check(self, envelope: Envelope, others: Callable[[], Iterable[Envelope]]) -> bool:
        """Checks a message unless its last check still holds; false where that settled it (withheld, or no result)."""
        if not envelope.fresh:
            async with self._lock:
                if not envelope.done and not envelope.fresh:
                    self._adapt(wasted=envelope.checked)
                    await self._check([envelope, *self._next_ones(envelope, others())])
        return not envelope.done

    def _adapt(self, *, wasted: bool) -> None:
        """Halves the number of messages checked ahead where one was not sent in time."""
        ahead = self._ahead // 2 if wasted else self._ahead + self._least
        self._ahead = min(self._most, max(self._least, ahead))

    def _next_ones(self, envelope: Envelope, others: Iterable[Envelope]) -> list[Envelope]:
        """Returns the messages to check in the same query."""
        following: list[Envelope] = []
        for other in others:
            if len(following) + 1 >= self._ahead:
                break
            if other is not envelope and not (other.done or other.begun or other.fresh):
                following.append(other)
        return following

    async def _check(self, batch: list[Envelope]) -> None:
        started = self._clock()
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                check_results = await self._presend_check([envelope.message for envelope in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, none of these may be sent
            if not isinstance(error, Unavailable):  # the database logs its own outages
                log.warning("presend check failed", messages=len(batch), **describe(error))
            for envelope in batch:
                envelope.settle(Unsent("look_failed", 1.0))
            return
        for envelope in batch:
            check_result = check_results.get(envelope.message.delivery_id)
            if check_result is None:
                envelope.settle(Withheld(None, "claim_lost"))
            elif check_result.withheld is not None:
                envelope.settle(check_result.withheld, check_result)
            else:
                envelope.check_result = check_result
                envelope.fresh_until = started + FRESH
                envelope.checked = True


def network_failure(error: OSError, step: str = "connect") -> str:
    """Returns a stable word for a failure of the network at a step."""
    words: tuple[tuple[type[OSError], str], ...] = (
        (ssl.SSLError, "tls_failed"),
        (socket.gaierror, "host_unknown"),
        (TimeoutError, f"timeout_{step}"),
        (ConnectionRefusedError, "connect_refused"),
        (ConnectionError, f"disconnected_{step}"),
    )
    return next((word for kind, word in words if isinstance(error, kind)), "connect_failed")


def describe(error: BaseException) -> dict[str, str]:
    """Returns what may be logged of an exception: its type and place, not its text, which may contain an address."""
    frames = traceback.extract_tb(error.__traceback__)
    at = f"{PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return {"error": type(error).__name__, "at": at}
