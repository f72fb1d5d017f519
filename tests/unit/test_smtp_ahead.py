"""The commands of the next mail go together with the end of one, where the server takes pipelined commands."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import structs

from tests.support.email_actor import NO_MAILBOX, NOW, Checks, actor_for, make_actor, message
from tests.support.loop_clock import LoopClock
from tests.support.services import LONGEST, until
from tests.support.smtp_server import GO_AHEAD, IN_ONE_FLIGHT, Flights, Scripted, raw
from tocsin.engine.actors.email import EmailActor
from tocsin.engine.actors.email_smtp import SmtpSession
from tocsin.engine.actors.machinery.breaker import Breaker
from tocsin.engine.actors.machinery.envelope import Envelope, RetryNow, SendResult
from tocsin.engine.model import (
    CheckResult,
    Deferred,
    Mail,
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
from tocsin.settings.addresses import SmtpServer

FIRST, SECOND, BYE = "250 queued as Q1111\r\n", "250 queued as Q2222\r\n", "221 bye\r\n"


def stopped() -> float:
    """A clock by which no check becomes too old."""
    return 0.0


class Sending:
    """Messages that wait in the mailbox together, and what became of them."""

    def __init__(self, actor: EmailActor, *messages: Message) -> None:
        self.outcomes: list[Outcome | None] = [None] * len(messages)
        self._task = asyncio.create_task(self._submit(actor, messages))

    async def _submit(self, actor: EmailActor, messages: Sequence[Message]) -> None:
        async with actor.acquire(len(messages)) as permits:
            for number, each in enumerate(messages):
                permits.submit(each, self._keep(number))

    def _keep(self, number: int) -> Any:
        def keep(settlement: Settlement) -> None:
            assert self.outcomes[number] is None
            self.outcomes[number] = settlement.outcome

        return keep

    async def done(self) -> list[Outcome | None]:
        async with asyncio.timeout(LONGEST):
            await self._task
            await until(lambda: None not in self.outcomes)
        return self.outcomes


async def send_by(actor: EmailActor, count: int) -> list[Outcome | None]:
    return await Sending(actor, *map(message, range(1, count + 1))).done()


async def send_to(server: Flights, count: int, **options: Any) -> list[Outcome | None]:
    async with raw(server) as port, actor_for(port, clock=stopped, **options) as actor:
        return await send_by(actor, count)


def bodies(server: Flights) -> int:
    return sum(flight.startswith(b"To:") for flight in server.flights)


async def test_the_next_mails_commands_go_with_the_end_of_one() -> None:
    server = Flights(GO_AHEAD, FIRST + GO_AHEAD, SECOND, BYE)
    assert await send_to(server, 2) == [Sent("Q1111"), Sent("Q2222")]
    _, commands, body, next_body, bye = server.flights
    body, end, ahead = body.rpartition(b"\r\n.\r\n")
    assert end
    assert body.startswith(b"To:")
    assert ahead.splitlines()[1:] == commands.splitlines()[1:]
    assert next_body.startswith(b"To:")
    assert next_body.endswith(b"\r\n.\r\n")
    assert bye == b"QUIT\r\n"


async def test_replies_may_come_in_pieces() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 server.test\r\n")
        for reply in (f"{IN_ONE_FLIGHT}\r\n", GO_AHEAD, FIRST + GO_AHEAD, SECOND):
            await reader.read(65536)
            for char in reply:
                writer.write(char.encode())
                await writer.drain()
                await asyncio.sleep(0)

    async with raw(talk) as port, actor_for(port, clock=stopped) as actor:
        assert await send_by(actor, 2) == [Sent("Q1111"), Sent("Q2222")]


async def test_nothing_goes_ahead_to_a_server_without_pipelining() -> None:
    server = Scripted()
    async with raw(server) as port, actor_for(port, clock=stopped) as actor:
        assert await send_by(actor, 2) == [Sent("Q1234")] * 2
    assert server.commands[1:9] == ["MAIL", "RCPT", "DATA", "BODY"] * 2


async def test_an_urgent_mail_is_left_to_the_first_sender_that_is_free() -> None:
    server = Flights(GO_AHEAD, FIRST, GO_AHEAD, SECOND, BYE)
    urgent = [structs.replace(message(number), priority=Priority.HIGH) for number in (1, 2)]
    async with raw(server) as port, actor_for(port, clock=stopped) as actor:
        assert await Sending(actor, *urgent).done() == [Sent("Q1111"), Sent("Q2222")]
    assert [flight.count(b"MAIL FROM") for flight in server.flights[1:5]] == [1, 0, 1, 0]


async def test_a_connection_is_renewed_after_so_many_mails() -> None:
    server = Flights(GO_AHEAD, FIRST, BYE, GO_AHEAD, SECOND, BYE)
    assert await send_to(server, 2, recycle_after=1) == [Sent("Q1111"), Sent("Q2222")]
    assert server.connections == 2


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        ("554 5.7.1 spam\r\n", Rejected("smtp_554_5.7.1")),
        ("452 4.3.1 full\r\n", Deferred("smtp_452_4.3.1")),
    ],
)
async def test_a_refused_body_is_not_the_next_mails(reply: str, outcome: Outcome) -> None:
    server = Flights(GO_AHEAD, reply + GO_AHEAD, SECOND, BYE)
    assert await send_to(server, 2) == [outcome, Sent("Q2222")]
    assert server.connections == 1


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (None, Unknown("smtp_disconnected_body")),
        ("nonsense\r\n", Unknown("smtp_protocol_error_body")),
        ("421 4.3.2 closing\r\n", Deferred("smtp_421_4.3.2")),
    ],
)
async def test_a_connection_that_ends_at_the_body_sends_each_mail_once(
    reply: str | None, outcome: Outcome
) -> None:
    server = Flights(GO_AHEAD, reply, GO_AHEAD, SECOND, BYE)
    assert await send_to(server, 2) == [outcome, Sent("Q2222")]
    assert server.connections == 2
    assert bodies(server) == 2


@pytest.mark.parametrize("ends", ["", "421 4.4.2 too many\r\n", "250 OK\r\n421 4.4.2 no\r\n"])
async def test_a_connection_that_ends_after_the_reply_leaves_the_next_mail_to_another(
    ends: str,
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if server.connections:
            await server(reader, writer)
            return
        server.connections += 1
        writer.write(b"220 server.test\r\n")
        for reply in (f"{IN_ONE_FLIGHT}\r\n", GO_AHEAD, FIRST + ends):
            await reader.read(65536)
            writer.write(reply.encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = Flights(GO_AHEAD, SECOND, BYE)
    async with raw(talk) as port, actor_for(port, clock=stopped) as actor:
        first, second = await send_by(actor, 2)
        assert first == Sent("Q1111")
        if ends.startswith("250"):  # it refused this mail
            assert second == Deferred("smtp_421_4.4.2")
        else:
            assert second == Sent("Q2222")
            assert actor.report().breaker_reason is None


async def test_a_refused_recipient_is_followed_by_rset() -> None:
    refused = "250 OK\r\n550 5.1.1 no such user\r\n503 5.5.1 no recipients\r\n"
    server = Flights(GO_AHEAD, FIRST + refused, "250 OK\r\n", GO_AHEAD, SECOND, BYE)
    assert await send_to(server, 3) == [Sent("Q1111"), NO_MAILBOX, Sent("Q2222")]
    assert server.flights[3] == b"RSET\r\n"
    assert server.connections == 1
    assert bodies(server) == 2


async def test_a_server_that_wants_the_body_for_nobody_is_left() -> None:
    wants = "250 OK\r\n550 5.1.1 no such user\r\n354 go ahead\r\n"
    server = Flights(GO_AHEAD, FIRST + wants, GO_AHEAD, SECOND, BYE)
    assert await send_to(server, 3) == [Sent("Q1111"), NO_MAILBOX, Sent("Q2222")]
    assert server.connections == 2
    assert bodies(server) == 2


async def test_a_server_that_loses_what_follows_a_body_gets_nothing_ahead_again() -> None:
    third = "250 queued as Q3333\r\n"
    server = Flights(GO_AHEAD, FIRST, GO_AHEAD, SECOND, GO_AHEAD, third, BYE)
    clock = LoopClock()
    async with (
        raw(server) as port,
        actor_for(port, clock=stopped, timeout=100, deadline=10_000) as actor,
    ):
        sending = Sending(actor, message(1), message(2), message(3))
        await until(lambda: sending.outcomes[0] is not None)
        while server.connections == 1:
            clock.advance(10)
            await asyncio.sleep(0.01)
        assert await sending.done() == [Sent("Q1111"), Sent("Q2222"), Sent("Q3333")]
    assert bodies(server) == 3
    assert [flight.count(b"MAIL FROM") for flight in server.flights[2:]] == [1, 0, 1, 0, 1, 0, 0]


async def test_a_mail_that_can_not_be_drafted_does_not_change_the_one_before() -> None:
    broken = Mail("<2@example.test>", "s", "t", "h", (("X-A", "a\nb"),))
    server = Flights(GO_AHEAD, FIRST, BYE)
    async with raw(server) as port, actor_for(port, clock=stopped) as actor:
        outcomes = await Sending(actor, message(1), message(2, broken)).done()
    assert outcomes == [Sent("Q1111"), Rejected("invalid_header")]


class Aging(Checks):
    """Checks that a test lets become too old, with what it sets for the second mail from then on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.second: CheckResult | None = None

    async def presend_check(self, messages: Sequence[Message]) -> dict[int, CheckResult]:
        found = await super().presend_check(messages)
        return found | ({2: self.second} if self.second is not None and 2 in found else {})


