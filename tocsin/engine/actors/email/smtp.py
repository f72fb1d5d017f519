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
from msgspec import structs

from tocsin.engine.actors.email.reply import Step, classify, classify_no_reply
from tocsin.engine.actors.machinery.envelope import Envelope, RetryNow, SendResult

# Commands and replies on an open SMTP connection, several commands in one flight where the server takes that.
#
# aiosmtplib connects, greets, encrypts and logs in; then a dialogue takes the connection over. aiosmtplib sends
# one command and waits for its reply, four times a mail, each under a lock, a timer and a check of its own:
# that is most of what a mail costs.

Reply = tuple[int, str]

_MOST_BYTES = 32_768  # of one flight's replies
_MALFORMED = -1  # aiosmtplib's code for what is no reply
CLOSING = 421  # RFC 5321 section 3.8: whatever was asked, the server hangs up


class Dialogue(asyncio.Protocol):
    """Takes over the connection that `smtp` opened; whatever goes wrong is one of aiosmtplib's exceptions."""

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
        self._heard = 0  # bytes
        self._text: list[bytes] = []  # of a reply of several lines, as far as it came
        self.replies: list[Reply] = []  # to the last flight, as far as they came
        self._transport.set_protocol(self)

    @property
    def connected(self) -> bool:
        return not self._transport.is_closing()

    @property
    def unwritten(self) -> int:
        """Bytes that have not left this process yet."""
        return self._transport.get_write_buffer_size()

    def write(self, content: bytes) -> None:
        """Sends what is answered later."""
        if not self.connected:
            raise SMTPServerDisconnected("Connection lost")
        self._transport.write(content)

    def hang_up(self) -> None:
        """Closes the connection without a word."""
        self._transport.close()

    async def ask(self, flight: bytes, expected: int = 1, timeout: float | None = None) -> None:
        """Sends a flight, and returns once it has so many `replies`, or fewer and the server hangs up.

        `timeout` bounds the seconds to each reply. Raises SMTPServerDisconnected, SMTPTimeoutError, or
        SMTPResponseException for what is no reply; `replies` has those that came before.
        """
        self.replies = []
        self._buffer, self._text, self._heard = b"", [], 0
        self._expected, self._timeout = expected, timeout
        waiter = self._waiter = self._loop.create_future()
        try:
            self.write(flight)
            self._set_timer()
            await waiter
        except BaseException:
            self.hang_up()  # what comes later would be taken for the reply to something else
            raise
        finally:
            self._waiter = None
            self._stop_timer()

    # What the loop calls.

    def data_received(self, data: bytes) -> None:
        """Takes replies; what comes when none is expected belongs to no command, and is dropped."""
        if self._waiter is None or self._waiter.done():
            return
        self._buffer += data
        self._heard += len(data)
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
        """Moves whole replies from the buffer to `replies`."""
        if self._heard > _MOST_BYTES:
            raise SMTPResponseException(_MALFORMED, "too long")
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            if not line[:3].isdigit():
                raise SMTPResponseException(_MALFORMED, "malformed")
            self._text.append(line[4:].strip())
            if line[3:4] == b"-":
                continue
            text = b"\n".join(self._text).decode("utf-8", "surrogateescape")
            self._text.clear()
            self.replies.append((int(line[:3]), text))
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


Starttls = Literal["auto", "always", "never"]

_OK = 250
_AT_ONCE = 16_384  # bytes: the smallest buffer that Linux gives a socket to send from
_DRAIN = 0.005  # seconds between two looks whether a long body has gone out


