"""Email by SMTP: a few connections that are used again, each mail at its own address."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from aiosmtplib import SMTP, SMTPException, SMTPResponseException

from tocsin.engine.actors.email import mime
from tocsin.engine.actors.email.mime import UnsendableError
from tocsin.engine.actors.email.reply import Step, classify
from tocsin.engine.actors.email.smtp import SmtpSession, Starttls, why
from tocsin.engine.actors.machinery.base import Actor
from tocsin.engine.actors.machinery.envelope import Envelope, RetryNow, SendResult
from tocsin.engine.model import Deferred, Mail, Message, PresendCheck, Rejected

if TYPE_CHECKING:
    from tocsin.engine.actors.email.dkim import Signer  # 0.1 s to import

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_STORM = (
    "the mail server refuses every address, so none is believed to be dead: is TOCSIN_SMTP_URL the server that relays"
    " for us, and does it know where to?"
)
_HOST_NAME = re.compile(r"[A-Za-z0-9.-]{1,253}")

log = structlog.get_logger(__name__)


class EmailActor(Actor[SmtpSession]):
    """Sends mails through one SMTP server.

    `sender` is `Name <name@example.org>`; `tls` is TLS from the first byte, `starttls` "auto" takes
    it where it is offered. `timeout` bounds each answer in seconds, but not that to the final dot:
    there only the deadline of the whole message counts. A connection is renewed after
    `recycle_after` messages. `signer` signs each mail by DKIM. Further options are those of
    `Actor`. Raises UnsendableError for a sender
    that no mail can have.
    """

    def __init__(
        self,
        *,
        presend_check: PresendCheck,
        sender: str,
        host: str,
        port: int,
        username: str | None = None,
        password: str | None = None,
        tls: bool = False,
        starttls: Starttls = "auto",
        ca_file: Path | str | None = None,
        signer: Signer | None = None,
        local_hostname: str | None = None,
        timeout: float = 20.0,
        recycle_after: int = 100,
        **options: Any,
    ) -> None:
        super().__init__(name="email", presend_check=presend_check, advice=_STORM, **options)
        self._sender, self._from = mime.to_sender(sender)
        self._host = host
        self._port = port
        self._username = username
        self._password = password
        self._tls = tls
        self._starttls = starttls
        self._context = ssl.create_default_context(cafile=ca_file)
        self._signer = signer
        self._local_hostname = local_hostname
        self._timeout = timeout
        self._recycle_after = recycle_after

    def draft(self, message: Message) -> bytes | Rejected:
        """The MIME message, but for its address."""
        if not isinstance(message.content, Mail):
            return Rejected("not_a_mail")
        try:
            return mime.draft(message.content, sender=self._from)
        except UnsendableError as error:
            return Rejected(str(error))

    async def prepare(self, connection: SmtpSession | None) -> SmtpSession | Deferred:
        """An open connection without a transaction, the given one if it is still good."""
        if connection is not None:
            try:
                worn = connection.sent >= self._recycle_after
                if not worn and await connection.reset():
                    return connection
                await connection.close()
            finally:
                if not connection.connected:
                    connection.smtp.close()
        return await self._connect()

    async def transmit(self, connection: SmtpSession, envelope: Envelope) -> SendResult | RetryNow:
        """Sends the mail to the address of this moment; see `classify` for the answers."""
        check_result = envelope.check_result
        if check_result is None:
            return RetryNow(keep_connection=True)
        try:
            to = mime.to_mailbox(check_result.address)
        except UnsendableError as error:
            return SendResult(Rejected(str(error)))
        utf8 = to.utf8 or self._sender.utf8
        if utf8 and not connection.knows_utf8:
            return SendResult(Rejected("smtputf8_unsupported"))
        mail = mime.address(envelope.draft, to=to, now=check_result.checked_at)
        if self._signer is not None:  # of what is final: the address and the date are known now
            mail = self._signer.sign(mail, now=check_result.checked_at) + mail
        content = mime.stuff_dots(mail)
        size = len(content) + len(".\r\n")
        commands = (
            (Step.MAIL, self._mail_command(connection, size, utf8=utf8)),
            (Step.RCPT, f"RCPT TO:<{to.address}>".encode()),
            (Step.DATA, b"DATA"),
        )
        return await connection.transact(envelope, commands, content)

    async def discard(self, connection: SmtpSession) -> None:
        """Closes it politely."""
        await connection.close()

    def _mail_command(self, session: SmtpSession, size: int, *, utf8: bool) -> bytes:
        command = f"MAIL FROM:<{self._sender.address}>"
        if session.knows_size:  # RFC 1870: too large is then known before the body
            command += f" SIZE={size}"
        if utf8:
            command += " SMTPUTF8 BODY=8BITMIME"
        return command.encode()

    async def _connect(self) -> SmtpSession | Deferred:
        """Connects, greets, encrypts, logs in; what the server refuses here is not about a message."""
        session = SmtpSession(
            SMTP(
                hostname=self._host,
                port=self._port,
                use_tls=self._tls,
                start_tls=False,  # by SmtpSession.open, which knows where it stands
                tls_context=self._context,
                local_hostname=await self._own_name(),
                timeout=self._timeout,
            )
        )
        opened = False
        try:
            await session.open(self._starttls)
            if self._username is not None:
                await self._log_in(session, self._username)
            session.begin()
            opened = True
        except (SMTPException, OSError) as error:
            return self._refused(session.step, error)
        finally:
            if not opened:
                session.smtp.close()
        return session

    async def _log_in(self, session: SmtpSession, username: str) -> None:
        """Logs in, but sends no password in clear over a network unless `starttls` is "never"."""
        local = self._host in _LOOPBACK or self._starttls == "never"
        if not session.encrypted and not local:
            session.step = Step.TLS
            raise SMTPException("no password without TLS")
        await session.log_in(username, self._password or "")

    def _refused(self, step: Step, error: Exception) -> Deferred:
        """Why there is no connection; loud where only an operator can help."""
        outcome = Deferred(f"smtp_{why(step, error)}")
        if isinstance(error, SMTPResponseException):
            answered = classify(step, error.code, error.message).outcome
            outcome = answered if isinstance(answered, Deferred) else outcome
        if step in {Step.AUTH, Step.TLS}:
            log.error("smtp login impossible", host=self._host, reason=outcome.reason)
        return outcome

    async def _own_name(self) -> str:
        """The name for EHLO: this host's, looked up once."""
        if self._local_hostname is None:
            name = await asyncio.to_thread(socket.getfqdn)
            self._local_hostname = name if _HOST_NAME.fullmatch(name) else "localhost"
        return self._local_hostname
