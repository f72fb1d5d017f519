"""Several mail servers in a row: the next one is used only where one fails before it could have accepted a mail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from tests.support.email_actor import Checks, make_actor, message
from tests.support.loop_clock import LoopClock
from tests.support.sending import send_on
from tests.support.services import free_port, until
from tests.support.smtp_server import Scripted, raw
from tocsin.engine.actors.machinery.base import Failover
from tocsin.engine.actors.machinery.breaker import Breaker
from tocsin.engine.model import (
    CheckResult,
    Deferred,
    DeliveryState,
    Message,
    Outcome,
    PresendCheck,
    Rejected,
    Sent,
    Settlement,
    Unknown,
    Unsent,
    Withheld,
)

IN_ONE_FLIGHT = "250-server.test\r\n250 PIPELINING"
both_ways = pytest.mark.parametrize(
    "ehlo", ["250 server.test", IN_ONE_FLIGHT], ids=["one by one", "pipelined"]
)


@asynccontextmanager
async def in_a_row(
    *servers: Scripted | int,
    check: PresendCheck | None = None,
    breaker: Breaker | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Failover, list[str]]]:
    """Yields the actors of these servers, or of ports, and the names by which attempts are recorded.

    `breaker` is that of the first one.
    """
    options["presend_check"] = check or Checks().presend_check
    async with AsyncExitStack() as stack:
        ports = [
            each if isinstance(each, int) else await stack.enter_async_context(raw(each))
            for each in servers
        ]
        actors = [make_actor(ports[0], name=f"email/{ports[0]}", breaker=breaker, **options)]
        actors += [make_actor(port, name=f"email/{port}", **options) for port in ports[1:]]
        failover = Failover(actors)
        await failover.start()
        try:
            yield failover, [f"127.0.0.1:{port}" for port in ports]
        finally:
            await failover.stop(grace=1)


async def send(failover: Failover, number: int = 1) -> Settlement:
    async with failover.acquire(1) as permits:
        assert permits.size == 1
        return await send_on(permits, message(number))


@both_ways
@pytest.mark.parametrize(
    "odd",
    [
        *({step: None} for step in ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA")),
        {"CONNECT": "421 down"},
        {"CONNECT": "HTTP/1.1 400 Bad Request"},
        {"MAIL": "451 later"},
        {"RCPT": "421 closing"},
        {"RCPT": "530 5.7.0 log in first"},
    ],
    ids=str,
)
async def test_a_server_that_fails_before_the_final_dot_is_followed_by_the_next(
    odd: dict[str, str | None], ehlo: str
) -> None:
    first, second = Scripted(**{"EHLO": ehlo, **odd}), Scripted(EHLO=ehlo)
    async with in_a_row(first, second) as (failover, names):
        settlement = await send(failover)
    assert (settlement.outcome, settlement.provider) == (Sent("Q1234"), names[1])
    assert "BODY" not in first.commands
    assert second.commands.count("BODY") == 1


async def test_servers_that_do_not_listen_or_refuse_the_login_are_followed_by_the_next() -> None:
    async with in_a_row(free_port(), Scripted()) as (failover, names):
        assert (await send(failover)).provider == names[1]
    refusing = Scripted(EHLO="250-x\r\n250 AUTH PLAIN", AUTH="535 5.7.8 wrong")
    good = Scripted(EHLO="250-x\r\n250 AUTH PLAIN", AUTH="235 welcome")
    async with in_a_row(refusing, good, username="a", password="b") as (failover, names):
        assert (await send(failover)).provider == names[1]


@pytest.mark.parametrize("step", ["CONNECT", "RCPT", "DATA"])
async def test_a_server_that_hangs_before_the_final_dot_is_followed_by_the_next(step: str) -> None:
    first, second = Scripted(**{step: "hang"}), Scripted()
    clock = LoopClock()
    async with in_a_row(first, second, timeout=30, deadline=120) as (failover, names):
        sending = asyncio.create_task(send(failover))
        await until(lambda: first.stuck)
        clock.advance(31)
        assert (await sending).provider == names[1]


@both_ways
@pytest.mark.parametrize(
    ("odd", "outcome"),
    [
        ({"BODY": None}, Unknown("smtp_disconnected_body")),
        ({"BODY": "\x00\x01\x02\x03"}, Unknown("smtp_protocol_error_body")),
        ({"BODY": "421 closing"}, Deferred("smtp_421")),
        ({"BODY": "452 4.3.1 full"}, Deferred("smtp_452_4.3.1")),
        ({"BODY": "554 5.7.1 spam"}, Rejected("smtp_554_5.7.1")),
        ({"RCPT": "450 4.2.0 greylisted"}, Deferred("smtp_450_4.2.0")),
        ({"RCPT": "552 5.2.2 full"}, Rejected("smtp_552_5.2.2")),
        ({"MAIL": "550 5.7.1 not your sender"}, Rejected("smtp_550_5.7.1")),
    ],
    ids=str,
)
async def test_what_it_may_have_or_replied_about_the_mail_is_final(
    odd: dict[str, str | None], outcome: Outcome, ehlo: str
) -> None:
    second = Scripted()
    async with in_a_row(Scripted(**{"EHLO": ehlo, **odd}), second) as (failover, names):
        settlement = await send(failover)
    assert (settlement.outcome, settlement.provider) == (outcome, names[0])
    assert second.connections == 0


async def test_an_open_breaker_sends_all_to_the_next_and_a_probe_brings_the_first_back() -> None:
    now = 0.0
    first, second = Scripted(CONNECT="421 down"), Scripted()
    breaker = Breaker(clock=lambda: now)
    async with in_a_row(first, second, breaker=breaker) as (failover, names):
        for number in range(5):
            assert (await send(failover, number)).provider == names[1]
        for number in range(5, 8):
            assert (await send(failover, number)).provider == names[1]
        assert first.connections == 5
        first.odd = {}
        now = breaker.retry_after
        assert (await send(failover, 8)).provider == names[0]
        assert breaker.closed
        assert (await send(failover, 9)).provider == names[0]


async def test_what_waits_for_a_server_goes_to_the_next_when_its_breaker_opens() -> None:
    first, second = Scripted(RCPT="421 closing"), Scripted()
    settled: list[Settlement] = []
    async with in_a_row(first, second) as (failover, names):
        async with failover.acquire(100) as permits:
            for number in range(permits.size):
                permits.submit(message(number), settled.append)
        await until(lambda: len(settled) == 100)
    assert {(each.provider, type(each.outcome)) for each in settled} == {(names[1], Sent)}
    assert first.connections == 5
    assert second.commands.count("BODY") == 100


async def test_where_all_fail_the_mail_waits_for_the_one_that_is_probed_first() -> None:
    async with in_a_row(free_port(), free_port()) as (failover, names):
        for number in range(5):
            settlement = await send(failover, number)
            assert settlement.outcome == Deferred("smtp_connect_refused")
            assert settlement.provider == names[1]
        async with failover.acquire(10) as permits:
            waits = [report.retry_in for report in failover.reports()]
            assert permits.size == 0
            assert 0 < permits.retry_after <= min(waits) + 0.1
    assert [report.name for report in failover.reports()] == [
        f"email/{name.rpartition(':')[2]}" for name in names
    ]


async def test_a_mail_is_checked_again_for_the_next_server() -> None:
    """Somebody opts out while the first one fails."""
    checks = Checks()

    async def opts_out(messages: Sequence[Message]) -> dict[int, CheckResult]:
        found = await checks.presend_check(messages)
        if checks.calls == 1:
            return found
        withheld = Withheld(DeliveryState.SKIPPED, "opted_out_since")
        return {
            key: CheckResult(key, each.address, each.checked_at, withheld)
            for key, each in found.items()
        }

    second = Scripted()
    async with in_a_row(Scripted(RCPT=None), second, check=opts_out) as (failover, _):
        outcome = (await send(failover)).outcome
    assert outcome == Withheld(DeliveryState.SKIPPED, "opted_out_since")
    assert "RCPT" not in second.commands


async def test_a_stop_passes_nothing_on() -> None:
    first, second = Scripted(RCPT="hang"), Scripted()
    settled: list[Settlement] = []
    async with in_a_row(first, second) as (failover, _):
        async with failover.acquire(3) as permits:
            for number in range(3):
                permits.submit(message(number), settled.append)
        await until(lambda: first.stuck)
        await failover.stop(grace=0.01)
    assert [each.outcome for each in settled] == [Unsent("shutdown")] * 3
    assert second.connections == 0
