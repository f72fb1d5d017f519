"""What is wrong, since when, how bad, and what to do: the sentences that an operator reads first. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from tocsin.engine.explain.reasons import meaning_and_cure
from tocsin.engine.model import PROVIDERS
from tocsin.engine.ops.chart import Series
from tocsin.engine.store.health import BlockingSession
from tocsin.engine.store.installation import ActorReport, Process
from tocsin.engine.store.operations import ChannelRow, Unfinished

CRITICAL = "critical"
WARNING = "warning"

_LATE = 60.0  # seconds; the due time of what is on its way lies ahead
_VERY_LATE = 600.0
_ELECTION = 15.0  # seconds
_MANY_FAIL = 10  # within ten minutes, and a tenth of what ended
_FAILING = 0.1
_LOOK_BACK = 10  # minutes
_CHANNELS = {name: channel.value for channel, names in PROVIDERS.items() for name in names}
_NAMES = {"email": "Email", "push": "Push"}
_SETTINGS = {
    "email": "Set TOCSIN_SMTP_URL for the workers.",
    "push": "Set TOCSIN_APNS_KEY and its companions, or TOCSIN_FCM_SERVICE_ACCOUNT, for the workers.",
}


class Problem(Struct, frozen=True):
    """One thing that is wrong: `what` in a few words, `detail` how bad it is, `cure` what to do."""

    code: str
    severity: str  # critical or warning
    what: str
    detail: str
    cure: str
    since: datetime | None = None
    channel: str | None = None


class State(Struct, frozen=True):
    """All that is looked at; the series are of the last hour, by the minute."""

    now: datetime
    processes: Sequence[Process]
    channels: Sequence[ChannelRow]
    unfinished: Sequence[Unfinished]
    series: dict[str, Series]
    failures: dict[str, str]  # of each channel, the most frequent reason of late
    most: int  # what waits is counted this far
    led_at: datetime | None = None  # when a leader was seen last, where there is none now
    in_the_way: Sequence[BlockingSession] = ()


def diagnose(state: State) -> list[Problem]:
    """What is wrong, the worst first."""
    found = [
        *_workers(state),
        *_leader(state),
        *_in_the_way(state),
        *_silent(state),
        *_breakers(state),
        *_late(state),
        *_failing(state),
        *_crashes(state),
        *_without_provider(state),
    ]
    return sorted(found, key=lambda each: each.severity != CRITICAL)


def is_led(processes: Iterable[Process]) -> bool:
    """Whether one of those whose word is good leads."""
    return any(each.report.leading for each in processes if not each.silent)


def actors(state: State) -> list[tuple[Process, ActorReport]]:
    """The actors of all processes whose word is good."""
    return [
        (process, actor)
        for process in state.processes
        if not process.silent
        for actor in process.report.actors
    ]


def _alive(state: State, kind: str) -> list[Process]:
    return [each for each in state.processes if each.kind == kind and not each.silent]


def _workers(state: State) -> Iterable[Problem]:
    if _alive(state, "worker"):
        return
    gone = [each.reported_at for each in state.processes if each.kind == "worker"]
    yield Problem(
        "no_worker",
        CRITICAL,
        "No worker runs",
        f"Nothing is sent. {_waits(state)}",
        "Start `tocsin worker`. If one should run: its log says why it ended.",
        max(gone, default=None),
    )


def _leader(state: State) -> Iterable[Problem]:
    if is_led(state.processes) or (
        state.led_at and state.now - state.led_at < timedelta(seconds=_ELECTION)
    ):
        return
    yield Problem(
        "no_leader",
        CRITICAL,
        "No process leads",
        "Nothing is dispatched, and badges stand still.",
        "A new leader is elected within 15 s. If it stays: look for `dispatcher` in the logs, then restart "
        "`tocsin serve` and `tocsin worker`.",
        state.led_at,
    )


def _in_the_way(state: State) -> Iterable[Problem]:
    for session in state.in_the_way:
        yield Problem(
            "in_the_way",
            CRITICAL if "wake-up" not in session.blocks else WARNING,
            "A session of the database is in the way",
            f"{session}."[:1].upper() + f"{session}."[1:],
            f"End it: select pg_terminate_backend({session.pid}). Or end its transaction.",
            session.since,
        )


def _silent(state: State) -> Iterable[Problem]:
    gone = [each for each in state.processes if each.silent]
    if not gone:
        return
    names = ", ".join(f"{each.kind} {each.pid} on {each.host}" for each in gone[:3])
    more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
    yield Problem(
        "silent",
        WARNING,
        "A process went silent" if len(gone) == 1 else f"{len(gone)} processes went silent",
        f"{names}{more}: no word since, so it crashed, was killed, or hangs.",
        "Others take up what it had within 30 s. If it still runs, kill it. Its log says more.",
        min(each.reported_at for each in gone),
    )


def _breakers(state: State) -> Iterable[Problem]:
    every = actors(state)
    for name in sorted({actor.name for _, actor in every}):
        of_name = [(process, actor) for process, actor in every if actor.name == name]
        shut = [(process, actor) for process, actor in of_name if actor.breaker != "closed"]
        if not shut:
            continue
        process, worst = max(shut, key=lambda pair: pair[1].failing_for)
        reason = worst.breaker_reason or "unknown"
        meaning, cure = meaning_and_cure(reason)
        channel = _CHANNELS.get(name)
        where = "" if len(shut) == len(of_name) else f" in {len(shut)} of {len(of_name)} workers"
        storm = worst.advice is not None
        yield Problem(
            "storm" if storm else "breaker",
            CRITICAL if len(shut) == len(of_name) else WARNING,
            f"{_named(name)} refuses every {'address' if channel == 'email' else 'device'}{where}"
            if storm
            else f"{_named(name)} fails{where}",
            f"{meaning or 'The provider fails.'} ({reason}) {_waits(state, channel)}",
            worst.advice or cure or "Look at the provider, and at the worker's log.",
            _since_failing(process, worst),
            channel,
        )


def _since_failing(process: Process, actor: ActorReport) -> datetime:
    return process.reported_at - timedelta(seconds=actor.failing_for)


def _late(state: State) -> Iterable[Problem]:
    for row in state.channels:
        if row.late >= _LATE and _alive(state, "worker"):
            yield Problem(
                "late",
                CRITICAL if row.late >= _VERY_LATE else WARNING,
                f"{_NAMES.get(row.channel, row.channel)} is late",
                f"What is due is not taken up. {_waits(state, row.channel)}",
                "A backlog of one huge event passes by itself. Else: does a leader run, do the workers have room, is "
                "the database slow? More workers help.",
                state.now - timedelta(seconds=row.late),
                row.channel,
            )


def _failing(state: State) -> Iterable[Problem]:
    for channel, series in state.series.items():
        failed, sent = series.ended["failed"], series.ended["sent"]
        lost = sum(failed[-_LOOK_BACK:])
        ended = lost + sum(sent[-_LOOK_BACK:])
        if lost < _MANY_FAIL or lost < _FAILING * ended:
            continue
        reason = state.failures.get(channel, "")
        meaning, cure = meaning_and_cure(reason)
        yield Problem(
            "failing",
            CRITICAL if lost > ended / 2 else WARNING,
            f"{_NAMES.get(channel, channel)}: {lost * 100 // ended} % fail for good",
            f"{lost:,} of {ended:,} in ten minutes, mostly {reason}. {meaning}".rstrip(),
            f"{cure} Dead letters below can be replayed.".lstrip(),
            _first_failure(state, failed),
            channel,
        )


def _first_failure(state: State, failed: Sequence[int]) -> datetime:
    """Since when some failed, with no five minutes between without one."""
    start = pause = 0
    for back, n in enumerate(reversed(failed)):
        pause = 0 if n else pause + 1
        start = back if n else start
        if pause > 5 and back > _LOOK_BACK:
            break
    return state.now.replace(second=0, microsecond=0) - timedelta(minutes=start)


def _crashes(state: State) -> Iterable[Problem]:
    for process, actor in actors(state):
        if actor.crashes:
            yield Problem(
                "crashes",
                WARNING,
                f"{_named(actor.name)}: a bug in its actor",
                f"It crashed {_times(actor.crashes)} in worker {process.pid} on {process.host}, and was restarted each "
                "time.",
                "Its log has `actor crashed` with type and place: report that. A restart of the worker clears this.",
                channel=_CHANNELS.get(actor.name),
            )


def _without_provider(state: State) -> Iterable[Problem]:
    for channel, series in state.series.items():
        available = next((row.available for row in state.channels if row.channel == channel), True)
        if available or not _alive(state, "worker"):
            continue
        if any(series.ended["skipped"]) or any(series.ended["sent"]):
            yield Problem(
                "no_provider",
                WARNING,
                f"{_NAMES.get(channel, channel)} has no provider",
                "No worker has one: what is told now gets no delivery on this channel, and what waited was skipped.",
                _SETTINGS.get(channel, "Give the workers its settings."),
                channel=channel,
            )


def _waits(state: State, channel: str | None = None) -> str:
    n = sum(each.n for each in state.unfinished if channel in (None, each.channel))
    if not n:
        return "Nothing waits."
    more = " or more" if n >= state.most else ""
    return f"{n:,}{more} {'waits' if n == 1 else 'wait'}."


def _named(actor: str) -> str:
    names = {"email": "Email", "apns": "APNs", "apns_sandbox": "APNs (sandbox)", "fcm": "FCM"}
    return names.get(actor, actor)


def _times(n: int) -> str:
    return {1: "once", 2: "twice"}.get(n, f"{n} times")
