"""The circuit breaker: sends nothing to a provider that keeps failing, except a probe now and then.

closed    --(threshold failures in a row)--> open
closed    --(the provider asks for a pause)> open, for at least as long
open      --(its back-off has passed)------> half_open
half_open --(success)----------------------> closed
half_open --(failure)----------------------> open, for about twice as long
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from enum import StrEnum

from tocsin.engine.actors.machinery.backoff import backoff

Clock = Callable[[], float]
Chance = Callable[[], float]


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
        self._changed_at = clock()
        self._opened_at = clock()
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
    def since(self) -> float:
        """Seconds that it has been in this state."""
        entered = self._changed_at
        if self.state is BreakerState.HALF_OPEN:
            entered = self._retry_at
        return self._clock() - entered

    @property
    def failing_for(self) -> float:
        """Seconds since it first opened, whatever it probed since; 0 while it is closed."""
        return self._clock() - self._opened_at if self._openings else 0.0

    def success(self) -> None:
        """Counts a response of a provider that works."""
        if not self.closed:
            if self.state is BreakerState.OPEN:
                return
            self._changed_at = self._clock()
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
        self._changed_at = self._clock()
        if not self._openings:
            self._opened_at = self._changed_at
        self._openings += 1
        delay = backoff(self._openings, first=self._first, most=self._most)
        # between half and all of it: several workers must not probe at the same moment
        self._retry_at = self._changed_at + delay * (0.5 + 0.5 * self._chance())
