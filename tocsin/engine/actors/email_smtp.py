"""One SMTP connection: which step of the dialogue it is in, and which mail's commands were sent ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from aiosmtplib import (
    SMTP,
    SMTPException,
    SMTPHeloError,
    SMTPResponseException,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)
from msgspec import Struct, structs

from tocsin.engine.actors.email_dialogue import CLOSING, Dialogue
from tocsin.engine.actors.email_reply import Step, classify, classify_no_reply
from tocsin.engine.actors.machinery.envelope import Envelope, RetryNow, SendResult, network_failure
from tocsin.engine.model import CheckResult
from tocsin.settings.addresses import StartTls

_OK = 250
_AT_ONCE = 16_384  # bytes: the smallest send buffer of a socket in Linux
_DRAIN = 0.005  # seconds between two checks whether a long body was written


class WrittenMail(Struct, eq=False):
    """A mail as it goes over a connection."""

    envelope: Envelope
    check_result: CheckResult
    commands: Sequence[tuple[Step, bytes]]  # MAIL, RCPT, DATA
    content: bytes

    def has_commands_of(self, mail: WrittenMail) -> bool:
        """Returns whether its commands are those of this mail."""
        return self.envelope is mail.envelope and self.commands == mail.commands


class SmtpSession:
    """A connection and its current step; the errors of `open` and `log_in` are aiosmtplib's."""

    def __init__(self, smtp: SMTP) -> None:
        self.smtp = smtp
        self.step = Step.CONNECT
        self.sent = 0  # messages, whatever became of them
        self.in_transaction = False  # needs RSET before the next message
        self.ahead: WrittenMail | None = None  # whose commands were sent with the end of another
        self.lost_ahead = False  # the server gave no reply to commands that were sent so
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
        """Ends an open transaction, except that of the mail whose commands were sent ahead.

        Returns false if the connection no longer works.
        """
        if self._dialogue is None:
            return False
        if self.ahead is not None:
            return True  # the replies may be there, although the connection was closed since
        if not self._dialogue.connected:
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

    def abandon(self) -> None:
        """Gives up the mail whose commands were sent ahead, and the connection with it: its body was not sent."""
        self.ahead = None
        if self._dialogue is not None:
            self._dialogue.close()

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
        self, mail: WrittenMail, following: Callable[[], WrittenMail | None]
    ) -> SendResult | RetryNow:
        """Sends MAIL, RCPT, DATA and the body, and with its end the commands of the `following` mail (RFC 2920).

        If a connection that was used before is closed at the first command, it was idle too long for the server:
        nothing was sent, so the message is retried at once on a new one. So it is if a server gives no reply to
        commands that were sent ahead.
        """
        if self._dialogue is None or not mail.envelope.begin():
            return RetryNow(keep_connection=True)
        ahead, self.ahead = self.ahead, None
        self.sent += 1
        try:
            result = await self._run(self._dialogue, mail, following, ahead=ahead is not None)
        except SMTPTimeoutError:
            if ahead is not None and self.step is Step.MAIL:
                self.lost_ahead = True
                return RetryNow(keep_connection=False)
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
        mail: WrittenMail,
        following: Callable[[], WrittenMail | None],
        *,
        ahead: bool,
    ) -> SendResult:
        commands = mail.commands
        for batch in [commands] if self._pipelining else [[each] for each in commands]:
            if refused := await self._send_commands(dialogue, batch, ahead=ahead):
                return refused
        await self._write(dialogue, mail, following)
        self.in_transaction = self.ahead is not None
        return classify(Step.BODY, *dialogue.replies[0])

    async def _send_commands(
        self, dialogue: Dialogue, batch: Sequence[tuple[Step, bytes]], *, ahead: bool
    ) -> SendResult | None:
        """Sends commands together (RFC 2920), unless they were sent ahead; returns what the first refusal means."""
        missing: Exception | None = None
        try:
            if ahead:
                await dialogue.await_ahead(len(batch), self.smtp.timeout)
            else:
                await dialogue.ask(_lines(batch), len(batch), self.smtp.timeout)
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

    async def _write(
        self,
        dialogue: Dialogue,
        mail: WrittenMail,
        following: Callable[[], WrittenMail | None],
    ) -> None:
        """Writes the body, and the final dot once all before it is written to the socket.

        Before the dot the server can't have accepted the message; after it, a lost reply means that it may have. So the
        step changes, and `commit` is called, exactly between them. A body that surely fits into the socket is written
        together with its dot: the kernel takes all of it or nothing.
        """
        content = mail.content
        if len(content) > _AT_ONCE:
            dialogue.write(content)
            content = b""
            while dialogue.unwritten:  # noqa: ASYNC110 - a transport has no event for it
                await asyncio.sleep(_DRAIN)
        if not dialogue.connected:
            raise SMTPServerDisconnected("closed during the body")
        end = content + b".\r\n"
        if self._pipelining and (ahead := following()) is not None:
            commands = _lines(ahead.commands)
            if len(end) + len(commands) <= _AT_ONCE and ahead.envelope.begin():
                self.ahead = ahead
                end += commands
        self.step = Step.BODY
        mail.envelope.commit()
        await dialogue.ask(end, ahead=self.ahead is not None)

    async def _greet(self) -> None:
        self.step = Step.HELO
        try:
            await self.smtp.ehlo()
        except SMTPHeloError:
            if not self.smtp.is_connected:
                raise
            await self.smtp.helo()


def _lines(batch: Sequence[tuple[Step, bytes]]) -> bytes:
    return b"".join([command + b"\r\n" for _, command in batch])


def failure_reason(step: Step, error: Exception) -> str:
    """Returns a stable word for a failure to connect."""
    for each in (error,) if isinstance(error, TimeoutError) else (error.__cause__, error):
        if isinstance(each, OSError):
            return network_failure(each, step)
    return {Step.TLS: "tls_not_offered", Step.AUTH: "auth_not_offered"}.get(step, "protocol_error")
