"""The machinery of actors where a provider fails: connections, deadlines, the breaker, crashes, stopping."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.scripted_actor import Checks, Connection, ScriptedActor, message, post, running
from tests.support.sending import send_by, send_on
from tests.support.services import LONGEST, until
from tocsin.engine.actors.machinery.breaker import Breaker, BreakerState
from tocsin.engine.actors.machinery.envelope import Envelope, RetryNow, SendResult
from tocsin.engine.model import (
    Deferred,
    Rejected,
    Sent,
    Unknown,
    Unsent,
)

# Connections.


async def test_a_connection_is_used_again_and_given_up_when_idle() -> None:
    actor = ScriptedActor(Checks(), senders=1, idle=0.02)
    async with running(actor):
        for number in range(3):
            await send_by(actor, message(number))
        assert (actor.opened, actor.closed) == (1, 0)
        await until(lambda: actor.closed == 1)


async def test_a_retry_without_keeping_takes_a_new_connection() -> None:
    results = iter([RetryNow(keep_connection=False), Sent()])
    async with running(ScriptedActor(Checks(), lambda _: next(results), senders=1)) as actor:
        settlement = await send_by(actor, message(1))
    assert settlement.outcome == Sent()
    assert (actor.opened, actor.closed) == (2, 2)


# The deadline.


async def hang(envelope: Envelope, *, committed: bool) -> Sent:
    if committed:
        envelope.commit()
    await asyncio.Event().wait()
    return Sent()


@pytest.mark.parametrize(
    ("committed", "outcome"), [(False, Deferred("timeout")), (True, Unknown("timeout"))]
)
async def test_the_deadline_ends_a_send_by_how_far_it_came(
    committed: bool, outcome: Deferred | Unknown
) -> None:
    actor = ScriptedActor(Checks(), lambda each: hang(each, committed=committed), deadline=0.02)
    async with running(actor):
        assert (await send_by(actor, message(1))).outcome == outcome
        assert (actor.opened, actor.closed) == (1, 1)


async def test_each_sender_has_a_deadline_of_its_own() -> None:
    def script(envelope: Envelope) -> Any:
        hangs = envelope.message.delivery_id in {1, 4}
        return hang(envelope, committed=False) if hangs else asyncio.sleep(0.002, Sent())

    actor = ScriptedActor(Checks(), script, senders=2, deadline=1.0)
    async with running(actor):
        settlements = await asyncio.gather(*post(actor, *map(message, range(1, 41))))
    late = [number for number, each in enumerate(settlements, 1) if each.outcome != Sent()]
    assert late == [1, 4]
    assert {settlements[0].outcome, settlements[3].outcome} == {Deferred("timeout")}


async def test_one_that_hangs_delays_no_other() -> None:
    def script(envelope: Envelope) -> Any:
        return hang(envelope, committed=True) if envelope.message.delivery_id == 1 else Sent()

    actor = ScriptedActor(Checks(), script, senders=2)
    async with running(actor):
        hanging, *others = post(actor, *map(message, range(1, 41)))
        await asyncio.gather(*others)
        assert not hanging.done()
        await actor.stop(grace=0)
        assert (await hanging).outcome == Unknown("shutdown")


async def test_a_stop_in_the_middle_of_a_timeout_still_stops() -> None:
    class Clinging(ScriptedActor):
        closing = False

        async def transmit(
            self, connection: Connection, envelope: Envelope
        ) -> SendResult | RetryNow:
            try:
                return await super().transmit(connection, envelope)
            finally:  # closes until it is cancelled
                self.closing = True
                await asyncio.sleep(60)

    actor = Clinging(Checks(), lambda each: hang(each, committed=False), deadline=0.01)
    await actor.start()
    (task,) = post(actor, message(1))
    await until(lambda: actor.closing)
    await actor.stop(grace=0)
    assert (await task).outcome == Unsent("shutdown")


# The breaker.


def broken(actor: ScriptedActor) -> bool:
    return actor.breaker.state is BreakerState.OPEN


async def test_five_failures_of_the_provider_open_the_breaker_and_return_what_waits() -> None:
    actor = ScriptedActor(Checks(), senders=1, breaker=Breaker(first=30, most=30))
    actor.refuse = Deferred("connect_refused")
    tasks = post(actor, *map(message, range(8)))
    await until(lambda: actor.report().waiting == 8)
    async with running(actor):
        settlements = await asyncio.gather(*tasks)
    outcomes = [each.outcome for each in settlements]
    assert outcomes[:5] == [Deferred("connect_refused")] * 5
    for outcome in outcomes[5:]:
        assert isinstance(outcome, Unsent)
        assert outcome.reason == "circuit_open"
        assert 10 < outcome.retry_after <= 30
    assert actor.report().breaker_reason == "connect_refused"


async def test_refusals_of_single_messages_leave_the_breaker_closed() -> None:
    async with running(ScriptedActor(Checks(), lambda _: Rejected("no_such_user"))) as actor:
        await asyncio.gather(*post(actor, *map(message, range(20))))
        assert actor.report().breaker is BreakerState.CLOSED


async def test_an_open_breaker_gives_no_permit_and_refuses_at_once() -> None:
    actor = ScriptedActor(Checks(), senders=1, breaker=Breaker(threshold=1, first=30, most=30))
    actor.refuse = Deferred("down")
    async with running(actor):
        await send_by(actor, message(1))
        async with actor.acquire(10) as permits:
            assert permits.size == 0
            assert 10 < permits.retry_after <= 30
        assert isinstance((await send_by(actor, message(2))).outcome, Unsent)


async def test_a_claim_that_waits_gets_no_permit_when_the_breaker_opens() -> None:
    breaker = Breaker(threshold=1, first=30, most=30)
    actor = ScriptedActor(Checks(), size=1, reserve=0, breaker=breaker)
    async with actor.acquire(1):
        claim = asyncio.create_task(actor.acquire(1).__aenter__())
        await asyncio.sleep(0)
        assert not claim.done()
        actor.admission.failed("down")
        permits = await claim
    assert (permits.size, permits.retry_after > 10) == (0, True)


async def test_a_claim_gets_no_permit_while_the_provider_makes_no_progress() -> None:
    now = 0.0
    actor = ScriptedActor(
        Checks(),
        lambda each: hang(each, committed=True),
        size=1,
        reserve=0,
        senders=1,
        clock=lambda: now,
    )
    async with running(actor):
        post(actor, message(1), message(2))
        await until(lambda: (actor.report().in_flight, actor.report().waiting) == (1, 1))
        now = 3.0
        async with asyncio.timeout(LONGEST), actor.acquire(1) as permits:
            assert (permits.size, permits.retry_after) == (0, 1.0)


async def test_half_open_lets_one_probe_through_and_a_success_closes_it() -> None:
    probe: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
    actor = ScriptedActor(Checks(), lambda _: probe, breaker=Breaker(threshold=1, first=0.02))
    actor.refuse = Deferred("down")
    async with running(actor):
        async with actor.acquire(10) as permits:  # held from before it opened
            await send_on(permits, message(1))
            actor.refuse = None
            await until(lambda: not broken(actor))
            tasks = [
                asyncio.create_task(send_on(permits, message(number))) for number in range(2, 6)
            ]
            await until(lambda: actor.order)
            assert (actor.report().in_flight, actor.report().waiting) == (1, 3)
            assert actor.report().breaker is BreakerState.HALF_OPEN
            probe.set_result(Sent())
            await asyncio.gather(*tasks)
        assert actor.report().breaker is BreakerState.CLOSED


async def test_half_open_gives_one_permit() -> None:
    actor = ScriptedActor(Checks(), breaker=Breaker(threshold=1, first=0.02))
    actor.refuse = Deferred("down")
    async with running(actor):
        await send_by(actor, message(1))
        await until(lambda: not broken(actor))
        async with actor.acquire(10) as permits, actor.acquire(10) as other:
            assert (permits.size, other.size) == (1, 0)
            assert other.retry_after > 0


# Crashes.


async def test_a_poison_message_takes_no_other_down() -> None:
    def script(envelope: Envelope) -> Sent | Exception:
        return ValueError("poison") if envelope.message.delivery_id % 5 == 0 else Sent()

    async with running(ScriptedActor(Checks(), script, senders=2)) as actor:
        settlements = await asyncio.gather(*post(actor, *map(message, range(1, 21))))
    reasons = [getattr(each.outcome, "reason", "sent") for each in settlements]
    assert [number for number, reason in enumerate(reasons, 1) if reason == "actor_crashed"] == [
        5,
        10,
        15,
        20,
    ]
    assert reasons.count("sent") == 16


async def test_a_crash_after_the_body_leaves_the_outcome_unknown() -> None:
    def script(envelope: Envelope) -> Exception:
        envelope.commit()
        return ValueError("bug")

    async with running(ScriptedActor(Checks(), script)) as actor:
        assert (await send_by(actor, message(1))).outcome == Unknown("actor_crashed")


async def test_messages_are_returned_while_all_senders_pause() -> None:
    actor = ScriptedActor(Checks(), lambda _: ValueError("bug"), senders=1)
    tasks = post(actor, *map(message, range(3)))
    await until(lambda: actor.report().waiting == 3)
    async with running(actor):
        settlements = await asyncio.gather(*tasks)
    assert [each.outcome for each in settlements[:2]] == [Deferred("actor_crashed")] * 2
    assert isinstance(settlements[2].outcome, Unsent)


# Stopping.


async def test_stop_finishes_what_is_being_sent_and_returns_what_waits() -> None:
    result: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
    actor = ScriptedActor(Checks(), lambda _: result, senders=1)
    await actor.start()
    tasks = post(actor, message(1), message(2))
    await until(lambda: actor.order == [1])
    stopping = asyncio.create_task(actor.stop(grace=5))
    assert (await tasks[1]).outcome == Unsent("shutdown")
    result.set_result(Sent())
    await stopping
    assert (await tasks[0]).outcome == Sent()
    assert (await send_by(actor, message(3))).outcome == Unsent("shutdown")
    assert actor.opened == actor.closed


@pytest.mark.parametrize(
    ("committed", "outcome"), [(False, Unsent("shutdown")), (True, Unknown("shutdown"))]
)
async def test_what_outlasts_the_grace_is_cut_off(
    committed: bool, outcome: Unsent | Unknown
) -> None:
    actor = ScriptedActor(Checks(), lambda each: hang(each, committed=committed))
    await actor.start()
    (task,) = post(actor, message(1))
    await until(lambda: actor.order)
    await actor.stop(grace=0.01)
    assert (await task).outcome == outcome
    assert actor.opened == actor.closed
