"""Back-off and settlement, as tables."""

from __future__ import annotations

import doctest
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tocsin.engine.actors.machinery import breaker
from tocsin.engine.deliver.settlement import render_failed, retry_delay, settle, settle_all, skip
from tocsin.engine.model import (
    Channel,
    CheckResult,
    Claimed,
    Deferred,
    DeliveryState,
    Outcome,
    Priority,
    Rejected,
    Sent,
    Settlement,
    Unknown,
    Unsent,
    Withheld,
)
from tocsin.engine.store.delivery import SettledDelivery

S = DeliveryState


def test_the_table_of_waits_holds() -> None:
    found = doctest.testmod(breaker)
    assert found.attempted
    assert not found.failed


@given(st.integers(1, 60), st.integers())
def test_the_wait_is_jittered_below_a_ceiling_that_triples(attempt: int, seed: int) -> None:
    ceiling = min(3600.0, 5.0 * 3.0 ** min(attempt - 1, 30))
    assert 0.5 <= retry_delay(attempt, None, Random(seed)) <= ceiling


@given(st.integers(1, 60), st.floats(0, 86_400), st.integers())
def test_it_is_never_before_the_providers_own_time(
    attempt: int, retry_after: float, seed: int
) -> None:
    assert retry_delay(attempt, retry_after, Random(seed)) >= retry_after


def test_the_jitter_is_full() -> None:
    waits = [retry_delay(5, None, Random(seed)) for seed in range(500)]
    assert min(waits) < 40
    assert max(waits) > 360
    first = [retry_delay(1, None, Random(seed)) for seed in range(500)]
    assert 0.5 <= min(first) < 0.6


class Longest(Random):
    """Draws the upper end of each range."""

    def uniform(self, a: float, b: float) -> float:
        return max(a, b)


def test_the_longest_waits_are_an_hour_and_a_tenth_more_than_the_provider_asked_for() -> None:
    assert retry_delay(1, None, Longest()) == 5
    assert retry_delay(60, None, Longest()) == 3600
    assert retry_delay(60, 4000.0, Longest()) == pytest.approx(4400)


def claimed(attempt: int = 1) -> Claimed:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    nothing: dict[str, Any] = dict.fromkeys(
        ("body_html", "action_url", "initiator", "name", "locale", "timezone")
    )
    return Claimed(
        delivery_id=1,
        claim=uuid4(),
        notification_id=2,
        event_id=3,
        recipient_id="alice",
        channel=Channel.EMAIL,
        priority=Priority.NORMAL,
        attempt=attempt,
        max_attempts=3,
        expires_at=now,
        mandatory=False,
        event_type="forum.new_reply",
        label="New reply",
        category="forum",
        title="x",
        body="",
        created_at=now,
        **nothing,
    )


@pytest.mark.parametrize(
    ("outcome", "attempt", "state", "reason", "tried"),
    [
        (Sent("queue-1"), 1, S.SENT, None, "sent"),
        (Rejected("smtp_550"), 1, S.FAILED, "smtp_550", "rejected"),
        (Deferred("smtp_451"), 1, S.DEFERRED, "smtp_451", "deferred"),
        (Deferred("smtp_451"), 3, S.FAILED, "attempts_exhausted", "deferred"),
        (Unknown("reply_lost"), 1, S.DEFERRED, "reply_lost", "unknown"),
        (Unknown("reply_lost"), 3, S.FAILED, "attempts_exhausted", "unknown"),
        (Unsent("shutdown"), 1, S.DEFERRED, "shutdown", None),
        (Unsent("circuit_open"), 3, S.DEFERRED, "circuit_open", None),
        (Withheld(S.SKIPPED, "opted_out_since"), 1, S.SKIPPED, "opted_out_since", None),
        (Withheld(S.CANCELLED, "cancelled"), 1, S.CANCELLED, "cancelled", None),
    ],
)
def test_each_outcome_has_its_state(
    outcome: Outcome, attempt: int, state: DeliveryState, reason: str | None, tried: str | None
) -> None:
    settled = settle(claimed(attempt), Settlement(outcome), Random(1))
    assert settled is not None
    assert (settled.state, settled.reason, settled.outcome) == (state, reason, tried)


@pytest.mark.parametrize(
    ("outcome", "dead"),
    [
        (Rejected("smtp_550", address_dead=True), True),
        (Rejected("BadDeviceToken", quarantine=True), True),
        (Rejected("smtp_554"), False),
        (Deferred("smtp_451"), False),
    ],
)
def test_an_address_is_given_up_where_the_refusal_is_about_it(outcome: Outcome, dead: bool) -> None:
    settled = settle(claimed(), Settlement(outcome), Random(1))
    assert settled is not None
    assert settled.address_dead is dead


