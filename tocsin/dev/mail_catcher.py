"""Catches the mails of `tocsin up` and of the tests: an SMTP server that keeps each mail as a file.

A mail can come back too, as a mail server or a provider would report it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from contextlib import suppress
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import msgspec
from aiosmtpd.smtp import SMTP, Envelope, Session
from msgspec import Struct

HOST = "127.0.0.1"
MAX_BYTES = 10_000_000  # a mail; more is refused with 552
KEPT = 5_000  # mails, so that a benchmark does not fill the disk
PRUNE_EVERY = 500


class MailEnvelope(Struct, frozen=True):
    """The addresses of the SMTP session, which the mail's own headers need not repeat."""

    sender: str
    recipients: list[str]


class MailCatcher:
    """An SMTP server in the running event loop; a mail is on disk before the sender gets 250."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._kept = kept
        self._stored = 0
        self._server: asyncio.Server | None = None
        self._sessions: set[_Session] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        if self._server is None:
            raise RuntimeError("The mail catcher is not started")
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """The value for TOCSIN_SMTP_URL."""
        return f"smtp://{HOST}:{self.port}?starttls=never"

    async def start(self, port: int = 0) -> None:
        """Listens on a port of 127.0.0.1; 0 takes a free one."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for draft in self.folder.glob("*.tmp"):
            draft.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._session, HOST, port)

    async def stop(self) -> None:
        """Closes it with its open sessions; mails that got 250 are kept."""
        if self._server is None:
            return
        self._server.close()
        for session in list(self._sessions):
            session.close()
        await asyncio.sleep(0.01)  # each session ends in an iteration of the event loop
        self._server = None

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Called by aiosmtpd with each mail."""
        content = envelope.content or b""
        body = content if isinstance(content, bytes) else content.encode()
        try:
            self._store(body, MailEnvelope(envelope.mail_from or "", list(envelope.rcpt_tos)))
        except OSError as error:
            return f"452 4.3.1 The mail can't be stored: {error.strerror}"
        return "250 2.0.0 Kept"

    async def handle_exception(self, _error: Exception) -> str:
        """Called by aiosmtpd for a sender that closed its connection, or a bug; the other sessions continue."""
        return "451 4.3.0 Internal error; try again"

    def _session(self) -> _Session:
        return _Session(
            self,
            self._sessions,
            hostname="localhost",
            ident="Tocsin's mail catcher",
            data_size_limit=self._max_bytes,
            enable_SMTPUTF8=True,
            loop=asyncio.get_running_loop(),
        )

    def _store(self, content: bytes, envelope: MailEnvelope) -> None:
        # Sorted by name is sorted by time; the random part keeps two in one tick apart.
        mail_id = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        _write(self.folder / f"{mail_id}.json", msgspec.json.encode(envelope))
        _write(self.folder / f"{mail_id}.eml", content)
        self._stored += 1
        if self._stored % PRUNE_EVERY == 0:
            for old in _ids(self.folder)[self._kept :]:
                _remove(self.folder, old)


class _Session(SMTP):
    """One connection, counted among the open ones for as long as it lasts."""

    def __init__(self, catcher: MailCatcher, sessions: set[_Session], **options: Any) -> None:
        super().__init__(catcher, **options)
        self._open = sessions

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._open.discard(self)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


def read_mails(folder: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """Returns the newest mails first, each as `read_mail` gives it; all of them, or the newest `limit`."""
    mails = (read_mail(folder, mail_id) for mail_id in _ids(folder)[:limit])
    return [mail for mail in mails if mail is not None]


def read_mail(folder: Path, mail_id: str) -> dict[str, Any] | None:
    """Returns `{"id", "from", "to", "subject", "headers", "text", "html", …}`, or None where there is none.

    `from` and `to` are plain addresses, `to` those of the envelope; `headers` has each decoded.
    """
    if not all(char.isalnum() or char == "-" for char in mail_id):
        return None
    file = folder / f"{mail_id}.eml"
    try:
        return _parsed(file) if file.exists() else None
    except FileNotFoundError:
        return None  # removed at this moment


@lru_cache(maxsize=KEPT)
def _parsed(file: Path) -> dict[str, Any]:
    """Returns a parsed mail, cached: a mail never changes, and each request for the list reads all of them."""
    content, mail_id, folder = file.read_bytes(), file.stem, file.parent
    envelope = _envelope(folder / f"{mail_id}.json")
    mail = message_from_bytes(content, policy=policy.default)
    headers = _headers(mail)
    named = {name.lower(): value for name, value in headers.items()}
    return {
        "id": mail_id,
        "from": parseaddr(named.get("from", ""))[1] or envelope.sender,
        "to": envelope.recipients,
        "subject": named.get("subject", ""),
        "headers": headers,
        "text": _part(mail, "plain"),
        "html": _part(mail, "html"),
        "envelope_from": envelope.sender,
        "received_at": _received_at(mail_id),
    }


def clear(folder: Path) -> int:
    """Removes all mails; returns how many there were."""
    mail_ids = _ids(folder)
    for mail_id in mail_ids:
        _remove(folder, mail_id)
    return len(mail_ids)


def _ids(folder: Path) -> list[str]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted((name[:-4] for name in names if name.endswith(".eml")), reverse=True)


def _remove(folder: Path, mail_id: str) -> None:
    for suffix in (".eml", ".json"):
        (folder / f"{mail_id}{suffix}").unlink(missing_ok=True)


def _write(file: Path, content: bytes) -> None:
    """Writes under another name first: a reader finds all of it or nothing."""
    draft = file.with_suffix(f"{file.suffix}.tmp")
    draft.write_bytes(content)
    draft.replace(file)


def _envelope(file: Path) -> MailEnvelope:
    try:
        return msgspec.json.decode(file.read_bytes(), type=MailEnvelope)
    except (OSError, msgspec.DecodeError):
        return MailEnvelope("", [])


def _headers(mail: EmailMessage) -> dict[str, str]:
    """Returns the headers: a repeated one (Received) has a line each, an invalid one is kept as it was written."""
    headers: dict[str, str] = {}
    for name, raw in mail.raw_items():
        try:
            value = str(policy.default.header_fetch_parse(name, raw))
        except Exception:  # noqa: BLE001 - the parser raises many things on broken headers
            value = " ".join(str(raw).split())
        value = value.encode(errors="surrogateescape").decode(errors="replace")
        headers[name] = f"{headers[name]}\n{value}" if name in headers else value
    return headers


def _part(mail: EmailMessage, subtype: str) -> str:
    """Returns the mail's body of that kind, decoded as far as possible; empty where there is none."""
    with suppress(Exception):  # broken MIME: an empty part rather than an error for the list
        for part in mail.walk():
            if part.get_content_type() == f"text/{subtype}" and not part.is_attachment():
                return _decoded(part)
    return ""


