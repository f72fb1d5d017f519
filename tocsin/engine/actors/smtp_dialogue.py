"""Commands and replies on an open SMTP connection, several commands in one flight where the server takes that.

aiosmtplib connects, greets, encrypts and logs in; then a dialogue takes the connection over. aiosmtplib sends
one command and waits for its reply, four times a mail, each under a lock, a timer and a check of its own:
that is most of what a mail costs.
"""

from __future__ import annotations

import asyncio
from typing import cast

from aiosmtplib import SMTP, SMTPResponseException, SMTPServerDisconnected, SMTPTimeoutError

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
