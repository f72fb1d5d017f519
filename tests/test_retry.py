"""Back-off and settlement, as tables."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin.engine.model import (
    Channel,
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
from tocsin.engine.retry import retry_delay
from tocsin.engine.settlement import settle

S = DeliveryState


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
