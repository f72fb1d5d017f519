"""Mail that comes back: reads raw messages that report on a mail, and makes of a report what is stored.

A raw message is a delivery status notification (RFC 3464) or a complaint (RFC 5965). The standard library takes its
parts apart. Older forms that follow no RFC, such as qmail's, are recognised by flufl.bounce
(docs/adr/0076-mail-that-comes-back.md). What is neither is not a report: None.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email import message_from_bytes, message_from_string
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Literal

from msgspec import Struct

from tocsin.engine.actors.email_reply import is_dead_mailbox
from tocsin.engine.mail.links import TAG_HEADER, find_tagged_delivery
from tocsin.engine.store.mail_event import NewMailEvent

_ENHANCED = re.compile(r"(?<![\d.])([45]\.\d{1,3}\.\d{1,3})(?![\d.]*\d)", re.ASCII)
_GENERIC = frozenset({"5.0.0", "4.0.0"})  # no more than permanent, and transient
_LONGEST_ID = 200
_LONGEST_ADDRESS = 320


class ForgedReport(Exception):
    """Raised for a call without the proof of its provider; `allowed` is False for one of a topic that is not ours."""

    def __init__(self, message: str, *, allowed: bool = True) -> None:
        super().__init__(message)
        self.allowed = allowed


class MailReport(Struct, frozen=True):
    """One bounce or complaint, as it was reported.

    `references` are texts that may contain the tag of the mail, the most reliable first. `provider_id` and `address`
    find the delivery where none of them does.
    """

    key: str  # what identifies it at its source
    kind: Literal["bounce", "complaint"]
    references: tuple[str, ...]
    status: str | None = None  # enhanced status code of a bounce (RFC 3463)
    occurred_at: datetime | None = None
    provider_id: str | None = None
    address: str | None = None


def find_status(*texts: str | None) -> str | None:
    """Returns the first enhanced status code in these texts that is more exact than permanent or transient."""
    found = [code for text in texts if text for code in _ENHANCED.findall(text[:2000])]
    return next((code for code in found if code not in _GENERIC), found[0] if found else None)


def to_mail_events(reports: Iterable[MailReport], key: bytes) -> list[NewMailEvent]:
    """Returns what is stored of these reports; `key` is that of our tags."""
    return [_to_mail_event(each, key) for each in reports]


def _to_mail_event(report: MailReport, key: bytes) -> NewMailEvent:
    tagged = (find_tagged_delivery(key, text) for text in report.references)
    delivery_id = next((each for each in tagged if each is not None), None)
    by_provider = delivery_id is None and report.provider_id and report.address
    return NewMailEvent(
        key=report.key,
        kind=report.kind,
        reason=_reason_of(report),
        dead=report.kind == "complaint" or is_dead_mailbox(report.status),
        occurred_at=report.occurred_at or datetime.now(UTC),
        delivery_id=delivery_id,
        provider_id=_storable(report.provider_id, _LONGEST_ID) if by_provider else None,
        address=_storable(report.address, _LONGEST_ADDRESS) if by_provider else None,
    )


def _reason_of(report: MailReport) -> str:
    if report.kind == "complaint":
        return "complaint"
    return f"bounce_{report.status}" if report.status else "bounce"


def _storable(text: str | None, longest: int) -> str:
    return (text or "").replace("\0", "")[:longest].encode("utf-8", "replace").decode()


MOST_BYTES = 1_000_000
"""Larger messages are refused."""

_READ = 300_000  # bytes: the report itself comes before the returned mail
_READ_IN_PROSE = 60_000  # bytes, which flufl.bounce reads many times
_MOST_PARTS = 100
_MOST_TEXT = 100_000  # characters of one part that are searched
# Of the report itself: the addresses that it was sent to, and the mail that it is about.
_OUTER = ("To", "Delivered-To", "X-Original-To", "Envelope-To", "In-Reply-To", "References")
# Of the returned mail, and of the fields of the report.
_INNER = (
    *(TAG_HEADER, "Message-ID", "Return-Path"),
    *("X-Original-Message-ID", "Original-Envelope-Id", "Original-Mail-From"),
)
_STATUS_PARTS = frozenset({"message/delivery-status", "message/global-delivery-status"})
_FAILED = ("failed", "error")  # the latter by OpenSMTPD
_BLANK_LINE = re.compile(r"\r?\n[ \t]*\r?\n")
_LATEST = datetime(2100, 1, 1, tzinfo=UTC)


def read_report(raw: bytes) -> MailReport | None:
    """Returns the bounce or complaint of a raw message; None where it is neither, such as a note of a delay."""
    start = raw[:_READ]
    if start.lower().count(b"\ncontent-type:") > _MOST_PARTS:
        return None
    try:
        return _read(message_from_bytes(start), start, hashlib.sha256(raw).hexdigest())
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        return None  # the parsers raise many things on hostile messages


def _read(message: Message, raw: bytes, key: str) -> MailReport | None:
    parts = list(_walk(message))
    complaint = next((each for each in parts if _is_feedback(each)), None)
    if complaint is not None:
        if str(_fields(complaint)[0].get("Feedback-Type", "")).strip().lower() != "abuse":
            return None
        return MailReport(key, "complaint", _references(message, parts), None, _date(message))
    status, is_bounce = _status(message, parts, raw)
    if not is_bounce:
        return None
    return MailReport(key, "bounce", _references(message, parts), status, _date(message))


def _walk(message: Message) -> Iterator[Message]:
    """Yields the message and its parts, the first hundred, in order."""
    waiting = [message]
    for _ in range(_MOST_PARTS):
        if not waiting:
            return
        part = waiting.pop(0)
        yield part
        inner = part.get_payload()
        if isinstance(inner, list):
            waiting += [each for each in inner if isinstance(each, Message)]


def _is_feedback(part: Message) -> bool:
    return part.get_content_type() == "message/feedback-report"


def _status(message: Message, parts: Iterable[Message], raw: bytes) -> tuple[str | None, bool]:
    """Returns the enhanced status code of a bounce, and whether it is one."""
    reports = [each for each in parts if each.get_content_type() in _STATUS_PARTS]
    for report in reports:
        for fields in _fields(report):
            if str(fields.get("Action", "")).strip().lower().startswith(_FAILED):
                # the words of the remote server first: others map them to a less exact status
                return find_status(_text(fields, "Diagnostic-Code"), _text(fields, "Status")), True
    if reports:
        return None, False  # delayed, relayed, delivered or expanded
    if not _is_in_prose(message_from_bytes(raw[:_READ_IN_PROSE])):
        return None, False
    return find_status(_notice(message)), True


def _is_in_prose(message: Message) -> bool:
    """Returns whether it is a permanent failure in one of the forms that follow no RFC."""
    from flufl.bounce import all_failures  # rarely needed

    logging.getLogger("flufl.bounce").disabled = True  # a line for each detector
    if not message.get("From"):
        return False  # its detectors need one
    _, permanent = all_failures(message)
    return bool(permanent)


def _fields(part: Message) -> list[Message]:
    """Returns the groups of fields of a report, which the standard library leaves as text in some kinds of part."""
    inner = part.get_payload()
    if isinstance(inner, list) and part.get_content_type() == "message/delivery-status":
        return [each for each in inner if isinstance(each, Message)]
    if isinstance(inner, list) and inner and isinstance(inner[0], Message):
        text = inner[0].as_string()
    else:
        text = _decoded(part)
    return [message_from_string(group.lstrip()) for group in _BLANK_LINE.split(text)[:_MOST_PARTS]]


def _text(fields: Message, name: str) -> str:
    return " ".join(str(fields.get(name, "")).split())


def _notice(message: Message) -> str:
    """Returns the words of a report in no standard form, before the copy of the mail."""
    first = next((each for each in _walk(message) if each.get_content_maintype() == "text"), None)
    text = _decoded(first) if first is not None else ""
    return re.split(r"(?im)^(?:-{3}|received:|return-path:)", text, maxsplit=1)[0]


def _references(message: Message, parts: Iterable[Message]) -> tuple[str, ...]:
    """Returns the texts that may contain the tag: first the headers of the returned mail, then all others."""
    inner = [_text(each, name) for each in _with_fields(parts) for name in _INNER if each.get(name)]
    texts = [_decoded(each) for each in parts if each.get_content_maintype() == "text"]
    named = re.compile(rf"^{TAG_HEADER}:[ \t]*(\S+)", re.IGNORECASE | re.MULTILINE)
    quoted = [found for text in texts for found in named.findall(text)]
    outer = [value for name in _OUTER for value in map(str, message.get_all(name, []))]
    return (*inner, *quoted, *outer, *texts)


def _with_fields(parts: Iterable[Message]) -> Iterator[Message]:
    """Yields what has headers of the returned mail: messages in it, their headers as text, fields of the report."""
    for part in list(parts)[1:]:
        yield part
        if part.get_content_type() in {"text/rfc822-headers", "message/global-headers"}:
            yield message_from_string(_decoded(part))
        if part.get_content_type() in _STATUS_PARTS or _is_feedback(part):
            yield from _fields(part)


def _decoded(part: Message) -> str:
    content = part.get_payload(decode=True)
    if not isinstance(content, bytes):
        return ""
    return content[:_MOST_TEXT].decode("utf-8", "replace").replace("\r\n", "\n")


def _date(message: Message) -> datetime | None:
    try:
        found = parsedate_to_datetime(str(message.get("Date", "")))
    except (ValueError, TypeError):
        return None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    return found if datetime(2000, 1, 1, tzinfo=UTC) < found < _LATEST else None
