"""When to try again: capped exponential back-off with full jitter. Pure."""

from __future__ import annotations

from random import Random

_FIRST = 5.0  # seconds
_FACTOR = 3.0
_CAP = 3600.0


def retry_delay(attempt: int, retry_after: float | None, random: Random) -> float:
    """Seconds until the next attempt, after `attempt` (1 for the first) failed.

    Full jitter spreads a provider's outage: anything between half a second and the ceiling of this attempt, which
    grows from 5 s to an hour. Ten attempts take an hour and a half or so: longer than greylisting. Never before the
    provider's `retry_after`; up to a tenth later, so that not all come back at once.
    """
    ceiling = min(_CAP, _FIRST * _FACTOR ** min(attempt - 1, 30))
    delay = random.uniform(0.5, ceiling)
    if retry_after is not None:
        delay = max(delay, retry_after * random.uniform(1.0, 1.1))
    return delay
