"""The state of the whole installation, as the operations page shows it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from tocsin.engine.explain.reasons import WAITING_REASONS, meaning_and_cure
from tocsin.engine.model import ActorReport, ActorState, Unavailable
from tocsin.engine.ops import chart
from tocsin.engine.ops.problems import (
    MANY_THROTTLED,
    Problem,
    Snapshot,
    find_problems,
    is_led,
)
from tocsin.engine.store import operations
from tocsin.engine.store.chat_target import DisabledChat, disabled_chat_targets
from tocsin.engine.store.database import Database
from tocsin.engine.store.health import BlockingSession, blocking_sessions
from tocsin.engine.store.installation import Process, processes
from tocsin.engine.store.mail_event import MailEventCounts, mail_event_counts
from tocsin.engine.store.webhook import FailingWebhook, failing_webhooks

# Requests at the same time share a reading. A reading that took long is kept for longer, so that readings never take
# more than a few percent of the database's time.
_KEPT_FOR = 1.0  # seconds
_KEPT_FOR_TIMES_ITS_DURATION = 25
_TIMEOUT = 8.0  # the page's own is ten seconds
_DAY_KEPT_FOR = 20.0
WINDOWS = {"hour": chart.HOUR, "day": chart.DAY}


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
    latency: chart.Latency | None  # of what was sent in the last 60 s
    total: dict[str, int]  # the window, by end
    window_latency: chart.Latency | None
    series: chart.Series


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


class _Reading(Struct, frozen=True):
    """What was read from the database at one moment."""

    at: datetime
    channels: list[operations.ChannelRow]
    unfinished: list[operations.Unfinished]
    lately: list[operations.Lately]
    processes: list[Process]
    hour: list[operations.Minute]
    led_at: datetime  # when there was a leader last
    blocking: list[BlockingSession]
    mail_events: MailEventCounts
    webhooks: list[FailingWebhook]
    chats: list[DisabledChat]
    throttled: list[operations.ThrottledApp]


class Overviews:
    """Reads the state at most once a second, for all requests."""

    def __init__(self, database: Database) -> None:
        self._database = database
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
                over = chart.window(reading.at, WINDOWS[name])
                kept = reading.hour if name == "hour" else await self._read_day(over)
        except TimeoutError:
            raise Unavailable("the database is slow") from None
        return _overview(reading, name, over, kept)

    async def _read(self) -> _Reading:
        started = time.monotonic()
        if self._reading and started < self._reading[0]:
            return self._reading[1]
        now = datetime.now(UTC)
        hour = chart.window(now, chart.HOUR)
        running = await processes(self._database)
        self._led_at = now if is_led(running) else self._led_at or now
        reading = _Reading(
            now,
            await operations.channels(self._database),
            await operations.unfinished(self._database),
            await operations.settled_lately(self._database, now),
            running,
            await operations.counted_minutes(self._database, hour.since, hour.step),
            self._led_at,
            await blocking_sessions(self._database),
            await self._read_mail_events(now),
            await failing_webhooks(self._database),
            await disabled_chat_targets(self._database),
            await operations.throttled_apps(self._database, at_least=MANY_THROTTLED),
        )
        ended = time.monotonic()
        self._reading = (
            ended + max(_KEPT_FOR, _KEPT_FOR_TIMES_ITS_DURATION * (ended - started)),
            reading,
        )
        return reading

    async def _read_mail_events(self, now: datetime) -> MailEventCounts:
        found = self._mail_events
        if found and time.monotonic() - found[0] < _DAY_KEPT_FOR:
            return found[1]
        counts = await mail_event_counts(self._database, now - timedelta(days=1))
        self._mail_events = time.monotonic(), counts
        return counts

    async def _read_day(self, over: chart.Window) -> list[operations.Minute]:
        found = self._day
        if found and found[1] == over.since and time.monotonic() - found[0] < _DAY_KEPT_FOR:
            return found[2]
        kept = await operations.counted_minutes(self._database, over.since, over.step)
        self._day = time.monotonic(), over.since, kept
        return kept


def _overview(
    reading: _Reading, name: str, over: chart.Window, kept: Sequence[operations.Minute]
) -> Overview:
    names = [row.channel for row in reading.channels]
    minutes = chart.merge(kept, reading.lately)
    series = chart.series_by_channel(minutes, over, names)
    hour = chart.merge(reading.hour, reading.lately)
    return Overview(
        at=reading.at,
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
            if each.state not in (*chart.WAITING, "sent")
            for reason, n in zip(each.reasons, each.n, strict=True)
        ),
        processes=[_process(each) for each in reading.processes],
        mail_events=reading.mail_events,
    )


def _problems(
    reading: _Reading, hour: Sequence[operations.Minute], names: Sequence[str]
) -> list[Problem]:
    failures: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for each in hour:
        if each.state == "failed" and each.at > reading.at - timedelta(minutes=11):
            for reason, n in zip(each.reasons, each.n, strict=True):
                failures[each.channel][reason] += n
    return find_problems(
        Snapshot(
            now=reading.at,
            processes=reading.processes,
            channels=reading.channels,
            unfinished=reading.unfinished,
            series=chart.series_by_channel(hour, chart.window(reading.at, chart.HOUR), names),
            failures={name: found.most_common(1)[0][0] for name, found in failures.items()},
            most=operations.MOST,
            led_at=reading.led_at,
            blocking=reading.blocking,
            mail_events=reading.mail_events,
            webhooks=reading.webhooks,
            chats=reading.chats,
            throttled=reading.throttled,
        )
    )


def _channel(
    reading: _Reading,
    row: operations.ChannelRow,
    minutes: Sequence[operations.Minute],
    series: chart.Series,
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
        latency=_latency(chart.merge([], recent, every=True)),
        total={state: sum(values) for state, values in series.ended.items()},
        window_latency=_latency([each for each in minutes if each.channel == row.channel]),
        series=series,
    )


def _sum(rows: Iterable[operations.Unfinished | operations.Lately]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for row in rows:
        found[row.state] += row.n
    return dict(found)


def _latency(minutes: Iterable[operations.Minute]) -> chart.Latency | None:
    took: Counter[int] = Counter()
    for minute in minutes:
        if minute.state == "sent":
            chart.add_latencies(took, minute)
    return chart.latency(took)


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
