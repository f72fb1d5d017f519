"""The rate of commits, and whether it is low enough for each to send a wake-up signal. Pure."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable

# So few a second may always send a signal, and so many never: each signal wakes each HTTP process.
_FEW = 100.0
_MANY = 2000.0
# PostgreSQL commits transactions that send a signal one after the other, each with a flush of its own. Where the median
# wait of the last ones is more than this many seconds, they are too many for the disk, or for the processors.
_WAIT = 0.001
_WAITS = 9
# This share of them may send a signal again; and twice as many every so many seconds, since a stall passes.
_FEWER = 0.6
_TWICE = 5.0


class CommitRate:
    """Counts commits, and learns how many may send a signal."""

    def __init__(self, now: float) -> None:
        self._waits: deque[float] = deque(maxlen=_WAITS)
        self._limit, self._limited_at = _MANY, now
        self.restart(now)

    def restart(self, now: float) -> None:
        """Starts to count from zero."""
        self._count, self._since = 0, now

    def count(self, commits: int) -> None:
        self._count += commits

    def counted_for(self, seconds: float, now: float) -> bool:
        """Whether it has counted for so long."""
        return now - self._since >= seconds

    def is_light(self, now: float) -> bool:
        """Whether so few sent a signal that nothing need be measured; if so, counts from zero."""
        if self._rate(now) >= _FEW:
            return False
        self._waits.clear()
        self.restart(now)
        return True

    def is_heavy(self, waits: Iterable[float], now: float) -> bool:
        """Whether too many send a signal; `waits` are seconds that some waited to commit. Counts from zero."""
        rate = self._rate(now)
        self.restart(now)
        self._waits.extend(waits)
        slow = len(self._waits) == _WAITS and statistics.median(self._waits) > _WAIT
        if rate > _MANY or slow:
            self._waits.clear()
            self._limit, self._limited_at = rate * _FEWER, now
            return True
        return False

    def is_calm(self, now: float) -> bool:
        """Whether so few come that each may send a signal; counts from zero."""
        rate = self._rate(now)
        self.restart(now)
        doublings = min(10.0, (now - self._limited_at) / _TWICE)
        return rate < max(_FEW, min(_MANY * _FEWER, self._limit * math.exp2(doublings)))

    def _rate(self, now: float) -> float:
        return self._count / max(now - self._since, 1e-6)