def test_a_retry_waits_for_as_long_as_the_provider_asked_and_a_little_by_chance() -> None:
    waits = []
    for seed in range(200):
        settled = settle(claimed(), Settlement(Deferred("quota", 100.0)), Random(seed))
        assert settled is not None
        waits.append(settled.delay)
    assert 100 <= min(waits) < 101
    assert 109 < max(waits) <= 110


def test_a_lost_claim_is_not_ours_to_settle() -> None:
    assert settle(claimed(), Settlement(Withheld(None, "claim_lost")), Random(1)) is None


CHECKED = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_all_that_is_known_of_an_outcome_is_written() -> None:
    one = claimed()
    check_result = CheckResult(1, "alice@example.com", CHECKED)
    sent = settle(one, Settlement(Sent("queue-1"), check_result), Random(1))
    assert sent == SettledDelivery(
        1,
        one.claim,
        S.SENT,
        outcome="sent",
        address="alice@example.com",
        checked_at=CHECKED,
        provider_id="queue-1",
    )
    refusal = Rejected("apns_Unregistered", address_dead=True, dead_since=CHECKED)
    assert settle(one, Settlement(refusal, check_result), Random(1)) == SettledDelivery(
        1,
        one.claim,
        S.FAILED,
        "apns_Unregistered",
        outcome="rejected",
        attempt_reason="apns_Unregistered",
        address="alice@example.com",
        checked_at=CHECKED,
        address_dead=True,
        dead_since=CHECKED,
    )
    withheld = CheckResult(1, "", CHECKED, Withheld(S.DEFERRED, "quiet_hours", 60.0))
    found = settle(one, Settlement(Withheld(S.DEFERRED, "quiet_hours", 60.0), withheld), Random(1))
    assert found == SettledDelivery(
        1,
        one.claim,
        S.DEFERRED,
        "quiet_hours",
        60.0,
        attempt_reason="quiet_hours",
        checked_at=CHECKED,
    )


def test_one_that_is_never_tried_has_no_attempt() -> None:
    one = claimed()
    assert skip(one, "no_device") == SettledDelivery(
        one.delivery_id, one.claim, S.SKIPPED, "no_device"
    )


def test_one_whose_template_failed_has_spent_an_attempt() -> None:
    one = claimed()
    assert render_failed(one) == [
        SettledDelivery(
            one.delivery_id,
            one.claim,
            S.FAILED,
            "render_failed",
            outcome="rejected",
            attempt_reason="render_failed",
        )
    ]


def test_what_is_tried_again_waits() -> None:
    unknown = [settle(claimed(2), Settlement(Unknown("lost")), Random(seed)) for seed in range(50)]
    assert all(each is not None and 0.5 <= each.delay <= 15 for each in unknown)
    unsent = settle(claimed(), Settlement(Unsent("circuit_open", 7.0)), Random(1))
    assert unsent is not None
    assert unsent.delay == 7.0


def of_burst(delivery_id: int) -> Claimed:
    return replace(claimed(), delivery_id=delivery_id, burst_id=1)


def test_a_burst_is_settled_each_for_itself_and_due_again_at_one_time() -> None:
    together = [of_burst(1), of_burst(2)]
    settled = settle_all(together, Settlement(Deferred("smtp_451")), Random(1))
    assert [each.delivery_id for each in settled] == [1, 2]
    assert settled[0].delay == settled[1].delay
    (alone,) = settle_all([claimed()], Settlement(Sent("q")), Random(1))
    assert alone.state is S.SENT
    assert settle_all([claimed()], Settlement(Withheld(None, "lost")), Random(1)) == []
    (later,) = settle_all([claimed()], Settlement(Deferred("smtp_451")), Random(1))
    assert later.delay > 0


def test_a_burst_of_which_one_is_withheld_goes_again_without_it() -> None:
    together = [of_burst(1), of_burst(2), of_burst(3)]
    changed = Withheld(S.DEFERRED, "changed")
    checked = (
        CheckResult(1, "alice@example.com", CHECKED),
        CheckResult(2, "", CHECKED, Withheld(S.CANCELLED, "cancelled")),
    )
    check_result = CheckResult(1, "", CHECKED, changed, others=checked)
    settled = settle_all(together, Settlement(changed, check_result), Random(1))
    assert [(each.delivery_id, each.state, each.reason, each.outcome) for each in settled] == [
        (1, S.DEFERRED, "changed", None),
        (2, S.CANCELLED, "cancelled", None),
    ]
    assert [each.checked_at for each in settled] == [CHECKED] * 2  # the third one's claim is lost


def test_what_an_app_is_sent_is_tried_for_days() -> None:
    class Longest(Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    own = replace(claimed(12), channel=Channel.WEBHOOK, max_attempts=16, notification_id=7)
    app = replace(own, notification_id=None)
    delays = [
        settle(each, Settlement(Deferred("webhook_500")), Longest()).delay  # type: ignore[union-attr]
        for each in (own, app)
    ]
    assert delays == [3600, 28_800]
