"""The email actor against real SMTP servers (aiosmtpd), and against ones that misbehave."""

from __future__ import annotations

import asyncio
import email
import email.policy
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trustme
from aiosmtpd import smtp
from aiosmtpd.smtp import AuthResult, Envelope, Session

from tests.support.loop_clock import LoopClock
from tests.support.services import until
from tests.support.smtp_server import REPLIES, Scripted, raw
from tocsin.engine.actors.email.actor import EmailActor
from tocsin.engine.actors.email.mime import UnsendableError
from tocsin.engine.actors.machinery.breaker import Breaker, BreakerState
from tocsin.engine.model import (
    Channel,
    CheckResult,
    Deferred,
    Mail,
    Message,
    Outcome,
    Priority,
    Rejected,
    Sent,
    Unknown,
    Unsent,
)

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
NO_MAILBOX = Rejected("smtp_550_5.1.1", address_dead=True, dead_since=NOW)
MAIL = Mail(
    "<delivery-1.abc@example.test>", "Grüße", "Hello\n.\nworld\n", "<p>Hello</p>", (("X-A", "b"),)
)


def message(delivery_id: int = 1, mail: Mail = MAIL) -> Message:
    return Message(delivery_id, UUID(int=delivery_id), Channel.EMAIL, Priority.NORMAL, mail)


class Checks:
    """Passes all messages, with one address."""

    def __init__(self, address: str = "alice@example.test") -> None:
        self.address = address
        self.calls = 0

    async def presend_check(self, messages: Sequence[Message]) -> dict[int, CheckResult]:
        self.calls += 1
        return {
            each.delivery_id: CheckResult(each.delivery_id, self.address, NOW) for each in messages
        }


@asynccontextmanager
async def actor_for(
    port: int, address: str = "alice@example.test", **options: Any
) -> AsyncIterator[EmailActor]:
    settings: dict[str, Any] = {
        "timeout": 30.0,
        "local_hostname": "client.test",
        "senders": 1,
        "hold": 0.01,
    }
    actor = EmailActor(
        presend_check=Checks(address).presend_check,
        sender="Tocsin <bell@example.test>",
        host="127.0.0.1",
        port=port,
        **(settings | options),
    )
    await actor.start()
    try:
        yield actor
    finally:
        await actor.stop(grace=1)


async def send_one(port: int, address: str = "alice@example.test", **options: Any) -> Outcome:
    async with actor_for(port, address, **options) as actor:
        return (await actor.send(message())).outcome


# A real server.