class AgingServer(Flights):
    """Lets the checks become too old before it replies to the first body."""

    def __init__(self, checks: Aging, second: CheckResult, *replies: str | None) -> None:
        super().__init__(*replies)
        self._checks, self._second = checks, second

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.write(b"220 server.test\r\n")
        while flight := await reader.read(65536):
            self.flights.append(flight)
            if flight.startswith(b"To:") and self._checks.second is None:
                self._checks.now, self._checks.second = 60.0, self._second
            if flight.startswith(b"EHLO"):
                writer.write(f"{IN_ONE_FLIGHT}\r\n".encode())
            elif (reply := self.replies.pop(0)) is not None:
                writer.write(reply.encode())


async def send_aging(
    second: CheckResult, *replies: str, count: int = 2
) -> tuple[AgingServer, list[Outcome | None]]:
    checks = Aging()
    server = AgingServer(checks, second, *replies)
    async with raw(server) as port:
        actor = make_actor(
            port, presend_check=checks.presend_check, clock=lambda: checks.now, timeout=5.0
        )
        await actor.start()
        outcomes = await send_by(actor, count)
        await actor.stop()
    return server, outcomes


async def test_a_check_that_became_too_old_is_repeated_before_the_body() -> None:
    same = CheckResult(2, "alice@example.test", NOW)
    server, outcomes = await send_aging(same, GO_AHEAD, FIRST + GO_AHEAD, SECOND, BYE)
    assert outcomes == [Sent("Q1111"), Sent("Q2222")]
    assert server.connections == 1


