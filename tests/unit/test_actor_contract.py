"""What every channel's actor does, whatever its provider: one suite, a row for each of tests/support/far_ends.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from tests.support.far_ends import FAR_ENDS, RETRY_AFTER, Case, FarEnd
from tests.support.loop_clock import LoopClock
from tests.support.sending import send_by, send_on
from tests.support.services import LONGEST, until
from tocsin.engine.actors.machinery.base import Actor
from tocsin.engine.actors.machinery.breaker import Breaker, BreakerState
from tocsin.engine.actors.machinery.envelope import Envelope, RetryNow, SendResult
from tocsin.engine.model import (
    Channel,
    CheckResult,
    Deferred,
    DeliveryState,
    Message,
    Outcome,
    Priority,
    Rejected,
    Sent,
    Settlement,
    Unknown,
    Unsent,
    Withheld,
)

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
LOST = [Case.HANG, Case.RESET, Case.SLOW_BODY, Case.GARBAGE]
PERMANENT = [Case.DEAD, Case.ELSEWHERE, Case.BAD]
TRANSIENT = [Case.LATER, Case.LATER_NAMED, Case.DOWN, Case.CREDENTIALS]


@pytest.fixture(params=FAR_ENDS, ids=lambda each: each.__name__.lower())
async def far(request: pytest.FixtureRequest) -> AsyncIterator[FarEnd]:
    kind: type[FarEnd] = request.param
    async with kind() as far:
        yield far


def cases(*cases: Case) -> pytest.MarkDecorator:
    """Each channel with each of these cases that its provider can have."""
    pairs = [
        pytest.param(kind, case, id=f"{kind.__name__.lower()}-{case.name.lower()}")
        for kind in FAR_ENDS
        for case in cases
        if case not in kind.lacks
    ]
    return pytest.mark.parametrize(("far", "case"), pairs, indirect=["far"])


class Checks:
    """The presend check: to the far end's address, unless withheld; `gate` holds it up."""

    def __init__(self, far: FarEnd) -> None:
        self._far = far
        self.gate = asyncio.Event()
        self.gate.set()
        self.withheld: Withheld | None = None

    async def presend_check(self, messages: Sequence[Message]) -> dict[int, CheckResult]:
        await self.gate.wait()
        return {
            each.delivery_id: CheckResult(
                each.delivery_id, self._far.address, NOW, self.withheld, options=self._far.options
            )
            for each in messages
        }


@asynccontextmanager
async def actor_of(
    far: FarEnd, checks: Checks | None = None, **options: Any
) -> AsyncIterator[Actor[Any]]:
    actor = far.actor(
        presend_check=(checks or Checks(far)).presend_check, **({"senders": 1} | options)
    )
    await actor.start()
    try:
        yield actor
    finally:
        await actor.stop(grace=0.05)


def message(far: FarEnd, number: int = 1) -> Message:
    return Message(number, UUID(int=number), Channel.PUSH, Priority.NORMAL, far.content)


def post(actor: Actor[Any], far: FarEnd, numbers: range) -> list[asyncio.Task[Settlement]]:
    return [asyncio.create_task(send_by(actor, message(far, number))) for number in numbers]


async def play(far: FarEnd, case: Case) -> Outcome:
    far.plays(case)
    async with actor_of(far) as actor:
        return await send(actor, far, case)


async def send(actor: Actor[Any], far: FarEnd, case: Case, number: int = 1) -> Outcome:
    """Where the far end never responds, the time until the deadline passes at once."""
    (sending,) = post(actor, far, range(number, number + 1))
    if case in {Case.HANG, Case.SLOW_BODY}:
        before = far.received
        await until(lambda: far.received > before)
        await LoopClock().advance_until_done(sending)
    return (await sending).outcome


# Accepted.


async def test_a_message_that_is_accepted_is_sent_to_the_address_of_its_check(far: FarEnd) -> None:
    far.plays(Case.ACCEPT)
    async with actor_of(far) as actor:
        settlement = await send_by(actor, message(far))
    assert isinstance(settlement.outcome, Sent)
    assert settlement.check_result is not None
    assert settlement.check_result.address == far.address
    assert far.received == 1