class SmtpSession:
    """A connection and how far its dialogue came; the errors of `open` and `log_in` are aiosmtplib's."""

    def __init__(self, smtp: SMTP) -> None:
        self.smtp = smtp
        self.step = Step.CONNECT
        self.sent = 0  # messages tried on it
        self.dirty = False  # a transaction was begun and not ended: RSET before the next
        self.knows_size = self.knows_utf8 = self._pipelining = False
        self._dialogue: Dialogue | None = None

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

    def begin(self) -> None:
        """Ready for messages: aiosmtplib's part is done."""
        self.knows_size = self.smtp.supports_extension("size")
        self.knows_utf8 = self.smtp.supports_extension("smtputf8")
        self._pipelining = self.smtp.supports_extension("pipelining")
        self._dialogue = Dialogue(self.smtp)

    @property
    def encrypted(self) -> bool:
        """Whether the connection is under TLS."""
        return self.smtp.get_transport_info("sslcontext") is not None

    @property
    def connected(self) -> bool:
        return self._dialogue is not None and self._dialogue.connected

    async def reset(self) -> bool:
        """Ends a transaction that was begun; false if the connection is no longer good."""
        if self._dialogue is None or not self._dialogue.connected:
            return False
        if self.dirty:
            try:
                await self._dialogue.ask(b"RSET\r\n", timeout=self.smtp.timeout)
            except (SMTPException, OSError):
                return False
            if self._dialogue.replies[0][0] != _OK:
                return False
            self.dirty = False
        return True

    async def close(self) -> None:
        """Says QUIT without waiting long for the answer; doesn't raise."""
        try:
            if self._dialogue is not None and self._dialogue.connected and not self.dirty:
                await self._dialogue.ask(b"QUIT\r\n", timeout=1.0)
        except (SMTPException, OSError):
            pass
        finally:
            self.smtp.close()

    async def transact(
        self, envelope: Envelope, commands: Sequence[tuple[Step, bytes]], content: bytes
    ) -> SendResult | RetryNow:
        """Sends MAIL, RCPT, DATA and the body.

        A connection used before that turns out closed at the first command was idle too long for
        the server: nothing was sent, so it goes `RetryNow` on a new one.
        """
        if self._dialogue is None or not envelope.begin():
            return RetryNow(keep_connection=True)
        self.sent += 1
        try:
            answer = await self._run(self._dialogue, envelope, commands, content)
        except SMTPTimeoutError:
            return classify_no_reply(self.step, "timeout")
        except SMTPResponseException:  # not an answer of SMTP at all
            return classify_no_reply(self.step, "protocol_error")
        except OSError:
            answer = classify_no_reply(self.step, "disconnected")
        gone = not answer.keep_connection and not self._dialogue.connected
        if self.step is Step.MAIL and gone and self.sent > 1:
            return RetryNow(keep_connection=False)
        return answer

    async def _run(
        self,
        dialogue: Dialogue,
        envelope: Envelope,
        commands: Sequence[tuple[Step, bytes]],
        content: bytes,
    ) -> SendResult:
        flights = [commands] if self._pipelining else [[each] for each in commands]
        for flight in flights:
            if refused := await self._fly(dialogue, flight):
                return refused
        await self._write(dialogue, envelope, content)
        self.dirty = False
        return classify(Step.BODY, *dialogue.replies[0])

    async def _fly(
        self, dialogue: Dialogue, flight: Sequence[tuple[Step, bytes]]
    ) -> SendResult | None:
        """Sends commands together (RFC 2920); what the first one that was refused means."""
        missing: Exception | None = None
        try:
            commands = b"".join([command + b"\r\n" for _, command in flight])
            await dialogue.ask(commands, len(flight), self.smtp.timeout)
        except (SMTPException, OSError) as error:
            missing = error
        for (step, _), (code, text) in zip(flight, dialogue.replies, strict=False):
            self.step = step
            if code // 100 != (3 if step is Step.DATA else 2):
                return self._refused(dialogue, code, text)
            self.dirty = True
        if missing is not None:
            self.step = flight[len(dialogue.replies)][0]
            raise missing
        return None

    def _refused(self, dialogue: Dialogue, code: int, text: str) -> SendResult:
        answer = classify(self.step, code, text)
        last, _ = dialogue.replies[-1]
        # a server that wants the body of what it refused: there is no way back to the next command
        if code == CLOSING or last // 100 == 3:
            dialogue.hang_up()
            return structs.replace(answer, keep_connection=False)
        return answer

    async def _write(self, dialogue: Dialogue, envelope: Envelope, content: bytes) -> None:
        """Writes the body, and the final dot only once all before it has left this process.

        Until the dot the server can't have accepted anything, after it an answer that is missing
        tells nothing; so the step, and `commit`, change exactly there. What surely fits into the
        socket goes with its dot: the kernel takes all of that or nothing.
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
