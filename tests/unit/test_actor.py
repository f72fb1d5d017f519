"""The actor, with a provider made of futures: order, permits, presend check, breaker, crashes, stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from tests.support.services import LONGEST, until
from tocsin.engine.actors.machinery.base import Actor
from tocsin.engine.actors.machinery.breaker import Breaker, BreakerState
from tocsin.engine.actors.machinery.envelope import Envelope, RetryNow, SendResult
from tocsin.engine.model import (
    Channel,
    CheckResult,
    Deferred,
    DeliveryState,
    Mail,
    Message,
    Priority,
    Rejected,
    Sent,
    Settlement,
    Unknown,
    Unsent,
    Withheld,
)

pytestmark = pytest.mark.asyncio

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def message(delivery_id: int, priority: Priority = Priority.NORMAL) -> Message:
    mail = Mail(f"<{delivery_id}@example.test>", "Subject", "text", "<p>html</p>")
    return Message(delivery_id, UUID(int=delivery_id), Channel.EMAIL, priority, mail)


class Checks:
    """The presend check: passes all but those named, and keeps which it checked."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.withheld: dict[int, Withheld] = {}
        self.gone: set[int] = set()
        self.error: Exception | None = None

    async def presend_check(self, messages: Sequence[Message]) -> dict[int, CheckResult]:
        self.calls.append([each.delivery_id for each in messages])
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        return {
            each.delivery_id: CheckResult(
                each.delivery_id,
                f"{each.delivery_id}@example.test",
                NOW,
                self.withheld.get(each.delivery_id),
            )
            for each in messages
            if each.delivery_id not in self.gone
        }


class Connection:
    open = True


Script = Callable[[Envelope], Any]


class ScriptedActor(Actor[Connection]):
    """Answers what its script says; an awaitable is waited for after the first byte."""

    def __init__(self, checks: Checks, script: Script = lambda _: Sent(), **options: Any) -> None:
        super().__init__(name="scripted", presend_check=checks.presend_check, **options)
        self.script = script
        self.refuse: Deferred | None = None
        self.order: list[int] = []
        self.opened = self.closed = 0
        self.gate: asyncio.Event | None = None  # holds up the connection

    async def prepare(self, connection: Connection | None) -> Connection | Deferred:
        if self.gate:
            await self.gate.wait()
        if self.refuse:
            return self.refuse
        if connection is None:
            self.opened += 1
        return connection or Connection()

    async def transmit(self, connection: Connection, envelope: Envelope) -> SendResult | RetryNow:
        if not envelope.begin():
            return RetryNow(keep_connection=True)
        self.order.append(envelope.message.delivery_id)
        answer = self.script(envelope)
        if asyncio.iscoroutine(answer) or asyncio.isfuture(answer):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, SendResult | RetryNow) else SendResult(answer)

    async def discard(self, connection: Connection) -> None:
        self.closed += 1


@asynccontextmanager
async def running(actor: ScriptedActor) -> AsyncIterator[ScriptedActor]:
    await actor.start()
    try:
        yield actor
    finally:
        await actor.stop(grace=0)


def post(actor: ScriptedActor, *messages: Message) -> list[asyncio.Task[Settlement]]:
    return [asyncio.create_task(actor.send(each)) for each in messages]


async def test_a_message_is_settled_with_its_outcome_and_check_result() -> None:
    async with running(ScriptedActor(Checks(), lambda _: Sent("queue-1"))) as actor:
        settlement = await actor.send(message(1))
    assert settlement.outcome == Sent("queue-1")
    assert settlement.check_result is not None
    assert settlement.check_result.address == "1@example.test"


# Order and permits.


async def test_higher_priority_leaves_first_and_equals_in_order() -> None:
    actor = ScriptedActor(Checks(), senders=1)
    low, high = Priority.LOW, Priority.HIGH
    tasks = post(actor, message(1), message(2, low), message(3, high), message(4), message(5, high))
    await until(lambda: actor.report().waiting == 5)
    async with running(actor):
        await asyncio.gather(*tasks)
    assert actor.order == [3, 5, 1, 4, 2]


async def test_permits_are_given_only_as_far_as_the_mailbox_has_room() -> None:
    actor = ScriptedActor(Checks(), size=8, reserve=2)
    async with actor.acquire(100) as permits:
        assert permits.size == 8
        second = asyncio.create_task(actor.acquire(100).__aenter__())
        await asyncio.sleep(0)
        assert not second.done()
    assert (await second).size == 8


async def test_a_normal_claim_waits_until_room_is_worth_it() -> None:
    actor = ScriptedActor(Checks(), size=8, reserve=0, senders=1)
    tasks = post(actor, *map(message, range(8)))
    await until(lambda: actor.report().waiting == 8)
    claim = asyncio.create_task(actor.acquire(100).__aenter__())
    async with running(actor):
        permits = await claim
    assert permits.size >= 2
    await asyncio.gather(*tasks)


