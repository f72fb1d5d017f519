"""One SMTP connection: which step of the dialogue it is in, and several commands in one packet if the server can."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from aiosmtplib import (
    SMTP,
    SMTPException,
    SMTPHeloError,
    SMTPResponseException,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)
from msgspec import structs

from tocsin.engine.actors.email_reply import Step, classify, classify_no_reply
from tocsin.engine.actors.machinery.envelope import Envelope, RetryNow, SendResult, network_failure
from tocsin.settings.addresses import StartTls

SmtpReply = tuple[int, str]

_MOST_BYTES = 32_768  # of the replies to one batch of commands
_MALFORMED = -1  # aiosmtplib's code for an invalid reply
CLOSING = 421  # RFC 5321 section 3.8: the server closes the connection


class Dialogue(asyncio.Protocol):
    """Takes over the connection that `smtp` opened; its errors are aiosmtplib's exceptions.

    aiosmtplib connects, encrypts and logs in. It would also send one command at a time and wait for its reply, four
    times a mail, each with a lock, a timer and a check: most of the cost of a mail.
    """

    def __init__(self, smtp: SMTP) -> None:
        self._loop = asyncio.get_running_loop()
        self._before = smtp.protocol
        if smtp.transport is None or self._before is None:
            raise SMTPServerDisconnected("closed after the greeting")
        self._transport = cast("asyncio.Transport", smtp.transport)
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timeout: float | None = None
        self._expected = 0
        self._buffer = b""
        self._received = 0  # bytes
        self._text: list[bytes] = []  # the lines of an unfinished reply
        self.replies: list[SmtpReply] = []  # to the last batch, as far as they came
        self._transport.set_protocol(self)

    @property
    def connected(self) -> bool:
        return not self._transport.is_closing()

    @property
    def unwritten(self) -> int:
        """Bytes that are not written to the socket yet."""
        return self._transport.get_write_buffer_size()

    def write(self, content: bytes) -> None:
        """Sends bytes that get no reply of their own."""
        if not self.connected:
            raise SMTPServerDisconnected("Connection lost")
        self._transport.write(content)

    def close(self) -> None:
        """Closes the connection without QUIT."""
        self._transport.close()

    async def ask(self, commands: bytes, expected: int = 1, timeout: float | None = None) -> None:
        """Sends commands and waits for `expected` replies, or fewer if the server closes the connection.

        `timeout` bounds the seconds until each reply. Raises SMTPServerDisconnected, SMTPTimeoutError, or
        SMTPResponseException for an invalid reply; `replies` has those that came before.
        """
        self.replies = []
        self._buffer, self._text, self._received = b"", [], 0
        self._expected, self._timeout = expected, timeout
        waiter = self._waiter = self._loop.create_future()
        try:
            self.write(commands)
            self._set_timer()
            await waiter
        except BaseException:
            self.close()  # a late reply would be taken as that to another command
            raise
        finally:
            self._waiter = None
            self._stop_timer()

    # What asyncio calls.

    def data_received(self, data: bytes) -> None:
        """Reads replies; ignores bytes that come while no reply is expected."""
        if self._waiter is None or self._waiter.done():
            return
        self._buffer += data
        self._received += len(data)
        before = len(self.replies)
        try:
            self._read()
        except SMTPResponseException as error:
            self._end(error)
            return
        if len(self.replies) >= self._expected:
            self._end(None)
        elif len(self.replies) > before:
            if self.replies[-1][0] == CLOSING:
                self._end(None)
            else:
                self._stop_timer()
                self._set_timer()

    def eof_received(self) -> bool:
        self._end(SMTPServerDisconnected("Unexpected EOF received"))
        return False  # closes the transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._before is not None:
            self._before.connection_lost(exc)
        self._end(SMTPServerDisconnected("Connection lost"))

    def _read(self) -> None:
        """Moves complete replies from the buffer to `replies`."""
        if self._received > _MOST_BYTES:
            raise SMTPResponseException(_MALFORMED, "too long")
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            if not line[:3].isdigit():
                raise SMTPResponseException(_MALFORMED, "malformed")
            text = line[4:].strip()
            if line[3:4] == b"-":
                self._text.append(text)
                continue
            if self._text:
                text = b"\n".join((*self._text, text))
                self._text.clear()
            self.replies.append((int(line[:3]), text.decode("utf-8", "surrogateescape")))
            if len(self.replies) == self._expected:
                return

    def _end(self, error: Exception | None) -> None:
        if self._waiter is None or self._waiter.done():
            return
        if error is None:
            self._waiter.set_result(None)
        else:
            self._waiter.set_exception(error)

    def _set_timer(self) -> None:
        if self._timeout is not None:
            self._timer = self._loop.call_later(
                self._timeout, self._end, SMTPTimeoutError("Timed out waiting for a reply")
            )

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_OK = 250
_AT_ONCE = 16_384  # bytes: the smallest send buffer of a socket in Linux
_DRAIN = 0.005  # seconds between two checks whether a long body was written


class SmtpSession:
    """A connection and its current step; the errors of `open` and `log_in` are aiosmtplib's."""

    def __init__(self, smtp: SMTP) -> None:
        self.smtp = smtp
        self.step = Step.CONNECT
        self.sent = 0  # messages, whatever became of them
        self.in_transaction = False  # needs RSET before the next message
        self.supports_size = self.supports_utf8 = self._pipelining = False
        self._dialogue: Dialogue | None = None

    async def open(self, starttls: StartTls) -> None:
        """Connects, and encrypts if that is required or, with "auto", offered."""
        await self.smtp.connect()
        await self._greet()
        if self.encrypted or starttls == "never":
            return
        self.step = Step.TLS
        if self.smtp.supports_extension("starttls"):
            await self.smtp.starttls()
            await self._greet()  # RFC 3207 section 4.2: extensions known before are discarded
        elif starttls == "always":
            raise SMTPException("STARTTLS is not offered")

    async def log_in(self, username: str, password: str) -> None:
        """Logs in by a method that both sides support."""
        self.step = Step.AUTH
        await self.smtp.login(username, password)

    def begin(self) -> None:
        """Takes the connection over from aiosmtplib, ready for messages."""
        self.supports_size = self.smtp.supports_extension("size")
        self.supports_utf8 = self.smtp.supports_extension("smtputf8")
        self._pipelining = self.smtp.supports_extension("pipelining")
        self._dialogue = Dialogue(self.smtp)

    @property
    def encrypted(self) -> bool:
        """Whether the connection uses TLS."""
        return self.smtp.get_transport_info("sslcontext") is not None

    @property
    def connected(self) -> bool:
        return self._dialogue is not None and self._dialogue.connected

    async def reset(self) -> bool:
        """Ends an open transaction; returns false if the connection no longer works."""
        if self._dialogue is None or not self._dialogue.connected:
            return False
        if self.in_transaction:
            try:
                await self._dialogue.ask(b"RSET\r\n", timeout=self.smtp.timeout)
            except (SMTPException, OSError):
                return False
            if self._dialogue.replies[0][0] != _OK:
                return False
            self.in_transaction = False
        return True

    async def close(self) -> None:
        """Closes it with QUIT, without waiting long for the reply; does not raise."""
        try:
            if self._dialogue is not None and self._dialogue.connected and not self.in_transaction:
                await self._dialogue.ask(b"QUIT\r\n", timeout=1.0)
        except (SMTPException, OSError):
            pass
        finally:
            self.smtp.close()

    async def transact(
        self, envelope: Envelope, commands: Sequence[tuple[Step, bytes]], content: bytes
    ) -> SendResult | RetryNow:
        """Sends MAIL, RCPT, DATA and the body.

        If a connection that was used before is closed at the first command, it was idle too long for the server:
        nothing was sent, so the message is retried at once on a new one.
        """
        if self._dialogue is None or not envelope.begin():
            return RetryNow(keep_connection=True)
        self.sent += 1
        try:
            result = await self._run(self._dialogue, envelope, commands, content)
        except SMTPTimeoutError:
            return classify_no_reply(self.step, "timeout")
        except SMTPResponseException:  # not a reply of SMTP
            return classify_no_reply(self.step, "protocol_error")
        except OSError:
            result = classify_no_reply(self.step, "disconnected")
        closed = not result.keep_connection and not self._dialogue.connected
        if self.step is Step.MAIL and closed and self.sent > 1:
            return RetryNow(keep_connection=False)
        return result

    async def _run(
        self,
        dialogue: Dialogue,
        envelope: Envelope,
        commands: Sequence[tuple[Step, bytes]],
        content: bytes,
    ) -> SendResult:
        batches = [commands] if self._pipelining else [[each] for each in commands]
        for batch in batches:
            if refused := await self._send_commands(dialogue, batch):
                return refused
        await self._write(dialogue, envelope, content)
        self.in_transaction = False
        return classify(Step.BODY, *dialogue.replies[0])

    async def _send_commands(
        self, dialogue: Dialogue, batch: Sequence[tuple[Step, bytes]]
    ) -> SendResult | None:
        """Sends commands together (RFC 2920); returns what the first refusal means, None if there is none."""
        missing: Exception | None = None
        try:
            commands = b"".join([command + b"\r\n" for _, command in batch])
            await dialogue.ask(commands, len(batch), self.smtp.timeout)
        except (SMTPException, OSError) as error:
            missing = error
        for (step, _), (code, text) in zip(batch, dialogue.replies, strict=False):
            self.step = step
            if code // 100 != (3 if step is Step.DATA else 2):
                return self._refused(dialogue, code, text)
            self.in_transaction = True
        if missing is not None:
            self.step = batch[len(dialogue.replies)][0]
            raise missing
        return None

    def _refused(self, dialogue: Dialogue, code: int, text: str) -> SendResult:
        result = classify(self.step, code, text)
        last, _ = dialogue.replies[-1]
        # a server that expects the body although it refused: the next command would be read as the body
        if code == CLOSING or last // 100 == 3:
            dialogue.close()
            return structs.replace(result, keep_connection=False)
        return result

    async def _write(self, dialogue: Dialogue, envelope: Envelope, content: bytes) -> None:
        """Writes the body, and the final dot once all before it is written to the socket.

        Before the dot the server can't have accepted the message; after it, a lost reply means that it may have. So the
        step changes, and `commit` is called, exactly between them. A body that surely fits into the socket is written
        together with its dot: the kernel takes all of it or nothing.
        """
        dot = b".\r\n"
        if len(content) > _AT_ONCE:
            dialogue.write(content)
            content = b""
            while dialogue.unwritten:  # noqa: ASYNC110 - a transport has no event for it
                await asyncio.sleep(_DRAIN)
        if not dialogue.connected:
            raise SMTPServerDisconnected("closed during the body")
        self.step = Step.BODY
        envelope.commit()
        await dialogue.ask(content + dot)

    async def _greet(self) -> None:
        self.step = Step.HELO
        try:
            await self.smtp.ehlo()
        except SMTPHeloError:
            if not self.smtp.is_connected:
                raise
            await self.smtp.helo()


def failure_reason(step: Step, error: Exception) -> str:
    """Returns a stable word for a failure to connect."""
    for each in (error,) if isinstance(error, TimeoutError) else (error.__cause__, error):
        if isinstance(each, OSError):
            return network_failure(each, step)
    return {Step.TLS: "tls_not_offered", Step.AUTH: "auth_not_offered"}.get(step, "protocol_error")
