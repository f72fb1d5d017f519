"""The commands and replies of one SMTP connection, several of them in one packet if the server can (RFC 2920)."""

from __future__ import annotations

import asyncio
from typing import cast

from aiosmtplib import SMTP, SMTPResponseException, SMTPServerDisconnected, SMTPTimeoutError

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
        self._ahead = False  # replies to commands that were sent ahead come, too
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

    async def ask(
        self,
        commands: bytes,
        expected: int = 1,
        timeout: float | None = None,
        *,
        ahead: bool = False,
    ) -> None:
        """Sends commands and waits for `expected` replies, or fewer if the server closes the connection.

        `timeout` bounds the seconds until each reply. With `ahead` the replies to further commands are kept until
        `await_ahead`. Raises SMTPServerDisconnected, SMTPTimeoutError, or SMTPResponseException for an invalid reply;
        `replies` has those that came before.
        """
        self._buffer, self._text, self._received = b"", [], 0
        self._ahead = ahead
        await self._await_replies(commands, expected, timeout)

    async def await_ahead(self, expected: int, timeout: float | None = None) -> None:
        """Waits for the replies to commands that were sent ahead, as `ask` does."""
        self._ahead = False
        await self._await_replies(b"", expected, timeout)

    async def _await_replies(self, commands: bytes, expected: int, timeout: float | None) -> None:
        self.replies = []
        self._expected, self._timeout = expected, timeout
        waiter = self._waiter = self._loop.create_future()
        try:
            if commands:
                self.write(commands)
            else:
                self._on_received()
                if not (waiter.done() or self.connected):
                    raise SMTPServerDisconnected("Connection lost")
            if self._timer is None:
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
        waits = self._waiter is not None and not self._waiter.done()
        if not (waits or self._ahead):
            return
        self._buffer += data
        self._received += len(data)
        if waits:
            self._on_received()
        elif self._received > _MOST_BYTES:
            self.close()

    def _on_received(self) -> None:
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
        buffer, start = self._buffer, 0
        while len(self.replies) < self._expected and (end := buffer.find(b"\n", start)) >= 0:
            line, start = buffer[start:end], end + 1
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
        self._buffer = buffer[start:]

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
