"""The email actor against SMTP servers that refuse, hang, disconnect or send garbage."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.email_actor import NO_MAILBOX, Checks, actor_for, message, send_one
from tests.support.loop_clock import LoopClock
from tests.support.sending import send_by, send_on
from tests.support.services import until
from tests.support.smtp_server import (
    GO_AHEAD,
    IN_ONE_FLIGHT,
    ONE_BY_ONE,
    REPLIES,
    Flights,
    Scripted,
    raw,
)
from tocsin.engine.actors.email import EmailActor
from tocsin.engine.actors.machinery.breaker import Breaker, BreakerState
from tocsin.engine.model import (
    Deferred,
    Mail,
    Outcome,
    Rejected,
    Sent,
    Unknown,
)
from tocsin.settings.addresses import SmtpServer

# Servers that misbehave.

both_ways = pytest.mark.parametrize(
    "ehlo", [ONE_BY_ONE, IN_ONE_FLIGHT], ids=["one by one", "in one flight"]
)


async def play(script: Scripted, **options: Any) -> Outcome:
    async with raw(script) as port:
        try:
            return await send_one(port, **options)
        finally:
            script.release.set()


@both_ways
@pytest.mark.parametrize(
    ("step", "reply", "outcome"),
    [
        ("CONNECT", "421 busy", Deferred("smtp_421")),
        ("CONNECT", "554 5.7.1 no", Deferred("smtp_554_5.7.1")),
        ("MAIL", "421 4.3.2 closing", Deferred("smtp_421_4.3.2")),
        ("MAIL", "451 4.3.0 later", Deferred("smtp_451_4.3.0")),
        ("MAIL", "550 5.7.1 no", Rejected("smtp_550_5.7.1")),
        ("RCPT", "450 4.2.1 later", Deferred("smtp_450_4.2.1")),
        (
            "RCPT",
            "550-5.1.1 no\r\n550 5.1.1 such user",
            NO_MAILBOX,
        ),
        ("RCPT", "550 5.7.1 policy", Rejected("smtp_550_5.7.1")),
        ("DATA", "451 later", Deferred("smtp_451")),
        ("DATA", "554 no", Rejected("smtp_554")),
        ("BODY", "452 4.3.1 full", Deferred("smtp_452_4.3.1")),
        ("BODY", "554 5.7.1 spam", Rejected("smtp_554_5.7.1")),
        ("BODY", "421 closing", Deferred("smtp_421")),
    ],
)
async def test_refusals_at_each_step(step: str, reply: str, outcome: Outcome, ehlo: str) -> None:
    assert await play(Scripted(**{"EHLO": ehlo, step: reply})) == outcome


@both_ways
@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        ("CONNECT", Deferred("smtp_disconnected_connect")),
        ("EHLO", Deferred("smtp_disconnected_helo")),
        ("MAIL", Deferred("smtp_disconnected_mail")),
        ("RCPT", Deferred("smtp_disconnected_rcpt")),
        ("DATA", Deferred("smtp_disconnected_data")),
        ("BODY", Unknown("smtp_disconnected_body")),
    ],
)
async def test_a_disconnect_at_each_step(step: str, outcome: Outcome, ehlo: str) -> None:
    assert await play(Scripted(**{"EHLO": ehlo, step: None})) == outcome


@both_ways
@pytest.mark.parametrize("way", ["hang", "slow"])
@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        ("CONNECT", Deferred("smtp_timeout_connect")),
        ("EHLO", Deferred("smtp_timeout_helo")),
        ("MAIL", Deferred("smtp_timeout_mail")),
        ("RCPT", Deferred("smtp_timeout_rcpt")),
        ("DATA", Deferred("smtp_timeout_data")),
        ("BODY", Unknown("timeout")),
    ],
)
async def test_a_server_that_hangs_or_sends_slowly_at_each_step(
    step: str, outcome: Outcome, way: str, ehlo: str
) -> None:
    clock, script = LoopClock(), Scripted(**{"EHLO": ehlo, step: way})
    sending = asyncio.create_task(play(script, timeout=30, deadline=120))
    await until(lambda: script.stuck)
    assert await clock.advance_until_done(sending) == outcome


@both_ways
@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        ("CONNECT", Deferred("smtp_protocol_error")),
        ("MAIL", Deferred("smtp_protocol_error_mail")),
        ("BODY", Unknown("smtp_protocol_error_body")),
    ],
)
@pytest.mark.parametrize("garbage", ["HTTP/1.1 400 Bad Request", "\x00\x01\x02\x03", "x" * 40_000])
async def test_garbage(step: str, outcome: Outcome, garbage: str, ehlo: str) -> None:
    assert await play(Scripted(**{"EHLO": ehlo, step: garbage})) == outcome


async def test_a_server_that_closes_during_a_long_body() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA"):
            writer.write(REPLIES[reply].encode() + b"\r\n")
            await reader.readline()
        writer.transport.abort()

    long = Mail("<1@example.test>", "s", "x" * 12_000_000, "h")
    async with raw(talk) as port, actor_for(port) as actor:
        outcome = (await send_by(actor, message(1, long))).outcome
    assert outcome == Deferred("smtp_disconnected_data")


async def test_nobody_listens() -> None:
    async with raw(Scripted()) as port:
        pass
    assert await send_one(port) == Deferred("smtp_connect_refused")


async def test_a_host_that_is_not_there() -> None:
    actor = EmailActor(
        presend_check=Checks().presend_check,
        sender="a@b.test",
        server=SmtpServer(host="nowhere.invalid", port=25),
        local_hostname="c.test",
    )
    await actor.start()
    assert (await send_by(actor, message())).outcome == Deferred("smtp_host_unknown")
    await actor.stop()


async def test_helo_where_ehlo_is_not_known() -> None:
    script = Scripted(EHLO="502 what", HELO="250 hello")
    assert await play(script) == Sent("Q1234")


# A connection that the server gave up meanwhile.


async def test_a_connection_closed_while_idle_is_replaced() -> None:
    script = Scripted()
    writers: list[asyncio.StreamWriter] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await script(reader, writer)

    async with raw(talk) as port, actor_for(port) as actor:
        await send_by(actor, message(1))
        writers[0].transport.abort()
        assert (await send_by(actor, message(2))).outcome == Sent("Q1234")
        assert actor.report().breaker_reason is None
    assert script.connections == 2


@both_ways
@pytest.mark.parametrize("reply", [None, "421 4.4.2 timeout exceeded"])
async def test_a_reused_connection_that_ends_at_the_first_command_costs_no_attempt(
    reply: str | None, ehlo: str
) -> None:
    script = Scripted(EHLO=ehlo)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if script.connections == 1:
            script.odd = {}  # the second connection is a good one
        await script(reader, writer)

    async with raw(talk) as port, actor_for(port) as actor:
        await send_by(actor, message(1))
        script.odd = {"MAIL": reply}
        assert (await send_by(actor, message(2))).outcome == Sent("Q1234")
        assert actor.report().breaker_reason is None
    assert script.connections == 2
    assert script.commands.count("BODY") == 2


async def test_a_fresh_connection_that_ends_at_the_first_command_is_a_failure() -> None:
    script = Scripted(MAIL=None)
    assert await play(script) == Deferred("smtp_disconnected_mail")
    assert script.connections == 1


async def test_the_check_is_repeated_after_a_reconnect() -> None:
    script = Scripted()
    checks = Checks()
    async with raw(script) as port:
        actor = EmailActor(
            presend_check=checks.presend_check,
            sender="a@b.test",
            server=SmtpServer(host="127.0.0.1", port=port),
            senders=1,
        )
        await actor.start()
        await send_by(actor, message(1))
        assert checks.calls == 1
        await send_by(actor, message(2))
        await actor.stop()
    assert checks.calls == 2


async def test_a_refused_recipient_is_followed_by_rset() -> None:
    script = Scripted(RCPT="550 5.1.1 no")
    async with raw(script) as port, actor_for(port) as actor:
        await send_by(actor, message(1))
        await send_by(actor, message(2))
    assert script.commands[:6] == ["EHLO", "MAIL", "RCPT", "RSET", "MAIL", "RCPT"]
    assert script.connections == 1


async def test_the_commands_of_a_mail_go_in_one_flight_where_that_is_offered() -> None:
    server = Flights(
        GO_AHEAD, "250 queued as Q1111\r\n", GO_AHEAD, "250 queued as Q2222\r\n", "221 bye\r\n"
    )
    async with raw(server) as port, actor_for(port) as actor:
        assert (await send_by(actor, message(1))).outcome == Sent("Q1111")
        assert (await send_by(actor, message(2))).outcome == Sent("Q2222")
    _, commands, body, *_ = server.flights
    assert commands.count(b"\r\n") == 3
    assert commands.endswith(b"\r\nDATA\r\n")
    assert body.endswith(b"\r\n.\r\n")
    assert server.connections == 1


async def test_a_refused_recipient_in_a_flight_leaves_the_connection_usable() -> None:
    refused = "250 OK\r\n550 5.1.1 no such user\r\n503 5.5.1 no recipients\r\n"
    server = Flights(refused, "250 OK\r\n", GO_AHEAD, "250 queued as Q1111\r\n", "221 bye\r\n")
    async with raw(server) as port, actor_for(port) as actor:
        first = (await send_by(actor, message(1))).outcome
        second = (await send_by(actor, message(2))).outcome
    assert first == NO_MAILBOX
    assert second == Sent("Q1111")
    assert server.flights[2] == b"RSET\r\n"
    assert server.connections == 1


async def test_a_server_that_wants_the_body_for_nobody_is_left() -> None:
    wants = "250 OK\r\n550 5.1.1 no such user\r\n354 go ahead\r\n"
    server = Flights(wants, GO_AHEAD, "250 queued as Q1111\r\n", "221 bye\r\n")
    async with raw(server) as port, actor_for(port) as actor:
        first = (await send_by(actor, message(1))).outcome
        second = (await send_by(actor, message(2))).outcome
    assert first == NO_MAILBOX
    assert second == Sent("Q1111")
    assert server.connections == 2
    assert not any(flight.startswith(b"To:") for flight in server.flights[:3])


async def test_replies_that_come_in_pieces_are_put_together() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send_slowly(text: str) -> None:
            for char in text:
                writer.write(char.encode())
                await writer.drain()
                await asyncio.sleep(0)

        writer.write(b"220 server.test\r\n")
        for reply in (
            f"{IN_ONE_FLIGHT}\r\n",
            f"250-first\r\n{GO_AHEAD}",
            "250 queued as Q1111\r\n",
        ):
            await reader.read(65536)
            await send_slowly(reply)

    async with raw(talk) as port:
        assert await send_one(port) == Sent("Q1111")


async def test_an_outage_and_its_end() -> None:
    script = Scripted(CONNECT="421 down")
    breaker = Breaker(first=0.2, most=0.2)
    async with raw(script) as port, actor_for(port, breaker=breaker) as actor:
        for number in range(5):
            assert (await send_by(actor, message(number))).outcome == Deferred("smtp_421")
        assert actor.report().breaker is BreakerState.OPEN
        script.odd = {}
        await until(lambda: actor.report().breaker is BreakerState.HALF_OPEN)
        async with actor.acquire(1) as permits:
            assert (await send_on(permits, message(9))).outcome == Sent("Q1234")
        assert actor.report().breaker is BreakerState.CLOSED
