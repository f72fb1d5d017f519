"""The state of the whole installation, as the operations page shows it, with its charts of the ledger."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import structlog
from msgspec import Struct, structs

from tocsin.engine.explain.reasons import WAITING_REASONS, meaning_and_cure
from tocsin.engine.model import ActorReport, ActorState, Conflict, Unavailable
from tocsin.engine.ops.problems import (
    MANY_THROTTLED,
    Problem,
    Series,
    Snapshot,
    find_problems,
    is_led,
)
from tocsin.engine.store import operations
from tocsin.engine.store.database import Database, Queries
from tocsin.engine.store.health import blocking_sessions
from tocsin.engine.store.installation import Process, processes
from tocsin.engine.store.mail_event import MailEventCounts, mail_event_counts
from tocsin.engine.store.operations import Lately, Minute, count_minutes
from tocsin.engine.store.replica import Reads
from tocsin.engine.store.target import disabled_chat_targets, failing_webhooks

# Requests at the same time share a reading. A reading that took long is kept for longer, so that readings never take
# more than a few percent of the database's time.
_KEPT_FOR = 1.0  # seconds
_KEPT_FOR_TIMES_ITS_DURATION = 25
_TIMEOUT = 8.0  # the page's own is ten seconds
_DAY_KEPT_FOR = 20.0
HOUR = (timedelta(minutes=1), 60)
WINDOWS = {"hour": HOUR, "day": (timedelta(minutes=10), 144)}

log = structlog.get_logger("tocsin.minutes")


class ReasonView(Struct, frozen=True):
    """How many deliveries have a reason, with its meaning and cure."""

    channel: str
    state: str
    reason: str
    n: int
    meaning: str
    cure: str


class ChannelView(operations.ChannelRow, frozen=True):
    """One channel."""

    waiting: dict[str, int]  # by state
    waiting_more: bool  # there are more than were counted
    oldest_at: datetime | None  # without those that wait for the person (quiet hours, delay)
    last_minute: dict[str, int]  # the last 60 s, by end
    latency: Latency | None  # of what was sent in the last 60 s
    total: dict[str, int]  # the window, by end
    window_latency: Latency | None
    series: Series


class ActorView(ActorState, frozen=True):
    """One actor; `since` is when its breaker opened, `retry_at` when it probes next; null while it is closed."""

    reason: str | None
    since: datetime | None
    retry_at: datetime | None


class ProcessView(Struct, frozen=True):
    """One process; it is silent if its last report has expired."""

    kind: str
    host: str
    pid: int
    version: str
    started_at: datetime
    reported_at: datetime
    silent: bool
    leading: bool
    streams: int
    actors: list[ActorView]


class Overview(Struct, frozen=True):
    """The whole page; `times` are the beginnings of the charts' steps, the last of which is not over."""

    at: datetime
    window: str
    step: int  # seconds
    times: list[datetime]
    problems: list[Problem]
    streams: int
    channels: list[ChannelView]
    waiting: list[ReasonView]
    ended: list[ReasonView]  # of the window, without what was sent
    processes: list[ProcessView]
    mail_events: MailEventCounts  # of the last day
    fan_outs: list[operations.RunningFanOut]  # the first of those that are running


class _Reading(Snapshot, frozen=True, kw_only=True):
    """What was read from the database at one moment."""

    lately: list[operations.Lately]
    hour: list[operations.Minute]
    fan_outs: list[operations.RunningFanOut]


class Overviews:
    """Reads the state at most once a second, for all requests."""

    def __init__(self, database: Database, reads: Reads | None = None) -> None:
        self._database = database
        self._reads = reads or Reads(database)
        self._lock = asyncio.Lock()
        self._reading: tuple[float, _Reading] | None = None  # valid until
        self._led_at: datetime | None = None
        self._day: tuple[float, datetime, list[operations.Minute]] | None = None
        self._mail_events: tuple[float, MailEventCounts] | None = None

    async def get(self, name: str) -> Overview:
        """Returns the state with charts of the last hour or day; raises Unavailable."""
        try:
            async with asyncio.timeout(_TIMEOUT), self._lock:
                reading = await self._read()
                over = window(reading.now, WINDOWS[name])
                kept = reading.hour if name == "hour" else await self._read_day(over)
        except TimeoutError:
            raise Unavailable("the database is slow") from None
        return _overview(reading, name, over, kept)

    async def _read(self) -> _Reading:
        started = time.monotonic()
        if self._reading and started < self._reading[0]:
            return self._reading[1]
        reading = await self._reads.read(self._read_from)
        ended = time.monotonic()
        self._reading = (
            ended + max(_KEPT_FOR, _KEPT_FOR_TIMES_ITS_DURATION * (ended - started)),
            reading,
        )
        return reading

    async def _read_from(self, source: Queries) -> _Reading:
        now = datetime.now(UTC)
        hour = window(now, HOUR)
        running = await processes(self._database)  # an unlogged table, which a standby lacks
        self._led_at = now if is_led(running) else self._led_at or now
        return _Reading(
            now=now,
            processes=running,
            channels=await operations.channels(source),
            unfinished=await operations.unfinished(source),
            lately=await operations.settled_lately(source, now),
            hour=await operations.counted_minutes(source, hour.since, hour.step),
            fan_outs=await operations.running_fan_outs(source),
            led_at=self._led_at,
            blocking=await blocking_sessions(self._database),
            mail_events=await self._read_mail_events(source, now),
            webhooks=await failing_webhooks(source),
            chats=await disabled_chat_targets(source),
            throttled=await operations.throttled_apps(source, at_least=MANY_THROTTLED),
        )

    async def _read_mail_events(self, source: Queries, now: datetime) -> MailEventCounts:
        found = self._mail_events
        if found and time.monotonic() - found[0] < _DAY_KEPT_FOR:
            return found[1]
        counts = await mail_event_counts(source, now - timedelta(days=1))
        self._mail_events = time.monotonic(), counts
        return counts

    async def _read_day(self, over: Window) -> list[operations.Minute]:
        found = self._day
        if found and found[1] == over.since and time.monotonic() - found[0] < _DAY_KEPT_FOR:
            return found[2]
        kept = await self._reads.read(
            lambda source: operations.counted_minutes(source, over.since, over.step)
        )
        self._day = time.monotonic(), over.since, kept
        return kept


