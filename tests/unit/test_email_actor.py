"""The email actor against a real SMTP server: mails, addresses, TLS and credentials."""

from __future__ import annotations

import asyncio
import email
import email.policy
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd import smtp
from aiosmtpd.smtp import AuthResult, Envelope, Session
from msgspec import structs

from tests.support.email_actor import MAIL, NO_MAILBOX, NOW, Checks, actor_for, message, send_one
from tests.support.sending import send_by
from tocsin.engine.actors.email import EmailActor
from tocsin.engine.actors.email_mime import UnsendableError
from tocsin.engine.actors.machinery.breaker import BreakerState
from tocsin.engine.model import (
    Deferred,
    Mail,
    Outcome,
    Rejected,
    Sent,
    Unsent,
)
from tocsin.settings.addresses import SmtpServer

# A real server.


class Server(smtp.SMTP):
    """Closes its connections on request, so that no test leaves one behind."""

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
    """Keeps what arrives, and replies to RCPT and DATA as scripted."""

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


async def test_the_return_path_and_headers_of_the_provider_have_the_tag() -> None:
    handler = Handler()
    mail = structs.replace(MAIL, tag="7.0123456789ab")
    options: dict[str, Any] = {
        "return_path": "bounces+{tag}@büros.example",
        "tag_headers": ["X-PM-Metadata-tocsin"],
    }
    async with real(handler) as port, actor_for(port, **options) as actor:
        assert isinstance((await send_by(actor, message(7, mail))).outcome, Sent)
    assert handler.received[0].mail_from == "bounces+7.0123456789ab@xn--bros-0ra.example"
    assert handler.mail()["X-PM-Metadata-tocsin"] == "7.0123456789ab"
    assert handler.mail()["From"] == "Tocsin <bell@example.test>"


async def test_lines_are_short_and_ascii() -> None:
    handler = Handler()
    mail = Mail(
        "<1@example.test>", "x" * 200, "ü" * 5000, "<p>" + "y" * 5000, (("X-Long", "ä" * 300),)
    )
    async with real(handler) as port, actor_for(port) as actor:
        assert isinstance((await send_by(actor, message(1, mail))).outcome, Sent)
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
        await send_by(actor, message(1, mail))
    content = handler.received[0].original_content or b""
    assert f"\r\nList-Unsubscribe: {url}\r\n".encode() in content
    assert max(map(len, content.split(b"\r\n"))) == 998


async def test_connections_are_used_again() -> None:
    handler = Handler()
    async with real(handler) as port, actor_for(port, senders=4) as actor:
        outcomes = await asyncio.gather(*(send_by(actor, message(number)) for number in range(40)))
    assert {type(each.outcome) for each in outcomes} == {Sent}
    assert len({session.peer for session in handler.sessions}) <= 4


async def test_a_connection_is_renewed_after_so_many_messages() -> None:
    handler = Handler()
    async with real(handler) as port, actor_for(port, recycle_after=2) as actor:
        for number in range(4):
            await send_by(actor, message(number))
    assert len({session.peer for session in handler.sessions}) == 2


async def test_a_refused_mail_leaves_the_connection_usable() -> None:
    handler = Handler(rcpt="550 5.1.1 no such user")
    async with real(handler) as port, actor_for(port) as actor:
        first = await send_by(actor, message(1))
        handler.rcpt = "250 OK"
        second = await send_by(actor, message(2))
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
        assert (await send_by(actor, message(1, mail))).outcome == Rejected("invalid_header")
    assert handler.received == []


def test_a_sender_with_control_characters_is_refused_at_the_start() -> None:
    with pytest.raises(UnsendableError):
        EmailActor(
            presend_check=Checks().presend_check,
            sender="A\r\nBcc: x <a@b.test>",
            server=SmtpServer(host="127.0.0.1", port=25),
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
        outcomes = [(await send_by(actor, message(number))).outcome for number in range(6)]
        assert actor.report().breaker is BreakerState.OPEN
    assert outcomes[:5] == [Deferred("smtp_535_5.7.8")] * 5
    assert isinstance(outcomes[5], Unsent)
