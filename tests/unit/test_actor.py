"""The machinery of actors: order, permits and the presend check."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tests.support.scripted_actor import (
    NOW,
    Checks,
    Connection,
    ScriptedActor,
    message,
    post,
    running,
)
from tests.support.sending import send_by, send_on
from tests.support.services import LONGEST, until
from tocsin.engine.actors.machinery.envelope import Envelope, RetryNow, SendResult
from tocsin.engine.model import (
    CheckResult,
    DeliveryState,
    Message,
    Priority,
    Sent,
    Settlement,
    Unsent,
    Withheld,
)


async def test_a_message_is_settled_with_its_outcome_and_check_result() -> None:
    async with running(ScriptedActor(Checks(), lambda _: Sent("queue-1"))) as actor:
        settlement = await send_by(actor, message(1))
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
            await send_on(permits, message(1))
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
        await send_by(actor, message(2))
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
        young = await send_on(permits, message(1), check_result=seen, age=0.01)
        old = await send_on(permits, message(2), check_result=seen, age=0.21)
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
            *(send_on(permits, message(i), check_result=seen, age=1.0) for i in range(20))
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
        settlement = await send_by(actor, message(1))
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
        settlement = await send_by(actor, message(1))
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
        settlement = await send_by(actor, message(1))
        checks.error = None
        assert settlement.outcome == Unsent("look_failed", 1.0)
        assert (await send_by(actor, message(2))).outcome == Sent()


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