async def test_many_are_sent_each_once(far: FarEnd) -> None:
    far.plays(Case.ACCEPT)
    async with actor_of(far, senders=4) as actor:
        settlements = await asyncio.gather(*post(actor, far, range(50)))
    assert {type(each.outcome) for each in settlements} == {Sent}
    assert far.received == 50


async def test_what_the_check_withholds_does_not_leave(far: FarEnd) -> None:
    checks = Checks(far)
    checks.withheld = Withheld(DeliveryState.SKIPPED, "opted_out_since")
    async with actor_of(far, checks) as actor:
        assert (await send_by(actor, message(far))).outcome == checks.withheld
    assert far.received == 0


# Refused.


@cases(*PERMANENT)
async def test_a_permanent_refusal_is_of_one_message_and_states_what_happens_to_its_address(
    far: FarEnd, case: Case
) -> None:
    far.plays(case)
    async with actor_of(far) as actor:
        outcomes = [(await send_by(actor, message(far, number))).outcome for number in range(6)]
        assert actor.report().breaker is BreakerState.CLOSED
        far.plays(Case.ACCEPT)
        assert isinstance((await send_by(actor, message(far))).outcome, Sent)
    for outcome in outcomes:
        assert isinstance(outcome, Rejected)
        assert outcome.address_dead == (case is Case.DEAD)
        assert outcome.quarantine == (case is Case.ELSEWHERE)


@cases(*TRANSIENT)
async def test_a_transient_refusal_is_tried_again(far: FarEnd, case: Case) -> None:
    outcome = await play(far, case)
    assert isinstance(outcome, Deferred)
    if case is Case.LATER_NAMED:
        assert outcome.retry_after is not None
        assert outcome.retry_after >= RETRY_AFTER


@cases(*PERMANENT, *TRANSIENT, *LOST)
async def test_reasons_are_words_without_an_address(far: FarEnd, case: Case) -> None:
    outcome = await play(far, case)
    reason = getattr(outcome, "reason", "")
    assert reason
    assert reason.isascii()
    assert not set(reason) & set(" @/:\n")
    assert far.address not in reason


@cases(Case.DOWN, Case.CREDENTIALS)
async def test_a_provider_that_fails_is_left_in_peace_and_no_address_is_touched(
    far: FarEnd, case: Case
) -> None:
    far.plays(case)
    async with actor_of(far, breaker=Breaker(first=3600, most=3600)) as actor:
        outcomes = [(await send_by(actor, message(far, number))).outcome for number in range(8)]
        state = actor.report().breaker
    assert all(isinstance(each, Deferred | Unsent) for each in outcomes)
    if far.shared:
        assert state is BreakerState.OPEN
        assert all(isinstance(each, Unsent) for each in outcomes[5:])
    else:
        assert state is BreakerState.CLOSED


# Lost.


@cases(*LOST)
async def test_a_lost_response_leaves_the_outcome_unknown(far: FarEnd, case: Case) -> None:
    assert isinstance(await play(far, case), Unknown)


@cases(Case.DOWN, Case.CREDENTIALS, *LOST)
async def test_after_an_outage_the_channel_works_by_itself(far: FarEnd, case: Case) -> None:
    far.plays(case)
    async with actor_of(far, breaker=Breaker(first=0.01, most=0.02)) as actor:
        for number in range(6 if case not in {Case.HANG, Case.SLOW_BODY} else 1):
            await send(actor, far, case, number)
        far.plays(Case.ACCEPT)
        await until(lambda: actor.report().breaker is not BreakerState.OPEN)
        async with actor.acquire(1) as permits:
            assert isinstance((await send_on(permits, message(far, 9))).outcome, Sent)
        assert actor.report().breaker is BreakerState.CLOSED


async def test_one_that_hangs_does_not_hold_up_the_others(far: FarEnd) -> None:
    far.plays(Case.HANG)
    async with actor_of(far, senders=2) as actor:
        (hanging,) = post(actor, far, range(1))
        await until(lambda: far.received == 1)
        far.plays(Case.ACCEPT)
        settlements = await asyncio.gather(*post(actor, far, range(1, 20)))
        assert not hanging.done()
        assert {type(each.outcome) for each in settlements} == {Sent}
        await LoopClock().advance_until_done(hanging)
        assert isinstance((await hanging).outcome, Unknown)


