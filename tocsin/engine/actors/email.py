"""Email by SMTP, over a few connections that are kept open."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
from aiosmtplib import SMTP, SMTPException, SMTPResponseException
from msgspec import structs

from tocsin.background import in_thread
from tocsin.engine.actors import email_mime as mime
from tocsin.engine.actors.email_mime import Signer, UnsendableError
from tocsin.engine.actors.email_reply import Step, classify
from tocsin.engine.actors.email_smtp import SmtpSession, WrittenMail, failure_reason
from tocsin.engine.actors.machinery.base import Actor
from tocsin.engine.actors.machinery.envelope import Envelope, RetryNow, SendResult
from tocsin.engine.model import Deferred, Mail, Message, PresendCheck, Rejected
from tocsin.settings.addresses import TAG_PLACE, SmtpServer

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_ADVICE = (
    "the mail server refuses every address, so none is believed to be dead: is TOCSIN_SMTP_URL the server that relays"
    " for us, and does it know where to?"
)
_HOST_NAME = re.compile(r"[A-Za-z0-9.-]{1,253}")

log = structlog.get_logger(__name__)


class EmailActor(Actor[SmtpSession]):
    """Sends mails through one SMTP server.

    `sender` is `Name <name@example.org>`. `timeout` bounds the wait for each reply in seconds, except that to the final
    dot, which only the deadline of the message bounds. A connection is replaced after `recycle_after` messages.
    `signer` signs each mail by DKIM. `return_path` takes the place of the sender's address in the envelope, with the
    tag of each mail for its `{tag}`; `tag_headers` have the tag too. Further options are those of `Actor`. Raises
    UnsendableError for an invalid sender.
    """

    def __init__(
        self,
        *,
        presend_check: PresendCheck,
        sender: str,
        name: str = "email",
        server: SmtpServer,
        ca_file: Path | str | None = None,
        signer: Signer | None = None,
        return_path: str | None = None,
        tag_headers: Sequence[str] = (),
        local_hostname: str | None = None,
        timeout: float = 20.0,
        recycle_after: int = 100,
        **options: Any,
    ) -> None:
        super().__init__(
            name=name,
            provider=server.address,
            presend_check=presend_check,
            advice=_ADVICE,
            **options,
        )
        self._sender, self._from = mime.to_sender(sender)
        self._server = server
        self._context = ssl.create_default_context(cafile=ca_file)
        self._signer = signer
        self._return_path = mime.to_address(return_path or self._sender.address).address
        self._tag_headers = tuple(tag_headers)
        self._local_hostname = local_hostname
        self._timeout = timeout
        self._recycle_after = recycle_after
        self._sends_ahead = True  # the next mail's commands with the end of one

    def draft(self, message: Message) -> bytes | Rejected:
        """Returns the MIME message without its address."""
        if not isinstance(message.content, Mail):
            return Rejected("not_a_mail")
        mail = message.content
        if self._tag_headers:
            tags = [(name, mail.tag) for name in self._tag_headers]
            mail = structs.replace(mail, headers=(*mail.headers, *tags))
        try:
            return mime.draft(mail, sender=self._from)
        except UnsendableError as error:
            return Rejected(str(error))

    async def prepare(self, connection: SmtpSession | None) -> SmtpSession | Deferred:
        """Returns an open connection without a transaction: the given one if it still works."""
        if connection is not None:
            try:
                replace = connection.sent >= self._recycle_after
                if not replace and await connection.reset():
                    return connection
                await connection.close()
            finally:
                if not connection.connected:
                    connection.smtp.close()
        return await self._connect()

    async def transmit(self, connection: SmtpSession, envelope: Envelope) -> SendResult | RetryNow:
        """Sends the mail to the address of the check; see `reply.classify` for the replies."""
        written = self._write(connection, envelope)
        if not isinstance(written, WrittenMail):
            return written
        if connection.ahead is not None and not connection.ahead.has_commands_of(written):
            connection.abandon()
            return RetryNow(keep_connection=False)
        result = await connection.transact(written, lambda: self._write_ahead(connection))
        if connection.lost_ahead and self._sends_ahead:
            self._sends_ahead = False
            log.warning("smtp server loses commands that follow a body", host=self._server.host)
        return result

    def _write_ahead(self, connection: SmtpSession) -> WrittenMail | None:
        """Returns the next mail of this connection, if its commands may be sent together with the end of this one."""
        if connection.sent >= self._recycle_after or not self._sends_ahead:
            return None
        envelope = self.take_ahead()
        if envelope is None:
            return None
        try:
            written = self._write(connection, envelope)
        except Exception:  # noqa: BLE001 - it fails again once it is sent, and not the present mail
            return None
        return written if isinstance(written, WrittenMail) else None

    def _write(
        self, connection: SmtpSession, envelope: Envelope
    ) -> WrittenMail | SendResult | RetryNow:
        """Returns the commands and the content of a mail, to the address of its check."""
        check_result, ahead = envelope.check_result, connection.ahead
        if check_result is None:
            return RetryNow(keep_connection=True)
        if ahead is not None and ahead.envelope is envelope and ahead.check_result is check_result:
            return ahead
        try:
            to = mime.to_address(check_result.address)
        except UnsendableError as error:
            return SendResult(Rejected(str(error)))
        utf8 = to.utf8 or self._sender.utf8
        if utf8 and not connection.supports_utf8:
            return SendResult(Rejected("smtputf8_unsupported"))
        mail = mime.complete(envelope.draft, to=to, now=check_result.checked_at)
        if self._signer is not None:  # the whole mail: the address and the date are known now
            mail = self._signer.sign(mail, now=check_result.checked_at) + mail
        content = mime.stuff_dots(mail)
        size = len(content) + len(".\r\n")
        commands = (
            (Step.MAIL, self._mail_command(connection, envelope.message, size, utf8=utf8)),
            (Step.RCPT, f"RCPT TO:<{to.address}>".encode()),
            (Step.DATA, b"DATA"),
        )
        return WrittenMail(envelope, check_result, commands, content)

    async def discard(self, connection: SmtpSession) -> None:
        """Closes it with QUIT."""
        await connection.close()

    def _mail_command(
        self, session: SmtpSession, message: Message, size: int, *, utf8: bool
    ) -> bytes:
        tag = message.content.tag if isinstance(message.content, Mail) else ""
        command = f"MAIL FROM:<{self._return_path.replace(TAG_PLACE, tag)}>"
        if session.supports_size:  # RFC 1870: the server can refuse the size before the body
            command += f" SIZE={size}"
        if utf8:
            command += " SMTPUTF8 BODY=8BITMIME"
        return command.encode()

    async def _connect(self) -> SmtpSession | Deferred:
        """Connects, encrypts, logs in; a refusal here does not concern a message."""
        session = SmtpSession(
            SMTP(
                hostname=self._server.host,
                port=self._server.port,
                use_tls=self._server.tls,
                start_tls=False,  # done by SmtpSession.open
                tls_context=self._context,
                local_hostname=await self._own_name(),
                timeout=self._timeout,
            )
        )
        opened = False
        try:
            await session.open(self._server.starttls)
            if self._server.username is not None:
                await self._log_in(session, self._server.username)
            session.begin()
            opened = True
        except (SMTPException, OSError) as error:
            return self._connect_failure(session.step, error)
        finally:
            if not opened:
                session.smtp.close()
        return session

    async def _log_in(self, session: SmtpSession, username: str) -> None:
        """Logs in, but sends no password without TLS over a network unless `starttls` is "never"."""
        local = self._server.host in _LOOPBACK or self._server.starttls == "never"
        if not session.encrypted and not local:
            session.step = Step.TLS
            raise SMTPException("no password without TLS")
        await session.log_in(username, self._server.password or "")

    def _connect_failure(self, step: Step, error: Exception) -> Deferred:
        """Returns why there is no connection; logs an error if only an operator can help."""
        outcome = Deferred(f"smtp_{failure_reason(step, error)}")
        if isinstance(error, SMTPResponseException):
            classified = classify(step, error.code, error.message).outcome
            outcome = classified if isinstance(classified, Deferred) else outcome
        if step in {Step.AUTH, Step.TLS}:
            log.error("smtp login impossible", host=self._server.host, reason=outcome.reason)
        return outcome

    async def _own_name(self) -> str:
        """Returns the name for EHLO, that of this host; looks it up once."""
        if self._local_hostname is None:
            name = await in_thread(socket.getfqdn)
            self._local_hostname = name if _HOST_NAME.fullmatch(name) else "localhost"
        return self._local_hostname