def _overview(
    reading: _Reading, name: str, over: Window, kept: Sequence[operations.Minute]
) -> Overview:
    names = [row.channel for row in reading.channels]
    minutes = merge(kept, reading.lately)
    series = series_by_channel(minutes, over, names)
    hour = merge(reading.hour, reading.lately)
    return Overview(
        at=reading.now,
        window=name,
        step=int(over.step.total_seconds()),
        times=over.times,
        problems=_problems(reading, hour, names),
        streams=sum(each.report.streams for each in reading.processes if not each.silent),
        channels=[_channel(reading, row, minutes, series[row.channel]) for row in reading.channels],
        waiting=_reasons(
            ((each.channel, each.state, each.reason), each.n) for each in reading.unfinished
        ),
        ended=_reasons(
            ((each.channel, each.state, reason), n)
            for each in minutes
            if each.state not in (*WAITING, "sent")
            for reason, n in zip(each.reasons, each.n, strict=True)
        ),
        processes=[_process(each) for each in reading.processes],
        mail_events=reading.mail_events,
        fan_outs=reading.fan_outs,
    )


def _problems(
    reading: _Reading, hour: Sequence[operations.Minute], names: Sequence[str]
) -> list[Problem]:
    failures: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for each in hour:
        if each.state == "failed" and each.at > reading.now - timedelta(minutes=11):
            for reason, n in zip(each.reasons, each.n, strict=True):
                failures[each.channel][reason] += n
    series = series_by_channel(hour, window(reading.now, HOUR), names)
    most = {name: found.most_common(1)[0][0] for name, found in failures.items()}
    return find_problems(structs.replace(reading, series=series, failures=most))


def _channel(
    reading: _Reading,
    row: operations.ChannelRow,
    minutes: Sequence[operations.Minute],
    series: Series,
) -> ChannelView:
    mine = [each for each in reading.unfinished if each.channel == row.channel]
    recent = [each for each in reading.lately if each.channel == row.channel and each.recent]
    unintended = [e.oldest_at for e in mine if e.reason not in WAITING_REASONS]
    return ChannelView(
        channel=row.channel,
        available=row.available,
        late=round(row.late, 1),
        waiting=_sum(mine),
        waiting_more=sum(each.n for each in mine) >= operations.MOST,
        oldest_at=min(unintended, default=None),
        last_minute=_sum(recent),
        latency=_latency(merge([], recent, every=True)),
        total={state: sum(values) for state, values in series.ended.items()},
        window_latency=_latency([each for each in minutes if each.channel == row.channel]),
        series=series,
    )


def _sum(rows: Iterable[operations.Unfinished | operations.Lately]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for row in rows:
        found[row.state] += row.n
    return dict(found)


def _latency(minutes: Iterable[operations.Minute]) -> Latency | None:
    took: Counter[int] = Counter()
    for minute in minutes:
        if minute.state == "sent":
            add_latencies(took, minute)
    return latency(took)


def _reasons(rows: Iterable[tuple[tuple[str, str, str], int]]) -> list[ReasonView]:
    """Sums by channel, state and reason, the most frequent first."""
    found: Counter[tuple[str, str, str]] = Counter()
    for key, n in rows:
        found[key] += n
    return [ReasonView(*key, n, *meaning_and_cure(key[2])) for key, n in found.most_common(50)]


def _process(process: Process) -> ProcessView:
    return ProcessView(
        kind=process.kind,
        host=process.host,
        pid=process.pid,
        version=process.version,
        started_at=process.started_at,
        reported_at=process.reported_at,
        silent=process.silent,
        leading=process.report.leading and not process.silent,
        streams=process.report.streams,
        actors=[_actor(process, each) for each in process.report.actors],
    )


def _actor(process: Process, actor: ActorReport) -> ActorView:
    at = process.reported_at
    state = {name: getattr(actor, name) for name in ActorState.__struct_fields__}
    return ActorView(
        **state,
        reason=actor.breaker_reason,
        since=None if actor.breaker == "closed" else at - timedelta(seconds=actor.failing_for),
        retry_at=at + timedelta(seconds=actor.retry_in) if actor.retry_in else None,
    )


# The ledger by the minute: counted by one HTTP process when a minute is over, and made into series for charts.

WAITING = ("queued", "sending", "deferred")
ENDS = ("sent", "failed", "skipped", "cancelled", "expired")
NO_LATENCY = -1


class Latency(Struct, frozen=True):
    """Percentiles of the seconds from notify() until the provider accepted it."""

    p50: float
    p99: float


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