async def test_a_mail_whose_address_changed_meanwhile_goes_to_the_new_one() -> None:
    moved = CheckResult(2, "bob@example.test", NOW)
    server, outcomes = await send_aging(moved, GO_AHEAD, FIRST + GO_AHEAD, GO_AHEAD, SECOND, BYE)
    assert outcomes == [Sent("Q1111"), Sent("Q2222")]
    assert server.connections == 2
    assert bodies(server) == 2
    assert b"RCPT TO:<bob@example.test>" in server.flights[4]


async def test_a_mail_that_is_withheld_meanwhile_gets_no_body() -> None:
    withheld = structs.replace(
        CheckResult(2, "alice@example.test", NOW), withheld=Withheld(None, "cancelled")
    )
    third = "250 queued as Q3333\r\n"
    server, outcomes = await send_aging(
        withheld, GO_AHEAD, FIRST + GO_AHEAD, GO_AHEAD, third, BYE, count=3
    )
    assert outcomes == [Sent("Q1111"), Withheld(None, "cancelled"), Sent("Q3333")]
    assert server.connections == 2
    assert bodies(server) == 2


async def test_a_stop_returns_the_mail_whose_commands_went_ahead() -> None:
    replied = asyncio.Event()
    flights: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 server.test\r\n")
        for reply in (f"{IN_ONE_FLIGHT}\r\n", GO_AHEAD, FIRST + GO_AHEAD):
            flights.append(await reader.read(65536))
            if reply.startswith(FIRST):
                await replied.wait()
            writer.write(reply.encode())
        flights.append(await reader.read(65536))

    async with raw(talk) as port, actor_for(port, clock=stopped) as actor:
        sending = Sending(actor, message(1), message(2))
        await until(lambda: len(flights) == 3)
        stopping = asyncio.create_task(actor.stop())
        await asyncio.sleep(0)
        replied.set()
        assert await sending.done() == [Sent("Q1111"), Unsent("shutdown")]
        await stopping
    assert flights[3] == b""


async def test_a_provider_that_fails_gets_no_further_mail() -> None:
    server = Flights(GO_AHEAD, None)
    breaker = Breaker(threshold=1, first=30.0, most=30.0)
    first, second = await send_to(server, 2, breaker=breaker)
    assert first == Unknown("smtp_disconnected_body")
    assert isinstance(second, Unsent)
    assert second.reason == "circuit_open"
    assert server.connections == 1


async def test_the_deadline_of_one_mail_leaves_the_next_to_another_connection() -> None:
    server = Flights(GO_AHEAD, "", GO_AHEAD, SECOND, BYE)
    clock = LoopClock()
    async with raw(server) as port, actor_for(port, clock=stopped, deadline=20) as actor:
        sending = Sending(actor, message(1), message(2))
        await until(lambda: len(server.flights) == 3)
        clock.advance(20)
        assert await sending.done() == [Unknown("timeout"), Sent("Q2222")]
    assert server.connections == 2
    assert bodies(server) == 2


class Crashing(EmailActor):
    """Crashes once the first mail was sent."""

    async def transmit(self, connection: SmtpSession, envelope: Envelope) -> SendResult | RetryNow:
        result = await super().transmit(connection, envelope)
        if envelope.message.delivery_id == 1:
            raise ZeroDivisionError
        return result


async def test_a_crash_returns_the_mail_whose_commands_went_ahead() -> None:
    server = Flights(GO_AHEAD, FIRST + GO_AHEAD)
    async with raw(server) as port:
        actor = Crashing(
            presend_check=Checks().presend_check,
            sender="a@b.test",
            server=SmtpServer(host="127.0.0.1", port=port),
            senders=1,
            clock=stopped,
        )
        await actor.start()
        outcomes = await send_by(actor, 2)
        await actor.stop()
    assert outcomes == [Unknown("actor_crashed"), Unsent("actor_crashed")]
    assert bodies(server) == 1
