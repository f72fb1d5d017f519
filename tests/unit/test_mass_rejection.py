"""Mass rejection, with each actor and its far end: many rejections in a row, without a success, cost no address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from tests.support.far_ends import Apns, Case, Email, FarEnd, Fcm
from tests.support.loop_clock import LoopClock
from tests.support.sending import send_by
from tests.support.services import LONGEST, until
from tocsin.engine.actors.machinery.base import Actor
from tocsin.engine.actors.machinery.breaker import Breaker, BreakerState
from tocsin.engine.model import (
    Channel,
    CheckResult,
    Message,
    Outcome,
    Priority,
    Rejected,
    Sent,
    Settlement,
    Unsent,
)

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


class Mails(Email):
    """Counts what is refused before its body, too."""

    @property
    def received(self) -> int:
        return self._script.commands.count("RCPT")


@pytest.fixture(params=[Apns, Fcm, Mails], ids=["apns", "fcm", "email"])
async def far(request: pytest.FixtureRequest) -> AsyncIterator[FarEnd]:
    kind: type[FarEnd] = request.param
    async with kind() as far:
        yield far


async def presend_check(messages: Sequence[Message]) -> dict[int, CheckResult]:
    """Each message has a device or a mailbox of its own."""
    return {
        each.delivery_id: CheckResult(
            each.delivery_id,
            f"{each.delivery_id:064x}" + "@example.test" * (each.channel is Channel.EMAIL),
            NOW,
        )
        for each in messages
    }


@asynccontextmanager
async def actor_of(far: FarEnd, **options: Any) -> AsyncIterator[Actor[Any]]:
    settings: dict[str, Any] = {"breaker": Breaker(first=30, most=30), "hold": 60.0, "timeout": 5.0}
    actor = far.actor(presend_check=presend_check, **(settings | options))
    await actor.start()
    try:
        yield actor
    finally:
        await actor.stop(grace=0.05)


def elsewhere(far: FarEnd) -> Case:
    """An address is refused as another app's; a mailbox, which can't be, as dead."""
    return Case.DEAD if Case.ELSEWHERE in far.lacks else Case.ELSEWHERE


def message(far: FarEnd, number: int) -> Message:
    channel = Channel.EMAIL if isinstance(far, Mails) else Channel.PUSH
    return Message(number, UUID(int=number), channel, Priority.NORMAL, far.content)


def post(actor: Actor[Any], far: FarEnd, numbers: range) -> list[asyncio.Task[Settlement]]:
    return [asyncio.create_task(send_by(actor, message(far, number))) for number in numbers]


async def outcomes(*tasks: asyncio.Task[Settlement]) -> list[Outcome]:
    async with asyncio.timeout(LONGEST):
        return [settlement.outcome for settlement in await asyncio.gather(*tasks)]


async def wait_for_responses(actor: Actor[Any], far: FarEnd, count: int) -> None:
    """So many have arrived, and no sender has any in hand."""
    await until(lambda: far.received == count and not actor.report().in_flight)


@pytest.mark.parametrize("case", [Case.DEAD, Case.ELSEWHERE])
async def test_a_mass_rejection_disables_no_device_and_logs_what_to_check(
    far: FarEnd, case: Case
) -> None:
    far.plays(elsewhere(far) if case is Case.ELSEWHERE else case)
    with capture_logs() as logs:
        async with actor_of(far) as actor:
            found = await outcomes(*post(actor, far, range(60)))
            stats = actor.report()
    assert all(isinstance(each, Unsent) for each in found)
    kept = [
        each
        for each in found
        if isinstance(each, Unsent) and each.reason.endswith("_mass_rejection")
    ]
    assert len(kept) >= 10
    assert all(each.retry_after > 1 for each in kept)
    assert stats.breaker is BreakerState.OPEN
    assert stats.breaker_reason == kept[0].reason
    assert stats.advice is not None
    (line,) = [each for each in logs if each["log_level"] == "error"]
    assert line["event"] == stats.advice
    assert "TOCSIN_" in stats.advice
    assert line["addresses"] == 10


async def test_a_slow_mass_rejection_disables_few_devices(far: FarEnd) -> None:
    far.plays(elsewhere(far))
    async with actor_of(far, hold=0.001) as actor:
        found = [(await outcomes(*post(actor, far, range(n, n + 1))))[0] for n in range(12)]
    assert [type(each) for each in found] == [Rejected] * 9 + [Unsent] * 3


async def test_a_single_dead_token_is_no_mass_rejection(far: FarEnd) -> None:
    far.plays(Case.DEAD)
    async with actor_of(far, hold=0.01) as actor:
        (found,) = await outcomes(*post(actor, far, range(1)))
        assert actor.report().breaker is BreakerState.CLOSED
    assert isinstance(found, Rejected)
    assert found.address_dead


async def test_a_success_confirms_earlier_rejections(far: FarEnd) -> None:
    far.plays(elsewhere(far))
    async with actor_of(far) as actor:
        refused = post(actor, far, range(5))
        await wait_for_responses(actor, far, 5)
        assert not any(task.done() for task in refused)
        far.plays(Case.ACCEPT)
        (sent,) = await outcomes(*post(actor, far, range(5, 6)))
        found = await outcomes(*refused)
    assert isinstance(sent, Sent)
    assert all(isinstance(each, Rejected) and each.dead_since is not None for each in found)


async def test_a_list_with_every_second_token_dead_is_no_mass_rejection(far: FarEnd) -> None:
    async with actor_of(far, senders=1) as actor:
        found = []
        for number in range(60):
            far.plays(Case.DEAD if number % 2 else Case.ACCEPT)
            found += post(actor, far, range(number, number + 1))
            await wait_for_responses(actor, far, number + 1)
        far.plays(Case.ACCEPT)
        await outcomes(*post(actor, far, range(60, 61)))
        assert [type(each) for each in await outcomes(*found)] == [Sent, Rejected] * 30


async def test_probes_find_out_when_a_mass_rejection_is_over(far: FarEnd) -> None:
    far.plays(elsewhere(far))
    clock = LoopClock()
    breaker = Breaker(first=30, most=30, clock=asyncio.get_running_loop().time)

    async def until_probing() -> None:
        clock.advance(31)
        await until(lambda: breaker.state is not BreakerState.OPEN)

    async with actor_of(far, breaker=breaker, hold=3600.0) as actor:
        await outcomes(*post(actor, far, range(20)))
        for number in range(20, 23):
            await until_probing()
            arrived = far.received
            (probe,) = await outcomes(*post(actor, far, range(number, number + 1)))
            assert isinstance(probe, Unsent)
            assert probe.reason.endswith("_mass_rejection")
            assert far.received == arrived + 1
            assert actor.report().breaker is BreakerState.OPEN
        await until_probing()
        far.plays(Case.BAD)  # another refusal does not concern the devices
        (bad,) = await outcomes(*post(actor, far, range(30, 31)))
        assert isinstance(bad, Rejected)
        assert actor.report().breaker is BreakerState.HALF_OPEN
        far.plays(Case.ACCEPT)
        (probe,) = await outcomes(*post(actor, far, range(40, 41)))
        assert isinstance(probe, Sent)
        assert (actor.report().breaker, actor.report().advice) == (BreakerState.CLOSED, None)
        far.plays(Case.DEAD)
        arrived = far.received
        dead = post(actor, far, range(60, 61))
        await wait_for_responses(actor, far, arrived + 1)
        far.plays(Case.ACCEPT)
        await outcomes(*post(actor, far, range(61, 62)))
        assert isinstance((await outcomes(*dead))[0], Rejected)


async def test_stopping_returns_held_rejections(far: FarEnd) -> None:
    far.plays(elsewhere(far))
    async with actor_of(far) as actor:
        held = post(actor, far, range(3))
        await wait_for_responses(actor, far, 3)
    assert await outcomes(*held) == [Unsent("shutdown")] * 3
