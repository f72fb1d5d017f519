"""What all reports on a mail have in common: what happened, by which its delivery is found, what it means."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

from tocsin.engine.actors.email.reply import is_dead_mailbox
from tocsin.engine.mail.tag import find_tagged_delivery
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
        reason=_reason(report),
        dead=report.kind == "complaint" or is_dead_mailbox(report.status),
        occurred_at=report.occurred_at or datetime.now(UTC),
        delivery_id=delivery_id,
        provider_id=_storable(report.provider_id, _LONGEST_ID) if by_provider else None,
        address=_storable(report.address, _LONGEST_ADDRESS) if by_provider else None,
    )


def _reason(report: MailReport) -> str:
    if report.kind == "complaint":
        return "complaint"
    return f"bounce_{report.status}" if report.status else "bounce"


def _storable(text: str | None, longest: int) -> str:
    return (text or "").replace("\0", "")[:longest].encode("utf-8", "replace").decode()
