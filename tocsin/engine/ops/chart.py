"""The ledger by the minute: counted by one HTTP process as minutes end, and shown as series for charts."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import structlog
from msgspec import Struct

from tocsin.engine.model import Conflict, Unavailable
from tocsin.engine.store.database import Database
from tocsin.engine.store.operations import Lately, Minute, count_minutes

WAITING = ("queued", "sending", "deferred")
ENDS = ("sent", "failed", "skipped", "cancelled", "expired")
NO_LATENCY = -1

log = structlog.get_logger("tocsin.minutes")


class Latency(Struct, frozen=True):
    """Seconds from notify() to the provider's word: half took no longer than p50, 99 of 100 no longer than p99."""

    p50: float
    p99: float


class Series(Struct, frozen=True):
    """One channel over time: a value for each step; None where nothing was counted."""

    ended: dict[str, list[int]]  # of each end, how many reached it
    waiting: list[int | None]  # at the step's end
    p50: list[float | None]
    p99: list[float | None]


class Window(Struct, frozen=True):
    """The stretch of time that is looked at: `count` steps, the last of which is not over yet."""

    since: datetime
    step: timedelta
    count: int

    def place(self, at: datetime) -> int | None:
        """Which step a time is in."""
        place = (at - self.since) // self.step
        return place if 0 <= place < self.count else None

    @property
    def times(self) -> list[datetime]:
        """When each step begins."""
        return [self.since + self.step * place for place in range(self.count)]


HOUR = (timedelta(minutes=1), 60)
DAY = (timedelta(minutes=10), 144)


def window(now: datetime, shape: tuple[timedelta, int]) -> Window:
    """The steps up to the one that `now` is in, on the clock's round times."""
    step, count = shape
    seconds = int(step.total_seconds())
    current = datetime.fromtimestamp(int(now.timestamp()) // seconds * seconds, now.tzinfo)
    return Window(current - step * (count - 1), step, count)


def join(kept: Iterable[Minute], lately: Iterable[Lately], *, every: bool = False) -> list[Minute]:
    """What is kept, and what is not kept yet; or `every` one of late."""
    return [
        *kept,
        *(
            Minute(each.at, each.channel, each.state, [each.reason], [each.took], [each.n])
            for each in lately
            if each.uncounted or every
        ),
    ]


def draw(minutes: Iterable[Minute], over: Window, channels: Iterable[str]) -> dict[str, Series]:
    """A series for each channel."""
    ended: dict[str, dict[str, list[int]]] = {
        name: {state: [0] * over.count for state in ENDS} for name in channels
    }
    waiting: dict[str, list[int | None]] = {name: [None] * over.count for name in ended}
    took: defaultdict[tuple[str, int], Counter[int]] = defaultdict(Counter)
    for each in minutes:
        place = over.place(each.at)
        if place is None or each.channel not in ended:
            continue
        if each.state in WAITING:
            waiting[each.channel][place] = (waiting[each.channel][place] or 0) + sum(each.n)
            continue
        ended[each.channel][each.state][place] += sum(each.n)
        if each.state == "sent":
            count(took[each.channel, place], each)
    found = {}
    for name, states in ended.items():
        latencies = [latency(took[name, place]) for place in range(over.count)]
        found[name] = Series(
            states,
            waiting[name],
            [None if each is None else each.p50 for each in latencies],
            [None if each is None else each.p99 for each in latencies],
        )
    return found


def count(took: Counter[int], minute: Minute) -> None:
    """Adds what was sent in a minute to the classes of its latencies."""
    for each, n in zip(minute.took, minute.n, strict=True):
        if each != NO_LATENCY:
            took[each] += n


def latency(took: Mapping[int, int]) -> Latency | None:
    """From how many were in each class; None of nothing."""
    if not sum(took.values()):
        return None
    return Latency(_quantile(took, 0.5), _quantile(took, 0.99))


def _quantile(took: Mapping[int, int], share: float) -> float:
    """Within its class by how far on it is: off by a tenth at most."""
    wanted = share * sum(took.values())
    below = 0
    for each in sorted(took):
        if below + took[each] >= wanted:
            part = (wanted - below) / took[each]
            return float(round(2 ** ((each - 1 + part) / 4) / 1000, 4))
        below += took[each]
    raise AssertionError("shares are of what is there")


_AGAIN = 5.0  # seconds
_BEHIND = timedelta(minutes=2)
_BREATH = 0.05  # seconds between two hours that are caught up with


async def keep_counting(database: Database) -> None:
    """Counts until it is cancelled; what was missed while nothing ran, back to a day ago."""
    while True:
        pause = _AGAIN
        try:
            now = datetime.now(UTC)
            kept = await count_minutes(database, now)
            if kept is not None and kept < now - _BEHIND:
                pause = _BREATH
        except (Unavailable, Conflict):
            pass
        except Exception:
            # charts alone hang on it
            log.exception("minutes not counted")
        await asyncio.sleep(pause)