async def test_high_priority_has_room_behind_a_full_mailbox() -> None:
    actor = ScriptedActor(Checks(), size=2, reserve=1)
    post(actor, message(1), message(2))
    await until(lambda: actor.report().waiting == 2)
    async with asyncio.timeout(LONGEST), actor.acquire(5, Priority.HIGH) as permits:
        assert permits.size == 1


async def test_unused_permits_are_free_again() -> None:
    actor = ScriptedActor(Checks(), size=4)
    async with running(actor):
        async with actor.acquire(4) as permits:
            await permits.send(message(1))
        async with asyncio.timeout(LONGEST), actor.acquire(4) as permits:
            assert permits.size == 4


async def test_more_messages_than_permits_are_taken_and_the_next_claim_waits() -> None:
    actor = ScriptedActor(Checks(), size=4, reserve=0, senders=1)
    settled: list[Settlement] = []
    async with actor.acquire(4) as permits:
        for number in range(6):
            permits.submit(message(number), settled.append)
    waiting = asyncio.create_task(actor.acquire(4).__aenter__())
    await asyncio.sleep(0)
    assert not waiting.done()
    async with running(actor):
        await waiting
        await until(lambda: len(settled) == 6)
    assert actor.order == list(range(6))


async def test_a_cancelled_claim_keeps_no_permit() -> None:
    actor = ScriptedActor(Checks(), size=4, reserve=0)
    async with actor.acquire(4):
        waiting = asyncio.create_task(actor.acquire(4).__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(LONGEST), actor.acquire(4) as permits:
        assert permits.size == 4


async def test_a_cancelled_send_is_not_sent() -> None:
    actor = ScriptedActor(Checks(), senders=1, size=1)
    (task,) = post(actor, message(1))
    await until(lambda: actor.report().waiting == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with running(actor):
        await actor.send(message(2))
    assert actor.order == [2]


# The presend check.


async def test_senders_share_one_check() -> None:
    checks = Checks()
    actor = ScriptedActor(checks, senders=4)
    tasks = post(actor, *map(message, range(4)))
    await until(lambda: actor.report().waiting == 4)
    async with running(actor):
        await asyncio.gather(*tasks)
    assert [sorted(batch) for batch in checks.calls] == [[0, 1, 2, 3]]


async def test_a_check_covers_those_next_in_line() -> None:
    checks = Checks()
    actor = ScriptedActor(checks, senders=2, check_ahead=16)
    tasks = post(actor, *map(message, range(32)))
    await until(lambda: actor.report().waiting == 32)
    async with running(actor):
        await asyncio.gather(*tasks)
    assert [len(batch) for batch in checks.calls] == [16, 16]


async def test_a_check_that_is_too_old_is_repeated() -> None:
    now = 0.0
    checks = Checks()

    def script(envelope: Envelope) -> Sent:
        nonlocal now
        now += 0.15
        return Sent()

    actor = ScriptedActor(checks, script, senders=1, clock=lambda: now)
    tasks = post(actor, *map(message, range(3)))
    await until(lambda: actor.report().waiting == 3)
    async with running(actor):
        await asyncio.gather(*tasks)
    assert checks.calls == [[0, 1, 2], [2]]


async def test_the_check_of_a_claim_is_enough_for_what_leaves_at_once() -> None:
    checks = Checks()
    seen = CheckResult(1, "seen@example.test", NOW)
    async with running(ScriptedActor(checks, senders=1)) as actor, actor.acquire(2) as permits:
        young = await permits.send(message(1), check_result=seen, age=0.01)
        old = await permits.send(message(2), check_result=seen, age=0.21)
    assert checks.calls == [[2]]
    assert young.check_result == seen
    assert old.check_result is not None
    assert old.check_result.address == "2@example.test"


async def test_a_claims_check_that_was_in_vain_doesnt_shorten_the_next_ones() -> None:
    checks = Checks()
    actor = ScriptedActor(checks, senders=1)
    async with running(actor), actor.acquire(20) as permits:
        seen = CheckResult(0, "seen@example.test", NOW)
        await asyncio.gather(
            *(permits.send(message(i), check_result=seen, age=1.0) for i in range(20))
        )
    assert checks.calls == [list(range(20))]


async def test_a_pause_between_check_and_first_byte_means_another_check() -> None:
    now = 0.0
    checks = Checks()

    class Paused(ScriptedActor):
        async def transmit(
            self, connection: Connection, envelope: Envelope
        ) -> SendResult | RetryNow:
            nonlocal now
            now += 0.3 if len(checks.calls) == 1 else 0.0  # SIGSTOP, right before the first byte
            return await super().transmit(connection, envelope)

    async with running(Paused(checks, clock=lambda: now)) as actor:
        settlement = await actor.send(message(1))
    assert settlement.outcome == Sent()
    assert checks.calls == [[1], [1]]


async def test_checks_that_are_too_slow_send_nothing() -> None:
    now = 0.0
    checks = Checks()

    class Slow(Checks):
        async def presend_check(self, messages: Sequence[Message]) -> dict[int, CheckResult]:
            nonlocal now
            now += 0.3
            return await checks.presend_check(messages)

    async with running(ScriptedActor(Slow(), clock=lambda: now)) as actor:
        settlement = await actor.send(message(1))
    assert settlement.outcome == Unsent("look_too_slow", 1.0)
    assert actor.order == []


async def test_withheld_and_lost_claims_are_not_sent() -> None:
    checks = Checks()
    withheld = checks.withheld[1] = Withheld(DeliveryState.SKIPPED, "opted_out_since")
    checks.gone.add(2)
    async with running(ScriptedActor(checks)) as actor:
        settlements = await asyncio.gather(*post(actor, message(1), message(2), message(3)))
    assert [each.outcome for each in settlements] == [
        withheld,
        Withheld(None, "claim_lost"),
        Sent(),
    ]
    assert actor.order == [3]


async def test_a_check_that_fails_costs_no_attempt() -> None:
    checks = Checks()
    checks.error = ConnectionError("server closed the connection")
    async with running(ScriptedActor(checks)) as actor:
        settlement = await actor.send(message(1))
        checks.error = None
        assert settlement.outcome == Unsent("look_failed", 1.0)
        assert (await actor.send(message(2))).outcome == Sent()


async def test_connecting_comes_before_the_check() -> None:
    checks = Checks()
    actor = ScriptedActor(checks)
    actor.gate = asyncio.Event()
    async with running(actor):
        (task,) = post(actor, message(1))
        await until(lambda: actor.report().in_flight == 1)
        assert checks.calls == []
        actor.gate.set()
        await task
    assert checks.calls == [[1]]


async def test_pacing_spaces_messages() -> None:
    actor = ScriptedActor(Checks(), rate=50.0)
    started = asyncio.get_running_loop().time()
    async with running(actor):
        await asyncio.gather(*post(actor, *map(message, range(6))))
    assert asyncio.get_running_loop().time() - started >= 5 / 50


# Connections.


async def test_a_connection_is_used_again_and_given_up_when_idle() -> None:
    actor = ScriptedActor(Checks(), senders=1, idle=0.02)
    async with running(actor):
        for number in range(3):
            await actor.send(message(number))
        assert (actor.opened, actor.closed) == (1, 0)
        await until(lambda: actor.closed == 1)


async def test_a_retry_without_keeping_takes_a_new_connection() -> None:
    answers = iter([RetryNow(keep_connection=False), Sent()])
    async with running(ScriptedActor(Checks(), lambda _: next(answers), senders=1)) as actor:
        settlement = await actor.send(message(1))
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
        assert (await actor.send(message(1))).outcome == outcome
        assert (actor.opened, actor.closed) == (1, 1)


async def test_each_sender_has_a_deadline_of_its_own() -> None:
    def script(envelope: Envelope) -> Any:
        hangs = envelope.message.delivery_id in {1, 4}
        return hang(envelope, committed=False) if hangs else asyncio.sleep(0.002, Sent())

    actor = ScriptedActor(Checks(), script, senders=2, deadline=0.05)
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
            finally:  # says goodbye at length
                self.closing = True
                await asyncio.sleep(0.05)

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
        await actor.send(message(1))
        async with actor.acquire(10) as permits:
            assert permits.size == 0
            assert 10 < permits.retry_after <= 30
        assert isinstance((await actor.send(message(2))).outcome, Unsent)


async def test_a_claim_that_waits_gets_no_permit_when_the_breaker_opens() -> None:
    breaker = Breaker(threshold=1, first=30, most=30)
    actor = ScriptedActor(Checks(), size=1, reserve=0, breaker=breaker)
    async with actor.acquire(1):
        claim = asyncio.create_task(actor.acquire(1).__aenter__())
        await asyncio.sleep(0)
        assert not claim.done()
        actor._admission.failed("down")
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
            await permits.send(message(1))
            actor.refuse = None
            await until(lambda: not broken(actor))
            tasks = [asyncio.create_task(permits.send(message(number))) for number in range(2, 6)]
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
        await actor.send(message(1))
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
        assert (await actor.send(message(1))).outcome == Unknown("actor_crashed")


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
    answer: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
    actor = ScriptedActor(Checks(), lambda _: answer, senders=1)
    await actor.start()
    tasks = post(actor, message(1), message(2))
    await until(lambda: actor.order == [1])
    stopping = asyncio.create_task(actor.stop(grace=5))
    assert (await tasks[1]).outcome == Unsent("shutdown")
    answer.set_result(Sent())
    await stopping
    assert (await tasks[0]).outcome == Sent()
    assert (await actor.send(message(3))).outcome == Unsent("shutdown")
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
