"""Problems of the installation: which state has which, with its severity, its start and its cure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from tocsin.engine.model import ActorReport
from tocsin.engine.ops.overview import ENDS, HOUR, latency, series_by_channel, window
from tocsin.engine.ops.problems import CRITICAL, WARNING, Series, Snapshot, find_problems
from tocsin.engine.store.health import BlockingSession
from tocsin.engine.store.installation import SILENT_AFTER, Process, ProcessReport
from tocsin.engine.store.mail_event import MailEventCounts
from tocsin.engine.store.operations import ChannelRow, Minute, ThrottledApp, Unfinished
from tocsin.engine.store.target import DisabledChat, FailingWebhook

NOW = datetime(2026, 11, 22, 3, 7, 42, tzinfo=UTC)
ACTOR = ActorReport("email", 0, 256, 0, 4, None, "closed", 0, None, None, 0.0, 0.0)


def process(kind: str = "worker", *, silent_for: float = 1.0, **report: Any) -> Process:
    reported_at = NOW - timedelta(seconds=silent_for)
    start = NOW - timedelta(hours=3)
    return Process(
        UUID(int=1), kind, "box", 42, "1", start, reported_at, silent_for, ProcessReport(**report)
    )


def series(**ends: dict[int, int]) -> Series:
    """By minutes ago."""
    found = {state: [0] * 60 for state in ENDS}
    for state, minutes in ends.items():
        for ago, n in minutes.items():
            found[state][-1 - ago] = n
    nothing: list[Any] = [None] * 60
    return Series(found, nothing, nothing, nothing)


WELL = Snapshot(
    now=NOW,
    processes=[process(leading=True, actors=[ACTOR]), process("serve", streams=3)],
    channels=[ChannelRow("email", True, 0.0), ChannelRow("push", False, 0.0)],
    unfinished=[],
    series={"email": series(sent={0: 30}), "push": series()},
    failures={},
    most=50_000,
)
BROKEN = replace(
    ACTOR,
    breaker="open",
    breaker_reason="smtp_connect_refused",
    failing_for=120.0,
    retry_in=8.0,
)
REFUSED = replace(
    BROKEN,
    name="apns",
    breaker_reason="apns_BadDeviceToken_mass_rejection",
    advice="Check the topic.",
)


def codes(state: Snapshot) -> list[tuple[str, str]]:
    return [(each.code, each.severity) for each in find_problems(state)]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, []),
        ({"mail_events": MailEventCounts(sent=10_000, bounces=900, dead=80, complaints=9)}, []),
        ({"mail_events": MailEventCounts(sent=100, complaints=4)}, []),
        (
            {"mail_events": MailEventCounts(sent=5_000, complaints=5)},
            [("complaints", WARNING)],
        ),
        (
            {"mail_events": MailEventCounts(sent=5_000, complaints=15)},
            [("complaints", CRITICAL)],
        ),
        (
            {"mail_events": MailEventCounts(mass_rejection_at=NOW - timedelta(minutes=59))},
            [("mass_bounce", CRITICAL)],
        ),
        ({"mail_events": MailEventCounts(mass_rejection_at=NOW - timedelta(minutes=61))}, []),
        # a push channel that nobody uses is no fault
        ({"processes": []}, [("no_worker", CRITICAL), ("no_leader", CRITICAL)]),
        (
            {"processes": [process("serve", leading=True), process(silent_for=SILENT_AFTER + 1)]},
            [("no_worker", CRITICAL), ("silent", WARNING)],
        ),
        (
            {"processes": [process(actors=[ACTOR]), process("serve", leading=True, silent_for=11)]},
            [("no_leader", CRITICAL), ("silent", WARNING)],
        ),
        # an election takes a moment
        (
            {"processes": [process(actors=[ACTOR])], "led_at": NOW - timedelta(seconds=14)},
            [],
        ),
        (
            {"processes": [process(actors=[ACTOR])], "led_at": NOW - timedelta(seconds=16)},
            [("no_leader", CRITICAL)],
        ),
        ({"processes": [process(leading=True, actors=[BROKEN])]}, [("breaker", CRITICAL)]),
        (
            {"processes": [process(leading=True, actors=[BROKEN]), process(actors=[ACTOR])]},
            [("breaker", WARNING)],
        ),
        (
            {"processes": [process(leading=True, actors=[replace(BROKEN, breaker="half_open")])]},
            [("breaker", CRITICAL)],
        ),
        # the word of a process that is gone is worth nothing
        (
            {
                "processes": [
                    process(leading=True, actors=[ACTOR]),
                    process(actors=[BROKEN], silent_for=60),
                ]
            },
            [("silent", WARNING)],
        ),
        (
            {"processes": [process(leading=True, actors=[REFUSED, ACTOR])]},
            [("mass_rejection", CRITICAL)],
        ),
        ({"channels": [ChannelRow("email", True, 59)]}, []),
        ({"channels": [ChannelRow("email", True, 61)]}, [("late", WARNING)]),
        ({"channels": [ChannelRow("email", True, 601)]}, [("late", CRITICAL)]),
        (
            {"series": {"email": series(sent={1: 100}, failed={1: 9})}},
            [],
        ),
        (
            {"series": {"email": series(sent={1: 80}, failed={1: 20})}},
            [("failing", WARNING)],
        ),
        (
            {"series": {"email": series(sent={1: 10}, failed={1: 20})}},
            [("failing", CRITICAL)],
        ),
        ({"series": {"email": series(sent={1: 10}, failed={20: 200})}}, []),
        (
            {"processes": [process(leading=True, actors=[replace(ACTOR, crashes=2)])]},
            [("crashes", WARNING)],
        ),
        (
            {
                "channels": [ChannelRow("push", False, 0.0)],
                "series": {"push": series(skipped={5: 2})},
            },
            [("no_provider", WARNING)],
        ),
    ],
)
def test_each_state_has_its_problems(
    changes: dict[str, Any], wanted: list[tuple[str, str]]
) -> None:
    assert codes(replace(WELL, **changes)) == wanted


def test_an_open_breaker_has_a_start_a_severity_and_a_cure() -> None:
    waiting = Unfinished("email", "deferred", "circuit_open", 1234, NOW)
    state = replace(WELL, processes=[process(leading=True, actors=[BROKEN])], unfinished=[waiting])
    (problem,) = find_problems(state)
    assert problem.what == "Email fails"
    assert problem.since == NOW - timedelta(seconds=121)
    assert "smtp_connect_refused" in problem.detail
    assert "1,234 are waiting" in problem.detail
    assert "TOCSIN_SMTP_URL" in problem.cure


def test_a_mass_rejection_of_mails_names_addresses() -> None:
    refused = replace(REFUSED, name="email", breaker_reason="smtp_550_5.1.1_mass_rejection")
    (problem,) = find_problems(replace(WELL, processes=[process(leading=True, actors=[refused])]))
    assert problem.what == "Email refuses every address"


def test_a_mass_rejection_has_the_advice_of_the_actor() -> None:
    (problem,) = find_problems(replace(WELL, processes=[process(leading=True, actors=[REFUSED])]))
    assert problem.cure == "Check the topic."
    assert problem.channel == "push"


def test_failures_have_a_start() -> None:
    failing = series(failed={0: 5, 2: 5, 4: 9, 30: 1})
    state = replace(WELL, series={"email": failing}, failures={"email": "smtp_550_5.7.1"})
    (problem,) = find_problems(state)
    assert problem.since == NOW.replace(second=0) - timedelta(minutes=4)
    assert "smtp_550_5.7.1" in problem.detail


def test_a_backlog_that_is_not_counted_to_its_end_is_so_many_or_more() -> None:
    waiting = Unfinished("email", "queued", "", 50_000, NOW)
    (problem, _) = find_problems(replace(WELL, processes=[], unfinished=[waiting]))
    assert "50,000 or more are waiting" in problem.detail


# Charts.


def minute(
    ago: int, state: str = "sent", n: int = 1, took: int = -1, channel: str = "email"
) -> Minute:
    at = NOW.replace(second=0) - timedelta(minutes=ago)
    return Minute(at, channel, state, [""], [took], [n])


def test_a_series_has_a_place_for_each_minute_and_no_other() -> None:
    over = window(NOW, HOUR)
    drawn = series_by_channel(
        [
            minute(0, n=2),
            minute(59, n=3),
            minute(60, n=5),
            minute(1, "queued", 7),
            minute(2, n=4, channel="fax"),
        ],
        over,
        ["email"],
    )["email"]
    assert drawn.ended["sent"] == [3, *[0] * 58, 2]
    assert drawn.waiting == [*[None] * 58, 7, None]
    assert over.times[-1] == NOW.replace(second=0)


def test_latencies_are_right_within_a_fifth() -> None:
    # 98 of 0.25 s, 2 of 8 s: classes of 2^(n/4) ms
    found = latency({32: 98, 52: 2})
    assert found is not None
    assert 0.2 < found.p50 <= 0.256
    assert 6.8 < found.p99 <= 8.192
    assert latency({}) is None


def test_a_blocking_session_is_named_with_its_cure() -> None:
    since = NOW - timedelta(minutes=5)
    session = BlockingSession(77, "reports", "psql", "10.0.0.9", since, "the election of a leader")
    (found,) = find_problems(replace(WELL, blocking=[session]))
    assert (found.code, found.severity, found.since) == ("in_the_way", CRITICAL, since)
    assert "Session 77 of role reports (psql, from 10.0.0.9)" in found.detail
    assert "pg_terminate_backend(77)" in found.cure


def test_an_app_that_notifies_too_often_is_named_with_its_event_type() -> None:
    app = ThrottledApp(
        "key:3", "shop", "shop.order_sent", "email", 9_940, 1, NOW, NOW + timedelta(hours=1)
    )
    (problem,) = find_problems(replace(WELL, throttled=[app]))
    assert (problem.code, problem.severity, problem.channel) == ("throttled", WARNING, "email")
    assert problem.what == "The app key:3 (shop) notifies one person too often"
    assert problem.detail.startswith("9,940 of shop.order_sent wait on email")
    assert "from 04:07 UTC on" in problem.detail


@pytest.mark.parametrize(
    ("webhook", "what", "cure"),
    [
        (
            FailingWebhook("shop", NOW - timedelta(days=6), NOW, "webhook_failing"),
            "The webhook shop is disabled",
            "puts the webhook again",
        ),
        (
            FailingWebhook("shop", None, NOW, "webhook_410"),
            "The webhook shop is disabled",
            "puts the webhook again",
        ),
        (
            FailingWebhook("shop", NOW - timedelta(hours=2), None, None),
            "The webhook shop accepts nothing",
            "GET /api/webhooks/shop/messages/",
        ),
    ],
)
def test_a_webhook_that_fails_for_long_is_found(
    webhook: FailingWebhook, what: str, cure: str
) -> None:
    (found,) = find_problems(replace(WELL, webhooks=[webhook]))
    assert (found.severity, found.what) == (WARNING, what)
    assert cure in found.cure


def test_a_webhook_that_failed_just_now_is_no_problem() -> None:
    webhook = FailingWebhook("shop", NOW - timedelta(minutes=5), None, None)
    assert find_problems(replace(WELL, webhooks=[webhook])) == []


def test_a_chat_target_that_its_service_refused_is_found_with_the_cure() -> None:
    chat = DisabledChat("forum-team", "slack", NOW - timedelta(days=1), "slack_channel_is_archived")
    (found,) = find_problems(replace(WELL, chats=[chat]))
    assert (found.code, found.severity, found.channel) == ("chat_disabled", WARNING, "chat")
    assert found.what == "The chat target forum-team is disabled"
    assert "posted to slack" in found.detail
    assert "put the target again" in found.cure
