"""The rate of a channel: workers that share its slots send no more than it, in any time, and lose none of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from random import Random

import pytest

from tests.support.scripted_actor import Checks, ScriptedActor, message, post, running
from tocsin.engine.actors.machinery.shared_limits import BLOCK, EXPIRES, SendRate
from tocsin.engine.model import Priority, Sent, Unavailable

RATE = 20.0


class Time:
    """The clock of the running loop and of the database; it stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0
        setattr(asyncio.get_running_loop(), "time", self)  # noqa: B010 - mypy knows a method there

    def __call__(self) -> float:
        return self.now

    async def pass_by(self, seconds: float, step: float = 0.005) -> None:
        for _ in range(round(seconds / step)):
            self.now += step
            for _ in range(5):
                await asyncio.sleep(0)


class Slots:
    """As `tocsin.take_slots` gives them."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._next = 0.0
        self.blocks: list[int] = []
        self.failures = 0

    async def take(self, count: int, gap: float) -> float:
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise Unavailable("down")
        self.blocks.append(count)
        first = max(self._next, self._now() - BLOCK / 2)
        self._next = first + count * gap
        return first - self._now()


async def work(rate: SendRate, time: Time, sent: list[float], random: Random) -> None:
    """Sends without end, with pauses of all lengths, as a worker does."""
    while True:
        count = random.choice((1, 2, 5, 40))
        for left in range(count, 0, -1):
            await rate.next(sending(sent, time), partial(int, left + 4))  # some go elsewhere
        await asyncio.sleep(random.choice((0.0, 0.01, 0.2, 1.0)))


def sending(sent: list[float], now: Callable[[], float]) -> Callable[[], bool]:
    """Returns what sends a message: notes when."""

    def send() -> bool:
        sent.append(now())
        return True

    return send


def most_within(times: list[float], seconds: float) -> int:
    return max(sum(start <= each <= start + seconds for each in times) for start in times)


@pytest.mark.parametrize("seed", range(5))
async def test_three_workers_together_send_no_more_than_the_rate_in_any_time(seed: int) -> None:
    time, sent = Time(), list[float]()
    slots = Slots(time)
    tasks = [
        asyncio.create_task(
            work(SendRate(RATE, slots.take, clock=time), time, sent, Random(seed * 10 + worker))
        )
        for worker in range(3)
    ]
    await time.pass_by(4)
    tasks.pop().cancel()  # killed: its slots expire
    await time.pass_by(6)
    for task in tasks:
        task.cancel()
    for seconds in (0.0, 0.1, 0.5, 1.0, 3.0):
        assert most_within(sent, seconds) <= RATE * (seconds + EXPIRES) + 1


async def test_a_busy_worker_uses_the_whole_rate_with_few_statements() -> None:
    time, sent = Time(), list[float]()
    slots = Slots(time)
    rate = SendRate(RATE, slots.take, clock=time)

    async def send() -> None:
        while True:
            await rate.next(sending(sent, time), lambda: 100)

    task = asyncio.create_task(send())
    await time.pass_by(10)
    task.cancel()
    assert RATE * 10 <= len(sent) <= RATE * (10 + EXPIRES) + 1
    assert set(slots.blocks) == {RATE * BLOCK}
    assert len(slots.blocks) <= 10 / BLOCK + 2


async def test_slots_are_asked_for_again_while_the_database_is_unavailable() -> None:
    time, sent = Time(), list[float]()
    slots = Slots(time)
    slots.failures = 3
    rate = SendRate(RATE, slots.take, clock=time)
    task = asyncio.create_task(rate.next(sending(sent, time), lambda: 1))
    await time.pass_by(1)
    assert not sent
    await time.pass_by(1)
    assert task.done()
    assert len(sent) == 1


async def test_an_urgent_message_gets_the_next_slot_although_others_came_before() -> None:
    time = Time()
    actor = ScriptedActor(Checks(), rate=SendRate(1.0, Slots(time).take, clock=time), clock=time)
    async with running(actor):
        tasks = post(actor, *map(message, range(1, 6)))
        await time.pass_by(1.5)
        first = len(actor.order)
        tasks += post(actor, message(9, Priority.HIGH))
        await time.pass_by(8)
        settled = [(await task).outcome for task in tasks]
    assert 0 < first < 5
    assert actor.order[first] == 9
    assert settled == [Sent()] * 6


async def test_a_worker_that_waits_for_a_slot_stops_at_once() -> None:
    time = Time()
    rate = SendRate(1 / 3600, Slots(time).take, clock=time)
    actor = ScriptedActor(Checks(), rate=rate, clock=time)
    await actor.start()
    tasks = post(actor, *map(message, range(1, 4)))
    await time.pass_by(1)
    stopping = asyncio.create_task(actor.stop(grace=1000.0))
    await time.pass_by(0.1)
    assert stopping.done()
    outcomes = [str((await task).outcome) for task in tasks]
    assert [each for each in outcomes if "shutdown" in each] == outcomes[1:]


async def test_a_claim_waits_for_a_slow_rate_as_long_as_it_takes() -> None:
    time = Time()
    rate = SendRate(0.1, Slots(time).take, clock=time)
    actor = ScriptedActor(Checks(), rate=rate, senders=2, clock=time)
    async with running(actor):
        tasks = post(actor, *map(message, range(1, 8)))
        await time.pass_by(80, step=0.1)
        assert [(await task).outcome for task in tasks] == [Sent()] * 7
