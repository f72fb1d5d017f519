"""One SMTP connection, step by step, so that whatever goes wrong is known with where it went wrong."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from typing import Literal, cast

from aiosmtplib import (
    SMTP,
    SMTPException,
    SMTPHeloError,
    SMTPResponseException,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)

from tocsin.engine.actors.answer import Again, Answer
from tocsin.engine.actors.mailbox import Envelope
from tocsin.engine.actors.smtp_reply import Step, classify, lost

Starttls = Literal["auto", "always", "never"]

_DRAIN = 0.005  # seconds between two looks whether a long body has gone out


class SmtpSession:
    """A connection and how far its dialogue came; the errors of `open` and `log_in` are aiosmtplib's."""

    def __init__(self, smtp: SMTP) -> None:
        self.smtp = smtp
        self.step = Step.CONNECT
        self.sent = 0  # messages tried on it
        self.dirty = False  # a transaction was begun and not ended: RSET before the next

    async def open(self, starttls: Starttls) -> None:
        """Connects, greets, and encrypts where that is asked for or, with "auto", offered."""
        await self.smtp.connect()
        await self._greet()
        if self.encrypted or starttls == "never":
            return
        self.step = Step.TLS
        if self.smtp.supports_extension("starttls"):
            await self.smtp.starttls()
            await self._greet()  # RFC 3207 section 4.2: what was known before doesn't count
        elif starttls == "always":
            raise SMTPException("STARTTLS is not offered")

    async def log_in(self, username: str, password: str) -> None:
        """Tries the methods that both sides know."""
        self.step = Step.AUTH
        await self.smtp.login(username, password)

    @property
    def encrypted(self) -> bool:
        """Whether the connection is under TLS."""
        return self.smtp.get_transport_info("sslcontext") is not None

    async def reset(self) -> bool:
        """Ends a transaction that was begun; false if the connection is no longer good."""
        if not self.smtp.is_connected:
            return False
        if self.dirty:
            try:
                await self.smtp.rset()
            except (SMTPException, OSError):
                return False
            self.dirty = False
        return True

    async def close(self) -> None:
        """Says QUIT without waiting long for the answer; doesn't raise."""
        try:
            if self.smtp.is_connected and not self.dirty:
                await self.smtp.quit(timeout=1.0)
        except (SMTPException, OSError):
            pass
        finally:
            self.smtp.close()

    async def transact(
        self, envelope: Envelope, commands: Sequence[tuple[Step, bytes]], content: bytes
    ) -> Answer | Again:
        """Sends MAIL, RCPT, DATA and the body.

        A connection used before that turns out closed at the first command was idle too long for
        the server: nothing was sent, so it goes `Again` on a new one.
        """
        if not envelope.begin():
            return Again(keep=True)
        self.sent += 1
        try:
            answer = await self._run(envelope, commands, content)
        except SMTPTimeoutError:
            return lost(self.step, "timeout")
        except SMTPResponseException:  # not an answer of SMTP at all
            return lost(self.step, "protocol_error")
        except OSError:
            answer = lost(self.step, "disconnected")
        gone = not answer.keep and not self.smtp.is_connected
        if self.step is Step.MAIL and gone and self.sent > 1:
            return Again(keep=False)
        return answer

    async def _run(
        self, envelope: Envelope, commands: Sequence[tuple[Step, bytes]], content: bytes
    ) -> Answer:
        for step, command in commands:
            self.step = step
            code, text = await self.smtp.execute_command(command)
            if code // 100 != (3 if step is Step.DATA else 2):
                return classify(step, code, text)
            self.dirty = True
        code, text = await self._write(envelope, content)
        self.dirty = False
        return classify(Step.BODY, code, text)

    async def _write(self, envelope: Envelope, content: bytes) -> tuple[int, str]:
        """Writes the body, and the final dot only once all before it has left this process.

        Until the dot the server can't have accepted anything, after it an answer that is missing
        tells nothing; so the step, and `commit`, change exactly there.
        """
        protocol = self.smtp.protocol
        transport = cast("asyncio.WriteTransport | None", self.smtp.transport)
        if protocol is None or transport is None:
            raise SMTPServerDisconnected("closed after the answer to DATA")
        protocol.write(content)
        while transport.get_write_buffer_size():  # noqa: ASYNC110 - a transport has no event for it
            await asyncio.sleep(_DRAIN)
        if not protocol.is_connected:
            raise SMTPServerDisconnected("closed during the body")
        self.step = Step.BODY
        envelope.commit()
        protocol.write(b".\r\n")
        return await protocol.read_response()

    async def _greet(self) -> None:
        self.step = Step.HELO
        try:
            await self.smtp.ehlo()
        except SMTPHeloError:
            if not self.smtp.is_connected:
                raise
            await self.smtp.helo()


def why(step: Step, error: Exception) -> str:
    """A stable word for a failure to connect."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(error, SMTPTimeoutError):
        return f"timeout_{step}"
    if isinstance(cause, ssl.SSLError):
        return "tls_failed"
    if isinstance(cause, socket.gaierror):
        return "host_unknown"
    if isinstance(cause, ConnectionRefusedError):
        return "connect_refused"
    if isinstance(cause, ConnectionError):
        return f"disconnected_{step}"
    if isinstance(cause, OSError):
        return "connect_failed"
    return {Step.TLS: "tls_not_offered", Step.AUTH: "auth_not_offered"}.get(step, "protocol_error")
