"""The ledger by the minute: counted by one HTTP process when a minute is over, and made into series for charts."""

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
    """Percentiles of the seconds from notify() until the provider accepted it."""

    p50: float
    p99: float


class Series(Struct, frozen=True):
    """One channel over time: a value for each step; None if nothing was counted."""

    ended: dict[str, list[int]]  # how many reached each final state
    waiting: list[int | None]  # at the step's end
    p50: list[float | None]
    p99: list[float | None]


class Window(Struct, frozen=True):
    """The time that a chart shows: `count` steps, the last of which is not over yet."""

    since: datetime
    step: timedelta
    count: int

    def step_of(self, at: datetime) -> int | None:
        """Returns the number of the step that a time is in."""
        number = (at - self.since) // self.step
        return number if 0 <= number < self.count else None

    @property
    def times(self) -> list[datetime]:
        """Returns when each step begins."""
        return [self.since + self.step * number for number in range(self.count)]


HOUR = (timedelta(minutes=1), 60)
DAY = (timedelta(minutes=10), 144)


def window(now: datetime, shape: tuple[timedelta, int]) -> Window:
    """Returns the steps up to the one that `now` is in, at round times of the clock."""
    step, count = shape
    seconds = int(step.total_seconds())
    current = datetime.fromtimestamp(int(now.timestamp()) // seconds * seconds, now.tzinfo)
    return Window(current - step * (count - 1), step, count)


def merge(kept: Iterable[Minute], lately: Iterable[Lately], *, every: bool = False) -> list[Minute]:
    """Adds to the kept minutes what was not counted yet; or `every` one of the last minute."""
    return [
        *kept,
        *(
            Minute(each.at, each.channel, each.state, [each.reason], [each.took], [each.n])
            for each in lately
            if each.uncounted or every
        ),
    ]


def series_by_channel(
    minutes: Iterable[Minute], over: Window, channels: Iterable[str]
) -> dict[str, Series]:
    """Returns a series for each channel."""
    ended: dict[str, dict[str, list[int]]] = {
        name: {state: [0] * over.count for state in ENDS} for name in channels
    }
    waiting: dict[str, list[int | None]] = {name: [None] * over.count for name in ended}
    took: defaultdict[tuple[str, int], Counter[int]] = defaultdict(Counter)
    for each in minutes:
        step = over.step_of(each.at)
        if step is None or each.channel not in ended:
            continue
        if each.state in WAITING:
            waiting[each.channel][step] = (waiting[each.channel][step] or 0) + sum(each.n)
            continue
        ended[each.channel][each.state][step] += sum(each.n)
        if each.state == "sent":
            add_latencies(took[each.channel, step], each)
    found = {}
    for name, states in ended.items():
        latencies = [latency(took[name, step]) for step in range(over.count)]
        found[name] = Series(
            states,
            waiting[name],
            [None if each is None else each.p50 for each in latencies],
            [None if each is None else each.p99 for each in latencies],
        )
    return found


def add_latencies(took: Counter[int], minute: Minute) -> None:
    """Adds what was sent in a minute to the counts of the latency classes."""
    for each, n in zip(minute.took, minute.n, strict=True):
        if each != NO_LATENCY:
            took[each] += n


def latency(took: Mapping[int, int]) -> Latency | None:
    """Returns the percentiles of the counts of the latency classes; None if there are none."""
    if not sum(took.values()):
        return None
    return Latency(_quantile(took, 0.5), _quantile(took, 0.99))


def _quantile(took: Mapping[int, int], share: float) -> float:
    """Returns a quantile, interpolated within its class: off by a tenth at most."""
    wanted = share * sum(took.values())
    below = 0
    for each in sorted(took):
        if below + took[each] >= wanted:
            part = (wanted - below) / took[each]
            return float(round(2 ** ((each - 1 + part) / 4) / 1000, 4))
        below += took[each]
    raise AssertionError("shares are of what is there")


_PAUSE = 5.0  # seconds
_BEHIND = timedelta(minutes=2)
_PAUSE_BEHIND = 0.05  # seconds between two hours that are counted afterwards


async def keep_counting(database: Database) -> None:
    """Counts until it is cancelled, beginning with what was missed while no process ran, at most a day."""
    while True:
        pause = _PAUSE
        try:
            now = datetime.now(UTC)
            kept = await count_minutes(database, now)
            if kept is not None and kept < now - _BEHIND:
                pause = _PAUSE_BEHIND
        except (Unavailable, Conflict):
            pass
        except Exception:
            # only the charts depend on it
            log.exception("minutes not counted")
        await asyncio.sleep(pause)
