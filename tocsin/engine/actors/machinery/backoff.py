"""When to try again: capped exponential back-off, for deliveries, breakers and supervised processes. Pure."""

from __future__ import annotations

from random import Random


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


def retry_delay(attempt: int, retry_after: float | None, random: Random) -> float:
    """Returns the seconds until a delivery's next attempt, after `attempt` (1 for the first) failed.

    Full jitter (from half a second up) spreads the retries after an outage. Ten attempts take about an hour and a half:
    longer than greylisting. Never before the provider's `retry_after`, and then up to a tenth later.
    """
    delay = random.uniform(0.5, backoff(attempt, first=5.0, most=3600.0, factor=3.0))
    if retry_after is not None:
        delay = max(delay, retry_after * random.uniform(1.0, 1.1))
    return delay
