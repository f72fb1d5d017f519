"""Problems of the installation, each with its severity, its start and its cure. Pure."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from msgspec import Struct

from tocsin.engine.explain.reasons import meaning_and_cure
from tocsin.engine.model import PROVIDERS, ActorReport
from tocsin.engine.store.health import BlockingSession
from tocsin.engine.store.installation import Process
from tocsin.engine.store.mail_event import MailEventCounts
from tocsin.engine.store.operations import MOST, ChannelRow, ThrottledApp, Unfinished
from tocsin.engine.store.target import DisabledChat, FailingWebhook

CRITICAL = "critical"
WARNING = "warning"

_TEXTS: dict[str, dict[str, str]] = tomllib.loads(
    Path(__file__).with_name("problems.toml").read_text("utf-8")
)
_LATE = 60.0  # seconds; the due time of what is on its way lies ahead
_VERY_LATE = 600.0
_ELECTION = 15.0  # seconds
_MANY_FAIL = 10  # within ten minutes, and a tenth of what ended
_FAILING = 0.1
_LOOK_BACK = 10  # minutes
_WEBHOOK_FAILS = timedelta(hours=1)
_MANY_COMPLAIN = 5  # within a day; and of what was sent, by Gmail's rules:
_COMPLAINTS = 0.001
_TOO_MANY_COMPLAINTS = 0.003
MANY_THROTTLED = 100
"""So many deliveries that wait for a limit, to one person, are a problem: more than people cause."""
_CHANNELS = {name: provider.channel.value for name, provider in PROVIDERS.items()}
_NEXT = "Mails leave by the next server of TOCSIN_SMTP_URL."
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


class Series(Struct, frozen=True):
    """One channel over time: a value for each step; None if nothing was counted."""

    ended: dict[str, list[int]]  # how many reached each final state
    waiting: list[int | None]  # at the step's end
    p50: list[float | None]
    p99: list[float | None]


class Snapshot(Struct, frozen=True):
    """The state of the installation; the series are of the last hour, by the minute."""

    now: datetime
    processes: Sequence[Process]
    channels: Sequence[ChannelRow]
    unfinished: Sequence[Unfinished]
    series: dict[str, Series] = {}
    failures: dict[str, str] = {}  # of each channel, the most frequent reason of late
    most: int = MOST  # waiting deliveries are counted up to this number
    led_at: datetime | None = None  # when there was a leader last, if there is none now
    blocking: Sequence[BlockingSession] = ()
    mail_events: MailEventCounts = MailEventCounts()  # of the last day
    webhooks: Sequence[FailingWebhook] = ()  # of apps
    chats: Sequence[DisabledChat] = ()  # of topics
    throttled: Sequence[ThrottledApp] = ()


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
        *_throttled(state),
        *_without_provider(state),
        *_returned_mail(state),
        *_webhooks(state),
        *_chats(state),
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
    yield _problem("no_worker", CRITICAL, max(gone, default=None), waiting=_waiting(state))


def _leader(state: Snapshot) -> Iterable[Problem]:
    if is_led(state.processes) or (
        state.led_at and state.now - state.led_at < timedelta(seconds=_ELECTION)
    ):
        return
    yield _problem("no_leader", CRITICAL, state.led_at)


def _blocking(state: Snapshot) -> Iterable[Problem]:
    for session in state.blocking:
        severity = CRITICAL if "wake-up" not in session.blocks else WARNING
        described = f"{session}"[:1].upper() + f"{session}"[1:]
        yield _problem("in_the_way", severity, session.since, session=described, pid=session.pid)


def _silent(state: Snapshot) -> Iterable[Problem]:
    gone = [each for each in state.processes if each.silent]
    if not gone:
        return
    names = ", ".join(f"{each.kind} {each.pid} on {each.host}" for each in gone[:3])
    more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
    since = min(each.reported_at for each in gone)
    number = "A process" if len(gone) == 1 else f"{len(gone)} processes"
    yield _problem("silent", WARNING, since, processes=number, names=names + more)


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
        channel = _channel(name)
        next_one = all(_has_another(process, actor) for process, actor in failing)
        where = (
            "" if len(failing) == len(of_name) else f" in {len(failing)} of {len(of_name)} workers"
        )
        yield _problem(
            "breaker" if worst.advice is None else "mass_rejection",
            WARNING if next_one or len(failing) < len(of_name) else CRITICAL,
            _since_failing(process, worst),
            channel,
            provider=_named(name),
            recipient="address" if channel == "email" else "device",
            where=where,
            meaning=meaning or "The provider fails.",
            reason=reason,
            waiting=_NEXT if next_one else _waiting(state, channel),
            cure=worst.advice or cure or "Look at the provider, and at the worker's log.",
        )


def _has_another(process: Process, actor: ActorReport) -> bool:
    """Returns whether another provider of the same kind works in this process, as of several mail servers."""
    kind, of_several, _ = actor.name.partition("/")
    return bool(of_several) and any(
        each.name.startswith(f"{kind}/") and each.breaker == "closed"
        for each in process.report.actors
    )


def _since_failing(process: Process, actor: ActorReport) -> datetime:
    return process.reported_at - timedelta(seconds=actor.failing_for)


def _late(state: Snapshot) -> Iterable[Problem]:
    for row in state.channels:
        if row.late >= _LATE and _running(state, "worker"):
            yield _problem(
                "late",
                CRITICAL if row.late >= _VERY_LATE else WARNING,
                state.now - timedelta(seconds=row.late),
                row.channel,
                name=_NAMES.get(row.channel, row.channel),
                waiting=_waiting(state, row.channel),
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
        yield _problem(
            "failing",
            CRITICAL if lost > ended / 2 else WARNING,
            _first_failure(state, failed),
            channel,
            name=_NAMES.get(channel, channel),
            percent=lost * 100 // ended,
            lost=lost,
            ended=ended,
            reason=reason,
            meaning=meaning,
            cure=cure,
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
            channel = _channel(actor.name)
            named, times = _named(actor.name), _times(actor.crashes)
            yield _problem(
                "crashes", WARNING, None, channel, provider=named, times=times, process=process
            )


def _throttled(state: Snapshot) -> Iterable[Problem]:
    for app in state.throttled:
        name = app.caller if app.key_name is None else f"{app.caller} ({app.key_name})"
        people = "one person" if app.people == 1 else f"{app.people} people"
        values = {"app": name, "people": people, "of": app}
        yield _problem("throttled", WARNING, app.since, app.channel, **values)


def _without_provider(state: Snapshot) -> Iterable[Problem]:
    for channel, series in state.series.items():
        available = next((row.available for row in state.channels if row.channel == channel), True)
        if available or not _running(state, "worker"):
            continue
        if any(series.ended["skipped"]) or any(series.ended["sent"]):
            cure = meaning_and_cure("no_provider")[1]
            name = _NAMES.get(channel, channel)
            yield _problem("no_provider", WARNING, None, channel, name=name, cure=cure)


def _webhooks(state: Snapshot) -> Iterable[Problem]:
    for each in state.webhooks:
        if each.disabled_at is not None:
            meaning, cure = meaning_and_cure(each.disabled_reason or "")
            values = {"name": each.name, "meaning": meaning, "cure": cure}
            yield _problem("webhook_disabled", WARNING, each.disabled_at, "webhook", **values)
        elif each.failing_since and state.now - each.failing_since > _WEBHOOK_FAILS:
            since = each.failing_since
            yield _problem("webhook_failing", WARNING, since, "webhook", name=each.name)


def _chats(state: Snapshot) -> Iterable[Problem]:
    for each in state.chats:
        meaning, cure = meaning_and_cure(each.disabled_reason)
        values = {"name": each.name, "kind": each.kind, "meaning": meaning, "cure": cure}
        yield _problem("chat_disabled", WARNING, each.disabled_at, "chat", **values)


def _returned_mail(state: Snapshot) -> Iterable[Problem]:
    counts = state.mail_events
    at = counts.mass_rejection_at
    if at is not None and state.now - at < timedelta(hours=1):
        yield _problem("mass_bounce", CRITICAL, at, "email", dead=counts.dead)
    share = counts.complaints / max(counts.sent, 1)
    if counts.complaints >= _MANY_COMPLAIN and share >= _COMPLAINTS:
        severity = CRITICAL if share >= _TOO_MANY_COMPLAINTS else WARNING
        values = {"complaints": counts.complaints, "sent": counts.sent, "share": share}
        yield _problem("complaints", severity, None, "email", **values)


def _problem(
    code: str,
    severity: str,
    since: datetime | None,
    channel: str | None = None,
    **values: object,
) -> Problem:
    """Returns a problem with its texts of problems.toml, filled with these values."""
    texts = {name: text.format_map(values).strip() for name, text in _TEXTS[code].items()}
    return Problem(code, severity, **texts, since=since, channel=channel)


def _waiting(state: Snapshot, channel: str | None = None) -> str:
    n = sum(each.n for each in state.unfinished if channel in (None, each.channel))
    if not n:
        return "Nothing is waiting."
    more = " or more" if n >= state.most else ""
    return f"{n:,}{more} {'is' if n == 1 else 'are'} waiting."


def _channel(actor: str) -> str | None:
    return _CHANNELS.get(actor.partition("/")[0])


def _named(actor: str) -> str:
    """Returns the label of the provider, with the address where there are several of a kind."""
    kind, _, address = actor.partition("/")
    provider = PROVIDERS.get(kind)
    label = provider.label if provider else kind
    return f"{label} ({address})" if address else label


def _times(n: int) -> str:
    return {1: "once", 2: "twice"}.get(n, f"{n} times")
