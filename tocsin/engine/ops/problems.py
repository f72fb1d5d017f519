"""Problems of the installation, each with its severity, its start and its cure. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from tocsin.engine.explain.reasons import meaning_and_cure
from tocsin.engine.model import PROVIDERS, ActorReport
from tocsin.engine.ops.chart import Series
from tocsin.engine.store.health import BlockingSession
from tocsin.engine.store.installation import Process
from tocsin.engine.store.operations import ChannelRow, Unfinished

CRITICAL = "critical"
WARNING = "warning"

_LATE = 60.0  # seconds; the due time of what is on its way lies ahead
_VERY_LATE = 600.0
_ELECTION = 15.0  # seconds
_MANY_FAIL = 10  # within ten minutes, and a tenth of what ended
_FAILING = 0.1
_LOOK_BACK = 10  # minutes
_CHANNELS = {name: provider.channel.value for name, provider in PROVIDERS.items()}
_NAMES = {
    "email": "Email",
    "push": "Push",
    "web_push": "Web push",
    "webhook": "Webhook",
    "chat": "Chat",
}


class Problem(Struct, frozen=True):
    """One problem: `what` it is in a few words, `detail` how severe it is, `cure` what to do."""

    code: str
    severity: str  # critical or warning
    what: str
    detail: str
    cure: str
    since: datetime | None = None
    channel: str | None = None


class Snapshot(Struct, frozen=True):
    """The state of the installation; the series are of the last hour, by the minute."""

    now: datetime
    processes: Sequence[Process]
    channels: Sequence[ChannelRow]
    unfinished: Sequence[Unfinished]
    series: dict[str, Series]
    failures: dict[str, str]  # of each channel, the most frequent reason of late
    most: int  # waiting deliveries are counted up to this number
    led_at: datetime | None = None  # when there was a leader last, if there is none now
    blocking: Sequence[BlockingSession] = ()


def find_problems(state: Snapshot) -> list[Problem]:
    """Returns all problems, the critical ones first."""
    found = [
        *_workers(state),
        *_leader(state),
        *_blocking(state),
        *_silent(state),
        *_breakers(state),
        *_late(state),
        *_failing(state),
        *_crashes(state),
        *_without_provider(state),
    ]
    return sorted(found, key=lambda each: each.severity != CRITICAL)


def is_led(processes: Iterable[Process]) -> bool:
    """Returns whether a process that reports is the leader."""
    return any(each.report.leading for each in processes if not each.silent)


def actors(state: Snapshot) -> list[tuple[Process, ActorReport]]:
    """Returns the actors of all processes that report."""
    return [
        (process, actor)
        for process in state.processes
        if not process.silent
        for actor in process.report.actors
    ]


def _running(state: Snapshot, kind: str) -> list[Process]:
    return [each for each in state.processes if each.kind == kind and not each.silent]


def _workers(state: Snapshot) -> Iterable[Problem]:
    if _running(state, "worker"):
        return
    gone = [each.reported_at for each in state.processes if each.kind == "worker"]
    yield Problem(
        "no_worker",
        CRITICAL,
        "No worker is running",
        f"Nothing is sent. {_waiting(state)}",
        "Start `tocsin worker`. If one should be running, its log has the reason why it ended.",
        max(gone, default=None),
    )


def _leader(state: Snapshot) -> Iterable[Problem]:
    if is_led(state.processes) or (
        state.led_at and state.now - state.led_at < timedelta(seconds=_ELECTION)
    ):
        return
    yield Problem(
        "no_leader",
        CRITICAL,
        "There is no leader",
        "Nothing is dispatched, and badges are not updated.",
        "A new leader is elected within 15 s. If not, look for `dispatcher` in the logs, then restart "
        "`tocsin serve` and `tocsin worker`.",
        state.led_at,
    )


def _blocking(state: Snapshot) -> Iterable[Problem]:
    for session in state.blocking:
        yield Problem(
            "in_the_way",
            CRITICAL if "wake-up" not in session.blocks else WARNING,
            "A database session blocks the service",
            f"{session}."[:1].upper() + f"{session}."[1:],
            f"End it: select pg_terminate_backend({session.pid}). Or end its transaction.",
            session.since,
        )


def _silent(state: Snapshot) -> Iterable[Problem]:
    gone = [each for each in state.processes if each.silent]
    if not gone:
        return
    names = ", ".join(f"{each.kind} {each.pid} on {each.host}" for each in gone[:3])
    more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
    yield Problem(
        "silent",
        WARNING,
        "A process stopped reporting"
        if len(gone) == 1
        else f"{len(gone)} processes stopped reporting",
        f"{names}{more}: no report since, so it crashed, was killed, or hangs.",
        "Other workers take over its deliveries within 30 s. If it is still running, kill it, and read its log.",
        min(each.reported_at for each in gone),
    )


def _breakers(state: Snapshot) -> Iterable[Problem]:
    every = actors(state)
    for name in sorted({actor.name for _, actor in every}):
        of_name = [(process, actor) for process, actor in every if actor.name == name]
        failing = [(process, actor) for process, actor in of_name if actor.breaker != "closed"]
        if not failing:
            continue
        process, worst = max(failing, key=lambda pair: pair[1].failing_for)
        reason = worst.breaker_reason or "unknown"
        meaning, cure = meaning_and_cure(reason)
        channel = _CHANNELS.get(name)
        where = (
            "" if len(failing) == len(of_name) else f" in {len(failing)} of {len(of_name)} workers"
        )
        mass_rejection = worst.advice is not None
        yield Problem(
            "mass_rejection" if mass_rejection else "breaker",
            CRITICAL if len(failing) == len(of_name) else WARNING,
            f"{_named(name)} refuses every {'address' if channel == 'email' else 'device'}{where}"
            if mass_rejection
            else f"{_named(name)} fails{where}",
            f"{meaning or 'The provider fails.'} ({reason}) {_waiting(state, channel)}",
            worst.advice or cure or "Look at the provider, and at the worker's log.",
            _since_failing(process, worst),
            channel,
        )


def _since_failing(process: Process, actor: ActorReport) -> datetime:
    return process.reported_at - timedelta(seconds=actor.failing_for)


def _late(state: Snapshot) -> Iterable[Problem]:
    for row in state.channels:
        if row.late >= _LATE and _running(state, "worker"):
            yield Problem(
                "late",
                CRITICAL if row.late >= _VERY_LATE else WARNING,
                f"{_NAMES.get(row.channel, row.channel)} is late",
                f"Due deliveries are not being sent. {_waiting(state, row.channel)}",
                "The backlog of one large event passes by itself. Otherwise: is there a leader, do the workers have "
                "capacity, is the database slow? More workers help.",
                state.now - timedelta(seconds=row.late),
                row.channel,
            )


def _failing(state: Snapshot) -> Iterable[Problem]:
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
            f"{_NAMES.get(channel, channel)}: {lost * 100 // ended} % fail permanently",
            f"{lost:,} of {ended:,} in ten minutes, mostly {reason}. {meaning}".rstrip(),
            f"{cure} Dead letters below can be replayed.".lstrip(),
            _first_failure(state, failed),
            channel,
        )


def _first_failure(state: Snapshot, failed: Sequence[int]) -> datetime:
    """Returns the start of the failures, of which at most five minutes are without one."""
    start = pause = 0
    for back, n in enumerate(reversed(failed)):
        pause = 0 if n else pause + 1
        start = back if n else start
        if pause > 5 and back > _LOOK_BACK:
            break
    return state.now.replace(second=0, microsecond=0) - timedelta(minutes=start)


def _crashes(state: Snapshot) -> Iterable[Problem]:
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


def _without_provider(state: Snapshot) -> Iterable[Problem]:
    for channel, series in state.series.items():
        available = next((row.available for row in state.channels if row.channel == channel), True)
        if available or not _running(state, "worker"):
            continue
        if any(series.ended["skipped"]) or any(series.ended["sent"]):
            yield Problem(
                "no_provider",
                WARNING,
                f"{_NAMES.get(channel, channel)} has no provider",
                "No worker has one: new notifications get no delivery on this channel, and waiting ones are skipped.",
                meaning_and_cure("no_provider")[1],
                channel=channel,
            )


def _waiting(state: Snapshot, channel: str | None = None) -> str:
    n = sum(each.n for each in state.unfinished if channel in (None, each.channel))
    if not n:
        return "Nothing is waiting."
    more = " or more" if n >= state.most else ""
    return f"{n:,}{more} {'is' if n == 1 else 'are'} waiting."


def _named(actor: str) -> str:
    provider = PROVIDERS.get(actor)
    return provider.label if provider else actor


def _times(n: int) -> str:
    return {1: "once", 2: "twice"}.get(n, f"{n} times")
