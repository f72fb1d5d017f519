"""Postmark, Mailgun and SendGrid: verifies their calls, and reads the bounces and complaints in them.

https://postmarkapp.com/developer/webhooks/bounce-webhook
https://documentation.mailgun.com/docs/mailgun/user-manual/tracking-messages/#securing-webhooks
https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from msgspec import Struct, field

from tocsin.engine.actors.email_reply import is_dead_mailbox
from tocsin.engine.mail.links import POSTMARK_TAG
from tocsin.engine.mail.returned import ForgedReport, MailReport, find_status
from tocsin.settings.keys import load_p256_public_key

T = TypeVar("T")

REPLAY_WINDOW = 43_200.0
"""Seconds: Mailgun repeats a call for eight hours. A repetition changes nothing, since each report counts once."""


class UnreadableReport(ValueError):
    """Raised for a body that is not the provider's JSON, although its proof is good."""


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableReport(str(error)) from None


def _moment(seconds: float | None) -> datetime | None:
    if seconds is None or not 0 < seconds < 4e9:
        return None
    return datetime.fromtimestamp(seconds, UTC)


# Postmark: a secret of ours, as the password of basic authentication or in a header.

_POSTMARK_METADATA = POSTMARK_TAG.rpartition("-")[2]
_POSTMARK_FAILURES = frozenset(
    (
        *("HardBounce", "SoftBounce", "BadEmailAddress", "DnsError", "SpamNotification"),
        *("Blocked", "DMARCPolicy", "VirusNotification", "ManuallyDeactivated", "Unknown"),
    )
)
_POSTMARK_STATUS = {"BadEmailAddress": "5.1.3"}


class _Postmark(Struct, frozen=True, rename="pascal"):
    record_type: str = ""
    type: str = ""
    id: int = field(name="ID", default=0)
    message_id: str | None = field(name="MessageID", default=None)
    email: str | None = None
    description: str | None = None
    details: str | None = None
    bounced_at: datetime | None = None
    metadata: dict[str, Any] = {}


def verify_postmark(authorization: str | None, header: str | None, secret: str) -> None:
    """Raises ForgedReport unless the secret is the password of basic authentication, or in the header."""
    given = [header or ""]
    scheme, _, credentials = (authorization or "").partition(" ")
    if scheme.lower() == "basic":
        try:
            decoded = base64.b64decode(credentials, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            decoded = ""
        given.append(decoded.partition(":")[2])
    if not any(hmac.compare_digest(each.encode(), secret.encode()) for each in given):
        raise ForgedReport("The secret is not the one of TOCSIN_POSTMARK_SECRET.")


def read_postmark(body: bytes) -> tuple[list[MailReport], int]:
    """Returns the bounce or complaint, or none, and how many others; raises UnreadableReport."""
    found = _decoded(body, _Postmark)
    complaint = "SpamComplaint" in (found.record_type, found.type)
    if not complaint and not (found.record_type == "Bounce" and found.type in _POSTMARK_FAILURES):
        return [], 1
    status = find_status(found.details, found.description) or _POSTMARK_STATUS.get(found.type)
    if found.type == "SoftBounce" and is_dead_mailbox(status):
        status = None
    tag = found.metadata.get(_POSTMARK_METADATA)
    report = MailReport(
        f"{found.record_type} {found.id} {found.message_id}",
        "complaint" if complaint else "bounce",
        (tag,) if isinstance(tag, str) else (),
        None if complaint else status,
        found.bounced_at,
        found.message_id,
        found.email,
    )
    return [report], 0


# Mailgun: an HMAC over timestamp and token.


class _Signature(Struct, frozen=True):
    timestamp: str | int
    token: str
    signature: str


class _DeliveryStatus(Struct, frozen=True):
    enhanced_code: str | None = field(name="enhanced-code", default=None)
    message: str | None = None
    description: str | None = None


class _MailgunMessage(Struct, frozen=True):
    headers: dict[str, Any] = {}


class _MailgunEvent(Struct, frozen=True):
    event: str = ""
    id: str = ""
    severity: str | None = None
    recipient: str | None = None
    timestamp: float | None = None
    message: _MailgunMessage = _MailgunMessage()
    delivery_status: _DeliveryStatus = field(name="delivery-status", default=_DeliveryStatus())


class _Mailgun(Struct, frozen=True):
    signature: _Signature
    event_data: _MailgunEvent = field(name="event-data", default=_MailgunEvent())


def read_mailgun(body: bytes, key: str) -> list[MailReport]:
    """Returns the permanent failure or complaint of a verified call; raises ForgedReport or UnreadableReport."""
    found = _decoded(body, _Mailgun)
    signed = f"{found.signature.timestamp}{found.signature.token}".encode()
    expected = hmac.digest(key.encode(), signed, "sha256").hex()
    if not hmac.compare_digest(expected.encode(), found.signature.signature.encode()):
        raise ForgedReport("The signature is not that of TOCSIN_MAILGUN_SIGNING_KEY.")
    at = str(found.signature.timestamp)
    if not at.isdecimal() or abs(time.time() - int(at[:12])) > REPLAY_WINDOW:
        raise ForgedReport("The call is older than twelve hours.")
    event = found.event_data
    if event.event != "complained" and (event.event, event.severity) != ("failed", "permanent"):
        return []
    status = event.delivery_status
    message_id = event.message.headers.get("message-id")
    report = MailReport(
        event.id or found.signature.token,
        "complaint" if event.event == "complained" else "bounce",
        (message_id,) if isinstance(message_id, str) else (),
        find_status(status.enhanced_code, status.message, status.description),
        _moment(event.timestamp),
    )
    return [report]


# SendGrid: an ECDSA signature over timestamp and body.


class _SendGrid(Struct, frozen=True):
    event: str = ""
    email: str | None = None
    timestamp: float | None = None
    smtp_id: str | None = field(name="smtp-id", default=None)
    sg_event_id: str = ""
    sg_message_id: str | None = None
    status: str | None = None
    reason: str | None = None


def verify_sendgrid(body: bytes, *, timestamp: str, signature: str, key: str) -> None:
    """Raises ForgedReport unless the signature over timestamp and body is SendGrid's."""
    try:
        load_p256_public_key(key).verify(
            base64.b64decode(signature, validate=True),
            timestamp.encode() + body,
            ECDSA(hashes.SHA256()),
        )
    except (ValueError, InvalidSignature):
        raise ForgedReport("The signature is not that of TOCSIN_SENDGRID_PUBLIC_KEY.") from None


def read_sendgrid(body: bytes) -> tuple[list[MailReport], int]:
    """Returns bounces, drops and complaints of a verified call, and how many other events; raises UnreadableReport."""
    events = _decoded(body, list[_SendGrid])
    reports = list(_sendgrid_reports(events))
    return reports, len(events) - len(reports)


def _sendgrid_reports(events: Iterable[_SendGrid]) -> Iterable[MailReport]:
    for event in events:
        if event.event not in ("bounce", "dropped", "spamreport"):
            continue
        # a drop was not sent: its status is SendGrid's own
        stated = (event.reason, event.status) if event.event == "bounce" else ()
        yield MailReport(
            event.sg_event_id or f"{event.sg_message_id} {event.event} {event.timestamp}",
            "complaint" if event.event == "spamreport" else "bounce",
            (event.smtp_id,) if event.smtp_id else (),
            find_status(*stated),
            _moment(event.timestamp),
            # the id of the 250 reply, and what SendGrid adds to it
            (event.sg_message_id or "").partition(".")[0] or None,
            event.email,
        )