# Overload.


async def test_a_full_mailbox_makes_the_claim_wait_and_loses_nothing(
    far: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the check waits for this test, however long that takes
    monkeypatch.setattr("tocsin.engine.actors.machinery.envelope.CHECK_TIMEOUT", LONGEST)
    far.plays(Case.ACCEPT)
    checks = Checks(far)
    checks.gate.clear()
    async with actor_of(far, checks, size=8, reserve=0, senders=2) as actor:
        tasks = post(actor, far, range(10))
        await until(lambda: actor.report().in_flight == 2 and actor.report().waiting == 8)
        claim = asyncio.create_task(actor.acquire(8).__aenter__())
        beyond = post(actor, far, range(10, 20))
        await asyncio.sleep(0)
        assert not claim.done()
        assert actor.report().waiting == 8
        checks.gate.set()
        permits = await asyncio.wait_for(claim, LONGEST)
        assert permits.size >= 2
        kept = [
            asyncio.create_task(send_on(permits, message(far, 99))) for _ in range(permits.size)
        ]
        settlements = await asyncio.gather(*tasks, *beyond, *kept)
    assert {type(each.outcome) for each in settlements} == {Sent}
    assert far.received == len(settlements)


# Crashes.


async def test_a_message_that_crashes_its_sender_takes_no_other_down(
    far: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    far.plays(Case.ACCEPT)
    async with actor_of(far, senders=2) as actor:
        transmit = actor.transmit

        async def poisoned(connection: Any, envelope: Envelope) -> SendResult | RetryNow:
            if envelope.message.delivery_id == 3:
                raise ValueError("poison")
            return await transmit(connection, envelope)

        monkeypatch.setattr(actor, "transmit", poisoned)
        settlements = await asyncio.gather(*post(actor, far, range(10)))
    outcomes = [each.outcome for each in settlements]
    assert outcomes.pop(3) == Deferred("actor_crashed")
    assert {type(each) for each in outcomes} == {Sent}


async def test_an_actor_that_keeps_crashing_gives_back_its_messages_and_is_started_again(
    far: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    far.plays(Case.ACCEPT)
    async with actor_of(far) as actor:
        with monkeypatch.context() as broken:
            broken.setattr(actor, "prepare", None)
            settlements = await asyncio.gather(*post(actor, far, range(6)))
        outcomes = [each.outcome for each in settlements]
        assert outcomes[:2] == [Deferred("actor_crashed")] * 2
        assert all(isinstance(each, Unsent) for each in outcomes[2:])
        async with asyncio.timeout(LONGEST):
            assert isinstance((await send_by(actor, message(far))).outcome, Sent)
    assert far.received == 1


# Stopping.


async def test_a_stop_reports_of_each_message_how_far_it_came(far: FarEnd) -> None:
    far.plays(Case.HANG)
    actor = far.actor(presend_check=Checks(far).presend_check, senders=1)
    await actor.start()
    sent, *waiting = post(actor, far, range(4))
    await until(lambda: far.received == 1)
    await actor.stop(grace=0.05)
    assert (await sent).outcome == Unknown("shutdown")
    assert [(await each).outcome for each in waiting] == [Unsent("shutdown")] * 3
    assert (await send_by(actor, message(far, 9))).outcome == Unsent("shutdown")


async def test_stopping_lets_finish_what_is_being_sent(far: FarEnd) -> None:
    far.plays(Case.ACCEPT)
    checks = Checks(far)
    checks.gate.clear()
    actor = far.actor(presend_check=checks.presend_check, senders=1)
    await actor.start()
    (sending,) = post(actor, far, range(1))
    await until(lambda: actor.report().in_flight == 1)
    stopping = asyncio.create_task(actor.stop(grace=LONGEST))
    checks.gate.set()
    await stopping
    assert isinstance((await sending).outcome, Sent)
