"""How many commits come, and whether they can afford to ring. Pure."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable

# So few a second may always ring, and so many never: each ring wakes each HTTP process.
_FEW = 100.0
_MANY = 2000.0
# PostgreSQL commits one ringing transaction after the other, each with its own flush. Where more often than not one has
# to wait for its turn by more than this many seconds, they are too many for the disk, or for the processors.
_TURN = 0.001
_TURNS = 9
# So many of them, as a share, may ring again; and twice as many each so many seconds later, for a stall passes.
_FEWER = 0.6
_TWICE = 5.0


class Traffic:
    """Counts commits, and learns how many may ring."""

    def __init__(self, now: float) -> None:
        self._turns: deque[float] = deque(maxlen=_TURNS)
        self._limit, self._limited_at = _MANY, now
        self.restart(now)

    def restart(self, now: float) -> None:
        """Counts anew."""
        self._count, self._since = 0, now

    def count(self, commits: int) -> None:
        self._count += commits

    def counted_for(self, seconds: float, now: float) -> bool:
        """Whether it has been counting for so long."""
        return now - self._since >= seconds

    def is_light(self, now: float) -> bool:
        """Whether so few rang that nothing has to be asked; counts anew, then."""
        if self._rate(now) >= _FEW:
            return False
        self._turns.clear()
        self.restart(now)
        return True

    def is_heavy(self, turns: Iterable[float], now: float) -> bool:
        """Whether too many ring, who lately waited for their turns for so many seconds; counts anew."""
        rate = self._rate(now)
        self.restart(now)
        self._turns.extend(turns)
        waits = len(self._turns) == _TURNS and statistics.median(self._turns) > _TURN
        if rate > _MANY or waits:
            self._turns.clear()
            self._limit, self._limited_at = rate * _FEWER, now
            return True
        return False

    def is_calm(self, now: float) -> bool:
        """Whether so few come that they may ring; counts anew."""
        rate = self._rate(now)
        self.restart(now)
        doublings = min(10.0, (now - self._limited_at) / _TWICE)
        return rate < max(_FEW, min(_MANY * _FEWER, self._limit * math.exp2(doublings)))

    def _rate(self, now: float) -> float:
        return self._count / max(now - self._since, 1e-6)