def _decoded(part: EmailMessage) -> str:
    content = part.get_payload(decode=True)
    body = content if isinstance(content, bytes) else b""
    try:
        text = body.decode(part.get_content_charset("utf-8"), errors="replace")
    except LookupError:  # an unknown charset
        text = body.decode(errors="replace")
    return text.replace("\r\n", "\n")


def _received_at(mail_id: str) -> str:
    stamp = datetime.fromtimestamp(int(mail_id.partition("-")[0]) / 1e9, UTC)
    return stamp.isoformat(timespec="milliseconds").replace("+00:00", "Z")


ReturnKind = Literal["bounce", "complaint"]

_BOUNCE = """\
Reporting-MTA: dns; localhost

Final-Recipient: rfc822; {address}
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 No such user here
"""
_COMPLAINT = """\
Feedback-Type: abuse
User-Agent: Tocsin's mail catcher
Version: 1
"""
_REPORT = """\
From: MAILER-DAEMON@localhost
To: {sender}
Subject: Report
Date: {date}
MIME-Version: 1.0
Content-Type: multipart/report; report-type={kind}; boundary="=report"

--=report
Content-Type: text/plain

This mail came back.

--=report
Content-Type: message/{kind}

{fields}
--=report
Content-Type: message/rfc822

"""


def returned(mail: bytes, kind: ReturnKind, *, sender: str, address: str) -> bytes:
    """Returns the report on a mail: that its mailbox does not exist (RFC 3464), or a complaint (RFC 5965)."""
    head = _REPORT.format(
        sender=sender,
        date=format_datetime(datetime.now(UTC)),
        kind="delivery-status" if kind == "bounce" else "feedback-report",
        fields=(_BOUNCE if kind == "bounce" else _COMPLAINT).format(address=address),
    )
    return head.replace("\n", "\r\n").encode() + mail + b"\r\n--=report--\r\n"