class Server(smtp.SMTP):
    """Hangs up when told, so that no test leaves a connection behind."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.event_handler.servers.append(self)

    async def hang_up(self) -> None:
        if isinstance(self.transport, asyncio.WriteTransport):
            with suppress(AttributeError):  # early 3.11: a TLS transport that is closed already
                self.transport.abort()
        if self._handler_coroutine is not None:
            await asyncio.wait([self._handler_coroutine])


class Handler:
    """Keeps what arrives, and answers RCPT and DATA as told."""

    def __init__(self, rcpt: str = "250 OK", data: str = "250 2.0.0 Ok: queued as ABC123") -> None:
        self.rcpt = rcpt
        self.data = data
        self.received: list[Envelope] = []
        self.sessions: list[Session] = []
        self.servers: list[Server] = []

    async def handle_RCPT(  # noqa: N802
        self, server: Server, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.rcpt_tos.append(address)
        return self.rcpt

    async def handle_DATA(self, server: Server, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.received.append(envelope)
        self.sessions.append(session)
        return self.data

    def mail(self) -> EmailMessage:
        content = self.received[-1].original_content
        assert content is not None
        parsed = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        return parsed


@asynccontextmanager
async def real(
    handler: Handler, *, tls: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    options = {"hostname": "server.test"} | options
    server = await loop.create_server(
        lambda: Server(handler, loop=loop, **options), "127.0.0.1", 0, ssl=tls
    )
    async with server:
        yield server.sockets[0].getsockname()[1]
        for connection in handler.servers:
            await connection.hang_up()


async def test_a_mail_arrives_whole() -> None:
    handler = Handler()
    async with real(handler) as port:
        outcome = await send_one(port)
    assert outcome == Sent("ABC123")
    (received,) = handler.received
    assert (received.mail_from, received.rcpt_tos) == ("bell@example.test", ["alice@example.test"])
    mail = handler.mail()
    assert mail["From"] == "Tocsin <bell@example.test>"
    assert mail["To"] == "alice@example.test"
    assert mail["Subject"] == "Grüße"
    assert mail["Message-ID"] == "<delivery-1.abc@example.test>"
    assert mail["Date"].datetime == NOW
    assert mail["X-A"] == "b"
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None
    assert text.get_content() == "Hello\r\n.\r\nworld\r\n"
    assert html is not None
    assert html.get_content() == "<p>Hello</p>\r\n"


async def test_lines_are_short_and_ascii() -> None:
    handler = Handler()
    mail = Mail(
        "<1@example.test>", "x" * 200, "ü" * 5000, "<p>" + "y" * 5000, (("X-Long", "ä" * 300),)
    )
    async with real(handler) as port, actor_for(port) as actor:
        assert isinstance((await actor.send(message(1, mail))).outcome, Sent)
    content = handler.received[0].original_content
    assert content is not None
    assert content.isascii()
    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert b"\n" not in content.replace(b"\r\n", b"")
    assert handler.mail()["X-Long"] == "ä" * 300


async def test_a_long_address_stays_in_one_line() -> None:
    handler = Handler()
    url = "<https://example.test/" + "x" * 957 + ">"  # the whole line has 998 octets
    mail = Mail("<1@example.test>", "s", "t", "h", (("List-Unsubscribe", url),))
    async with real(handler) as port, actor_for(port) as actor:
        await actor.send(message(1, mail))
    content = handler.received[0].original_content or b""
    assert f"\r\nList-Unsubscribe: {url}\r\n".encode() in content
    assert max(map(len, content.split(b"\r\n"))) == 998


async def test_connections_are_used_again() -> None:
    handler = Handler()
    async with real(handler) as port, actor_for(port, senders=4) as actor:
        outcomes = await asyncio.gather(*(actor.send(message(number)) for number in range(40)))
    assert {type(each.outcome) for each in outcomes} == {Sent}
    assert len({session.peer for session in handler.sessions}) <= 4


async def test_a_connection_is_renewed_after_so_many_messages() -> None:
    handler = Handler()
    async with real(handler) as port, actor_for(port, recycle_after=2) as actor:
        for number in range(4):
            await actor.send(message(number))
    assert len({session.peer for session in handler.sessions}) == 2


async def test_a_refused_mail_leaves_the_connection_usable() -> None:
    handler = Handler(rcpt="550 5.1.1 no such user")
    async with real(handler) as port, actor_for(port) as actor:
        first = await actor.send(message(1))
        handler.rcpt = "250 OK"
        second = await actor.send(message(2))
    assert first.outcome == NO_MAILBOX
    assert isinstance(second.outcome, Sent)


# Addresses and injection.


@pytest.mark.parametrize(
    "address",
    [
        "alice@example.test\r\nRCPT TO:<eve@example.test>",
        "alice@example.test\x00",
        "alice\n@example.test",
        "<alice@example.test>",
        "alice@example.test> SIZE=1",
        "alice(eve@evil.test)@example.test",
        "alice,eve@example.test",
        "alice",
        "@example.test",
        "alice@",
        "alice@exa mple.test",
        "al\u2028ice@example.test",
        "a" * 65 + "@example.test",
        "",
    ],
)
async def test_a_bad_address_is_refused_before_any_byte(address: str) -> None:
    handler = Handler()
    async with real(handler, enable_SMTPUTF8=True) as port:
        assert await send_one(port, address) == Rejected("invalid_address")
    assert handler.received == []


@pytest.mark.parametrize(
    "mail",
    [
        Mail("<1@example.test>", "a\r\nBcc: eve@example.test", "t", "h"),
        Mail("<1@example.test>\r\nBcc: eve@example.test", "s", "t", "h"),
        Mail("<1@example.test>", "s", "t", "h", (("X-A", "b\nBcc: eve@example.test"),)),
        Mail("<1@example.test>", "s", "t", "h", (("X-A: b\r\nBcc", "eve@example.test"),)),
        Mail("<1@example.test>", "s", "t", "h", (("Bcc", "eve@example.test"),)),
    ],
)
async def test_no_header_is_injected(mail: Mail) -> None:
    handler = Handler()
    async with real(handler) as port, actor_for(port) as actor:
        assert (await actor.send(message(1, mail))).outcome == Rejected("invalid_header")
    assert handler.received == []


def test_a_sender_with_control_characters_is_refused_at_the_start() -> None:
    with pytest.raises(UnsendableError):
        EmailActor(
            presend_check=Checks().presend_check,
            sender="A\r\nBcc: x <a@b.test>",
            host="127.0.0.1",
            port=25,
        )


async def test_a_domain_beyond_ascii_is_encoded() -> None:
    handler = Handler()
    async with real(handler) as port:
        assert isinstance(await send_one(port, "alice@straße.example"), Sent)
    assert handler.received[0].rcpt_tos == ["alice@xn--strae-oqa.example"]


async def test_smtputf8_is_used_where_it_is_needed_and_known() -> None:
    handler = Handler()
    async with real(handler, enable_SMTPUTF8=True) as port:
        assert isinstance(await send_one(port, "jürgen@example.test"), Sent)
    assert handler.received[0].rcpt_tos == ["jürgen@example.test"]
    assert "SMTPUTF8" in handler.received[0].mail_options
    async with real(Handler()) as port:
        assert await send_one(port, "jürgen@example.test") == Rejected("smtputf8_unsupported")


# TLS and credentials.


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return path


def server_context(ca: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    return context


@pytest.mark.parametrize("starttls", ["auto", "always"])
async def test_starttls_is_taken_where_it_is_offered(
    ca: trustme.CA, ca_file: Path, starttls: str
) -> None:
    handler = Handler()
    async with real(handler, tls_context=server_context(ca)) as port:
        assert isinstance(await send_one(port, ca_file=ca_file, starttls=starttls), Sent)
    assert handler.sessions[0].ssl is not None


async def test_tls_from_the_first_byte(ca: trustme.CA, ca_file: Path) -> None:
    async with real(Handler(), tls=server_context(ca)) as port:
        assert isinstance(await send_one(port, ca_file=ca_file, tls=True), Sent)


async def test_a_certificate_of_another_host_is_refused(ca: trustme.CA, ca_file: Path) -> None:
    async with real(Handler(), tls_context=server_context(ca, "other.test")) as port:
        assert await send_one(port, ca_file=ca_file) == Deferred("smtp_tls_failed")
    async with real(Handler(), tls=server_context(ca, "other.test")) as port:
        assert await send_one(port, ca_file=ca_file, tls=True) == Deferred("smtp_tls_failed")


async def test_starttls_always_sends_nothing_in_clear() -> None:
    async with real(Handler()) as port:
        assert await send_one(port, starttls="always") == Deferred("smtp_tls_not_offered")


def authenticator(
    server: Server, session: Session, envelope: Envelope, mechanism: str, auth: Any
) -> AuthResult:
    return AuthResult(success=(auth.login, auth.password) == (b"user", b"secret"), handled=False)


@pytest.mark.parametrize(
    ("password", "outcome"), [("secret", Sent("ABC123")), ("wrong", Deferred("smtp_535_5.7.8"))]
)
async def test_credentials(ca: trustme.CA, ca_file: Path, password: str, outcome: Outcome) -> None:
    options: dict[str, Any] = {
        "tls_context": server_context(ca),
        "authenticator": authenticator,
        "auth_required": True,
    }
    async with real(Handler(), **options) as port:
        assert await send_one(port, ca_file=ca_file, username="user", password=password) == outcome


async def test_credentials_that_fail_open_the_breaker(ca: trustme.CA, ca_file: Path) -> None:
    options: dict[str, Any] = {"tls_context": server_context(ca), "authenticator": authenticator}
    async with (
        real(Handler(), **options) as port,
        actor_for(port, ca_file=ca_file, username="user", password="wrong") as actor,
    ):
        outcomes = [(await actor.send(message(number))).outcome for number in range(6)]
        assert actor.report().breaker is BreakerState.OPEN
    assert outcomes[:5] == [Deferred("smtp_535_5.7.8")] * 5
    assert isinstance(outcomes[5], Unsent)


# Servers that misbehave.

# What a server says to EHLO: that it takes one command after the other, or several in one flight.
ONE_BY_ONE, IN_ONE_FLIGHT = REPLIES["EHLO"], "250-server.test\r\n250-PIPELINING\r\n250 SIZE 1000000"
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
@pytest.mark.parametrize("way", ["hang", "dribble"])
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
async def test_a_server_that_hangs_or_dribbles_at_each_step(
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
        outcome = (await actor.send(message(1, long))).outcome
    assert outcome == Deferred("smtp_disconnected_data")


async def test_nobody_listens() -> None:
    async with raw(Scripted()) as port:
        pass
    assert await send_one(port) == Deferred("smtp_connect_refused")


async def test_a_host_that_is_not_there() -> None:
    actor = EmailActor(
        presend_check=Checks().presend_check,
        sender="a@b.test",
        host="nowhere.invalid",
        port=25,
        local_hostname="c.test",
    )
    await actor.start()
    assert (await actor.send(message())).outcome == Deferred("smtp_host_unknown")
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
        await actor.send(message(1))
        writers[0].transport.abort()
        assert (await actor.send(message(2))).outcome == Sent("Q1234")
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
        await actor.send(message(1))
        script.odd = {"MAIL": reply}
        assert (await actor.send(message(2))).outcome == Sent("Q1234")
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
            host="127.0.0.1",
            port=port,
            senders=1,
        )
        await actor.start()
        await actor.send(message(1))
        assert checks.calls == 1
        await actor.send(message(2))
        await actor.stop()
    assert checks.calls == 2


async def test_a_refused_recipient_is_followed_by_rset() -> None:
    script = Scripted(RCPT="550 5.1.1 no")
    async with raw(script) as port, actor_for(port) as actor:
        await actor.send(message(1))
        await actor.send(message(2))
    assert script.commands[:6] == ["EHLO", "MAIL", "RCPT", "RSET", "MAIL", "RCPT"]
    assert script.connections == 1


class Flights:
    """Takes commands in one flight, and keeps how many came in each; answers them all at once."""

    def __init__(self, *replies: str) -> None:
        self.replies = list(replies)
        self.flights: list[bytes] = []
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.write(b"220 server.test\r\n")
        while flight := await reader.read(65536):
            self.flights.append(flight)
            if flight.startswith(b"EHLO"):
                writer.write(f"{IN_ONE_FLIGHT}\r\n".encode())
            else:
                writer.write(self.replies.pop(0).encode())


GO_AHEAD = "250 OK\r\n250 OK\r\n354 go ahead\r\n"


async def test_the_commands_of_a_mail_go_in_one_flight_where_that_is_offered() -> None:
    server = Flights(
        GO_AHEAD, "250 queued as Q1111\r\n", GO_AHEAD, "250 queued as Q2222\r\n", "221 bye\r\n"
    )
    async with raw(server) as port, actor_for(port) as actor:
        assert (await actor.send(message(1))).outcome == Sent("Q1111")
        assert (await actor.send(message(2))).outcome == Sent("Q2222")
    _, commands, body, *_ = server.flights
    assert commands.count(b"\r\n") == 3
    assert commands.endswith(b"\r\nDATA\r\n")
    assert body.endswith(b"\r\n.\r\n")
    assert server.connections == 1


async def test_a_refused_recipient_in_a_flight_leaves_the_connection_usable() -> None:
    refused = "250 OK\r\n550 5.1.1 no such user\r\n503 5.5.1 no recipients\r\n"
    server = Flights(refused, "250 OK\r\n", GO_AHEAD, "250 queued as Q1111\r\n", "221 bye\r\n")
    async with raw(server) as port, actor_for(port) as actor:
        first = (await actor.send(message(1))).outcome
        second = (await actor.send(message(2))).outcome
    assert first == NO_MAILBOX
    assert second == Sent("Q1111")
    assert server.flights[2] == b"RSET\r\n"
    assert server.connections == 1


async def test_a_server_that_wants_the_body_for_nobody_is_left() -> None:
    wants = "250 OK\r\n550 5.1.1 no such user\r\n354 go ahead\r\n"
    server = Flights(wants, GO_AHEAD, "250 queued as Q1111\r\n", "221 bye\r\n")
    async with raw(server) as port, actor_for(port) as actor:
        first = (await actor.send(message(1))).outcome
        second = (await actor.send(message(2))).outcome
    assert first == NO_MAILBOX
    assert second == Sent("Q1111")
    assert server.connections == 2
    assert not any(flight.startswith(b"To:") for flight in server.flights[:3])


async def test_replies_that_come_in_pieces_are_put_together() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def dribble(text: str) -> None:
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
            await dribble(reply)

    async with raw(talk) as port:
        assert await send_one(port) == Sent("Q1111")


async def test_an_outage_and_its_end() -> None:
    script = Scripted(CONNECT="421 down")
    breaker = Breaker(first=0.2, most=0.2)
    async with raw(script) as port, actor_for(port, breaker=breaker) as actor:
        for number in range(5):
            assert (await actor.send(message(number))).outcome == Deferred("smtp_421")
        assert actor.report().breaker is BreakerState.OPEN
        script.odd = {}
        await until(lambda: actor.report().breaker is BreakerState.HALF_OPEN)
        async with actor.acquire(1) as permits:
            assert (await permits.send(message(9))).outcome == Sent("Q1234")
        assert actor.report().breaker is BreakerState.CLOSED
