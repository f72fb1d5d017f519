"""When an actor sends nothing: the circuit breaker, the protection against mass rejection, the pause after crashes.

The breaker stops a provider that keeps failing, except for a probe now and then:

closed    --(threshold failures in a row)--> open
closed    --(the provider asks for a pause)> open, for at least as long
open      --(its back-off has passed)------> half_open
half_open --(success)----------------------> closed
half_open --(failure)----------------------> open, for about twice as long

Mass rejection: with a wrong topic, environment, project or mail server, a provider rejects every address as if it were
dead, which must not disable every device or suppress every mailbox. So a rejection that would disable an address is
held for a moment. A success meanwhile confirms it, and so does the end of that moment: a single dead token is no mass
rejection. Where too many addresses are rejected in a row, the held rejections are discarded: their deliveries are kept,
no attempt is counted and no address is disabled. The breaker opens, and its probes find out when the mass rejection is
over.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum

import structlog

from tocsin.engine.actors.machinery.envelope import Clock, Envelope, SendResult, describe
from tocsin.engine.model import Rejected, Sent, Unsent

HOLD = 1.0
"""Seconds that a rejection is held; with some traffic the next success comes sooner."""

Chance = Callable[[], float]

log = structlog.get_logger(__name__)


def backoff(failures: int, *, first: float, most: float, factor: float = 2.0) -> float:
    """Returns the longest wait in seconds after so many failures in a row; callers wait for a random part of it.

    >>> for failures in (1, 2, 3, 4, 5, 6, 7, 8, 60):
    ...     delivery = backoff(failures, first=5, most=3600, factor=3)
    ...     breaker = backoff(failures, first=2, most=60)
    ...     print(f"{failures:2} {delivery:6.0f} {breaker:4.0f}")
     1      5    2
     2     15    4
     3     45    8
     4    135   16
     5    405   32
     6   1215   60
     7   3600   60
     8   3600   60
    60   3600   60
    """
    return min(most, first * factor ** min(failures - 1, 30))


class BreakerState(StrEnum):
    """Whether messages may be sent to a provider; see the transitions at the top of this module."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Counts failures of a provider as a whole; the refusal of one message is a success of the provider.

    Results that come while it is open are of earlier messages, and change nothing.
    """

    def __init__(
        self,
        *,
        threshold: int = 5,
        first: float = 2.0,
        most: float = 60.0,
        clock: Clock = time.monotonic,
        chance: Chance = random.random,
    ) -> None:
        self._threshold = threshold
        self._first = first
        self._most = most
        self._clock = clock
        self._chance = chance
        self._failures = 0
        self._openings = 0
        self._retry_at = 0.0
        self._opened_at = 0.0
        self.reason: str | None = None

    @property
    def closed(self) -> bool:
        """Whether all messages may be sent; read for each message, so it is quick."""
        return not self._openings

    @property
    def state(self) -> BreakerState:
        """The current state; an open breaker becomes half-open by time alone."""
        if self.closed:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self.retry_after > 0 else BreakerState.HALF_OPEN

    @property
    def retry_after(self) -> float:
        """Seconds until the next probe; 0 unless open."""
        return max(0.0, self._retry_at - self._clock()) if self._openings else 0.0

    @property
    def failing_for(self) -> float:
        """Seconds since it first opened, whatever it probed since; 0 while it is closed."""
        return self._clock() - self._opened_at if self._openings else 0.0

    def success(self) -> None:
        """Counts a response of a provider that works."""
        if self.state is BreakerState.OPEN:
            return
        self._failures = self._openings = 0
        self.reason = None

    def failure(self, reason: str) -> bool:
        """Counts a failure of the provider as a whole; returns true if that opens the breaker."""
        state = self.state
        if state is BreakerState.OPEN:
            return False
        self.reason = reason
        self._failures += 1
        if state is BreakerState.CLOSED and self._failures < self._threshold:
            return False
        self._open()
        return True

    def pause(self, reason: str, seconds: float) -> bool:
        """Opens for at least as many seconds, as the provider asked; returns true if it was not open before.

        Up to a tenth longer, so that not all workers return at once.
        """
        opens = self.state is not BreakerState.OPEN
        if opens:
            self.reason = reason
            self._open()
        until = self._clock() + seconds * (1.0 + 0.1 * self._chance())
        self._retry_at = max(self._retry_at, until)
        return opens

    def _open(self) -> None:
        now = self._clock()
        if not self._openings:
            self._opened_at = now
        self._openings += 1
        delay = backoff(self._openings, first=self._first, most=self._most)
        # between half and all of it: several workers must not probe at the same moment
        self._retry_at = now + delay * (0.5 + 0.5 * self._chance())


class RejectionCounter:
    """Counts the addresses that were rejected since the last success, each once. Pure.

    Before the first success nothing shows that the settings are right, so `first` addresses in a row are too many.
    After it they are right, and `later` are too many: an old list may well have many dead addresses in a row. It keeps
    no more addresses than that.
    """

    def __init__(self, *, first: int = 10, later: int = 50) -> None:
        self._first = first
        self._later = later
        self._succeeded = False
        self._rejected: set[str] = set()
        self.too_many = False

    def rejected(self, address: str) -> bool:
        """Counts a rejected address; returns whether there are too many, so that no rejection counts."""
        if not self.too_many:
            self._rejected.add(address)
            most = self._later if self._succeeded else self._first
            self.too_many = len(self._rejected) >= most
        return self.too_many

    def accepted(self) -> None:
        """Counts a success, which ends a mass rejection."""
        self._succeeded = True
        self._rejected.clear()
        self.too_many = False

    @property
    def addresses(self) -> int:
        """How many addresses were rejected since the last success, as far as they were counted."""
        return len(self._rejected)


class HeldRejections:
    """Holds rejections of addresses until they are confirmed or discarded; `hold` is in seconds.

    `advice` is one line for operators: what to check. `pause` opens the breaker for a reason, and returns for how many
    seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        advice: str,
        pause: Callable[[str], float],
        hold: float = HOLD,
        counter: RejectionCounter | None = None,
    ) -> None:
        self._name = name
        self._advice = advice
        self._pause = pause
        self._seconds = hold
        self._counter = counter or RejectionCounter()
        self._held: dict[Envelope, tuple[Rejected, asyncio.TimerHandle]] = {}

    @property
    def too_many(self) -> bool:
        """Whether there is a mass rejection now."""
        return self._counter.too_many

    @property
    def advice(self) -> str | None:
        """What to check, during a mass rejection."""
        return self._advice if self.too_many else None

    def take(self, envelope: Envelope, result: SendResult) -> bool:
        """Counts a result; returns true if it settles the message itself, now or later."""
        outcome = result.outcome
        if isinstance(outcome, Sent):
            self._accepted()
        if not (isinstance(outcome, Rejected) and (outcome.address_dead or outcome.quarantine)):
            return False
        if envelope.check_result is None or not envelope.begun:
            return False  # rejected by this service, not by the provider
        before = self.too_many
        if self._counter.rejected(envelope.check_result.address):
            self._discard(envelope, f"{outcome.reason}_mass_rejection", begins=not before)
        else:
            self._hold(envelope, outcome)
        return True

    def close(self) -> None:
        """Returns the held messages unsent: another worker may know more."""
        for envelope in list(self._held):
            self._remove(envelope)
            envelope.settle(Unsent("shutdown"), envelope.check_result)

    def _hold(self, envelope: Envelope, outcome: Rejected) -> None:
        timer = asyncio.get_running_loop().call_later(self._seconds, self._confirm, envelope)
        self._held[envelope] = outcome, timer

    def _accepted(self) -> None:
        if self.too_many:
            log.info("addresses are accepted again", actor=self._name)
        self._counter.accepted()
        for envelope in list(self._held):
            self._confirm(envelope)

    def _confirm(self, envelope: Envelope) -> None:
        envelope.settle(self._remove(envelope), envelope.check_result)

    def _discard(self, envelope: Envelope, reason: str, *, begins: bool) -> None:
        """Discards this rejection and all held ones."""
        if begins:
            log.error(
                self._advice, actor=self._name, reason=reason, addresses=self._counter.addresses
            )
        seconds = self._pause(reason)
        held = list(self._held)
        for each in held:
            self._remove(each)
        for each in (envelope, *held):
            each.settle(Unsent(reason, seconds), each.check_result)

    def _remove(self, envelope: Envelope) -> Rejected:
        outcome, timer = self._held.pop(envelope)
        timer.cancel()
        return outcome


MarkProgress = Callable[[], None]


async def supervise(  # pragma: no mutate block
    run: Callable[[MarkProgress], Awaitable[None]],
    *,
    name: str,
    paused: Callable[[float], None],
    resumed: Callable[[], None],
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
        delay = backoff(crashes - 1, first=0.05, most=5.0) * random.uniform(0.5, 1.0)
        paused(delay)
        await asyncio.sleep(delay)
        resumed()
