"""Pauses that providers asked one worker for hold all of them, and are shared once."""

from __future__ import annotations

import asyncio

from tests.support.scripted_actor import Checks, ScriptedActor, message, running
from tests.support.sending import send_by
from tocsin.engine.actors.machinery.envelope import SendResult
from tocsin.engine.actors.machinery.shared_limits import Holds, target_key
from tocsin.engine.model import Deferred, SendHold, Sent, Unavailable, Unsent

SECONDS = 60.0


class Shared:
    """The other workers, which learn what is shared."""

    def __init__(self) -> None:
        self.holds: list[SendHold] = []
        self.failing = False

    async def store(self, hold: SendHold) -> None:
        await asyncio.sleep(0)
        if self.failing:
            raise Unavailable("down")
        self.holds.append(hold)


async def test_a_pause_that_one_worker_was_asked_for_stops_another_one() -> None:
    shared = Shared()
    over_quota = SendResult(Deferred("over_quota", SECONDS), pause=SECONDS)
    first = ScriptedActor(Checks(), lambda _: over_quota, holds=Holds(shared.store))
    second = ScriptedActor(Checks(), holds=Holds())
    async with running(first), running(second):
        await send_by(first, message(1))
        await asyncio.sleep(0.01)
        assert shared.holds == [SendHold("scripted", "over_quota", SECONDS)]
        second.holds.learn(shared.holds)
        settlement = await send_by(second, message(2))
    outcome = settlement.outcome
    assert isinstance(outcome, Unsent)
    assert (outcome.reason, second.order) == ("circuit_open", [])
    assert SECONDS - 5 < outcome.retry_after <= SECONDS * 1.1
    assert second.report().breaker_reason == "over_quota"


async def test_a_pause_that_is_known_already_changes_nothing() -> None:
    async with running(ScriptedActor(Checks())) as actor:
        for _ in range(3):
            actor.holds.learn([SendHold("scripted", "over_quota", 0.5)])
        wait = actor.breaker.retry_after
        actor.holds.learn([SendHold("other", "over_quota", SECONDS)])
        assert actor.breaker.retry_after <= wait
        assert (await send_by(actor, message(1))).outcome != Sent()


async def test_a_hold_is_shared_again_only_where_it_becomes_longer() -> None:
    shared = Shared()
    now = [1000.0]
    holds = Holds(shared.store, clock=lambda: now[0])
    for seconds in (10.0, 10.2, 5.0, 20.0):
        holds.add(SendHold("a", "429", seconds))
    await asyncio.sleep(0.01)
    assert [each.seconds for each in shared.holds] == [10.0, 20.0]
    assert holds.left("a", "b") == 20.0
    assert holds.left("b") == 0.0
    now[0] += 21
    assert holds.left("a") == 0.0
    holds.add(SendHold("a", "429", 0.4))
    await asyncio.sleep(0.01)
    assert holds.left("a") > 0.3
    assert len(shared.holds) == 3


async def test_what_could_not_be_shared_is_shared_with_the_next_response() -> None:
    shared = Shared()
    shared.failing = True
    holds = Holds(shared.store)
    holds.add(SendHold("a", "429", 10.0))
    await asyncio.sleep(0.01)
    assert holds.left("a") > 9
    shared.failing = False
    holds.add(SendHold("a", "429", 10.0))
    await asyncio.sleep(0.01)
    assert len(shared.holds) == 1


def test_the_key_of_a_target_does_not_show_its_address() -> None:
    address = "https://hooks.slack.com/services/T0/B0/secret"
    key = target_key("chat", address)
    assert key == target_key("chat", address)
    assert key != target_key("chat", address + "x")
    assert "secret" not in key
