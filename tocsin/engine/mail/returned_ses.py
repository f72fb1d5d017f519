"""Amazon SES, by SNS: verifies the messages of SNS, confirms subscriptions, and reads SES's bounces and complaints.

https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
https://docs.aws.amazon.com/ses/latest/dg/notification-contents.html
"""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
import time
from collections.abc import Collection
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

import msgspec
import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509 import Certificate, load_pem_x509_certificate
from msgspec import Struct, field

from tocsin.engine.actors.email_reply import is_dead_mailbox
from tocsin.engine.mail.links import TAG_HEADER
from tocsin.engine.mail.returned import ForgedReport, MailReport, find_status
from tocsin.engine.model import Unavailable

_TIMEOUT = 5
_LARGEST = 20_000  # bytes of a certificate, and of the response to a confirmation
_KEPT = 20  # certificates
_FRESH = 86_400.0  # seconds until a certificate is read again
_PAUSE = 60.0  # seconds until one that could not be read is tried again
_HOST = re.compile(r"sns\.([a-z0-9-]{3,40})\.amazonaws\.com(?:\.cn)?")
_CERTIFICATE_PATH = re.compile(r"/SimpleNotificationService-[0-9A-Za-z]{1,80}\.pem")
_HASHES = {"1": hashes.SHA1(), "2": hashes.SHA256()}  # noqa: S303 - SNS's own choice of its topics
_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": (
        *("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    ),
}
_SIGNED["UnsubscribeConfirmation"] = _SIGNED["SubscriptionConfirmation"]
_STATUS_OF = {"NoEmail": "5.1.1", "MailboxFull": "4.2.2"}  # of a subtype, where SES gives no code

log = structlog.get_logger("tocsin.mail_events")


class SnsMessage(Struct, frozen=True, rename="pascal"):
    """A message of SNS, as it is posted."""

    type: str
    message_id: str
    topic_arn: str
    message: str
    timestamp: str
    signature_version: str
    signature: str
    signing_cert_url: str = field(name="SigningCertURL")
    subject: str | None = None
    token: str | None = None
    subscribe_url: str | None = field(name="SubscribeURL", default=None)


class _NoRedirects(HTTPRedirectHandler):
    """Follows no redirect: what SNS's hosts serve needs none."""

    def redirect_request(self, *_: Any) -> Request | None:
        return None


class SnsVerifier:
    """Verifies messages of the allowed topics; `url` takes the place of SNS's own addresses, for tests."""

    def __init__(
        self, topics: Collection[str], *, url: str | None = None, ca_file: Path | None = None
    ) -> None:
        self._topics = frozenset(topics)
        self._url = url
        self._opener = build_opener(
            _NoRedirects, HTTPSHandler(context=ssl.create_default_context(cafile=ca_file))
        )
        self._certificates: dict[str, tuple[Certificate, float]] = {}
        self._failed: dict[str, float] = {}
        self._reading = asyncio.Lock()

    async def verify(self, message: SnsMessage) -> None:
        """Raises ForgedReport where it is not of an allowed topic or not signed by SNS, or Unavailable."""
        if message.topic_arn not in self._topics:
            raise ForgedReport("The topic is none of TOCSIN_SES_TOPICS.", allowed=False)
        digest = _HASHES.get(message.signature_version)
        if message.type not in _SIGNED or digest is None:
            raise ForgedReport("The type or the signature's version is not one of SNS.")
        _check_url(message.signing_cert_url, message.topic_arn, _CERTIFICATE_PATH)
        certificate = await self._certificate(message.signing_cert_url)
        key = certificate.public_key()
        now = datetime.now(UTC)
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise ForgedReport("The certificate's time is over.")
        if not isinstance(key, RSAPublicKey):
            raise ForgedReport("The certificate's key is not RSA.")
        try:
            signature = base64.b64decode(message.signature, validate=True)
            key.verify(signature, to_signed(message), PKCS1v15(), digest)
        except (ValueError, InvalidSignature):
            raise ForgedReport("The signature is not SNS's.") from None

    async def confirm(self, message: SnsMessage) -> None:
        """Confirms the subscription of a verified message; raises ForgedReport or Unavailable."""
        url = message.subscribe_url or ""
        _check_url(url, message.topic_arn, re.compile("/?"))
        try:
            await asyncio.to_thread(self._fetch, url)
        except (OSError, HTTPException) as error:
            raise Unavailable("SNS does not confirm the subscription") from error
        log.info("subscription to SNS confirmed", topic=message.topic_arn)

    async def _certificate(self, url: str) -> Certificate:
        if known := self._known(url):
            return known
        async with self._reading:  # one at a time, however many messages name another
            if known := self._known(url):
                return known
            now = time.monotonic()
            if now < self._failed.get(url, 0.0):
                raise Unavailable("SNS's certificate can't be read")
            try:
                pem = await asyncio.to_thread(self._fetch, url)
                certificate = load_pem_x509_certificate(pem)
            except HTTPError as error:
                self._note_failure(url, now)
                if error.code in (403, 404):
                    raise ForgedReport("SNS has no such certificate.") from None
                raise Unavailable("SNS's certificate can't be read") from error
            except (OSError, HTTPException, ValueError) as error:
                self._note_failure(url, now)
                raise Unavailable("SNS's certificate can't be read") from error
            if len(self._certificates) >= _KEPT:
                self._certificates.clear()
            self._certificates[url] = certificate, now + _FRESH
            return certificate

    def _known(self, url: str) -> Certificate | None:
        certificate, until = self._certificates.get(url, (None, 0.0))
        return certificate if time.monotonic() < until else None

    def _note_failure(self, url: str, now: float) -> None:
        if len(self._failed) >= _KEPT:
            self._failed.clear()
        self._failed[url] = now + _PAUSE

    def _fetch(self, url: str) -> bytes:
        parts = urlsplit(url)
        if self._url is not None:
            url = f"{self._url}{parts.path}{'?' * bool(parts.query)}{parts.query}"
        with self._opener.open(url, timeout=_TIMEOUT) as response:
            content: bytes = response.read(_LARGEST)
        return content


def _check_url(url: str, topic: str, path: re.Pattern[str]) -> None:
    """Raises ForgedReport for an address that is not of SNS in the topic's region, by https."""
    parts = urlsplit(url)
    host = _HOST.fullmatch(parts.netloc)  # without user, password and port
    region = topic.split(":")[3:4]
    if parts.scheme != "https" or host is None or [host[1]] != region:
        raise ForgedReport("An address in the message is not SNS's own.")
    if not path.fullmatch(parts.path):
        raise ForgedReport("An address in the message is not SNS's own.")


def to_signed(message: SnsMessage) -> bytes:
    """Returns what SNS signs of a message: names and values, each followed by a line feed."""
    values = msgspec.to_builtins(message)
    lines = [
        f"{name}\n{values[name]}\n"
        for name in _SIGNED[message.type]
        if values.get(name) is not None
    ]
    return "".join(lines).encode()


class _Recipient(Struct, frozen=True, rename="camel"):
    email_address: str = ""
    status: str | None = None
    diagnostic_code: str | None = None


class _Bounce(Struct, frozen=True, rename="camel"):
    bounce_type: str = ""
    bounce_sub_type: str = ""
    bounced_recipients: list[_Recipient] = []
    timestamp: datetime | None = None
    feedback_id: str | None = None


class _Complaint(Struct, frozen=True, rename="camel"):
    complained_recipients: list[_Recipient] = []
    complaint_feedback_type: str | None = None
    complaint_sub_type: str | None = None
    timestamp: datetime | None = None
    feedback_id: str | None = None


class _Header(Struct, frozen=True):
    name: str
    value: str


class _Mail(Struct, frozen=True, rename="camel"):
    message_id: str = ""
    destination: list[str] = []
    headers: list[_Header] = []


class _Content(Struct, frozen=True, rename="camel"):
    notification_type: str | None = None  # of an identity's notifications
    event_type: str | None = None  # of a configuration set
    mail: _Mail = _Mail()
    bounce: _Bounce | None = None
    complaint: _Complaint | None = None


def read_sns(body: bytes) -> SnsMessage:
    """Returns the message; raises ForgedReport where it is none of SNS."""
    try:
        return msgspec.json.decode(body, type=SnsMessage)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ForgedReport("The body is not a message of SNS.") from None


def read_report(message: SnsMessage) -> MailReport | None:
    """Returns the bounce or complaint of SES in a verified message; None for anything else."""
    try:
        content = msgspec.json.decode(message.message, type=_Content)
    except msgspec.DecodeError:
        return None  # such as the text that SES sends to a new topic
    if content.bounce is not None:
        return _bounce(content.mail, content.bounce, message.message_id)
    if content.complaint is not None:
        return _complaint(content.mail, content.complaint, message.message_id)
    return None


def _bounce(mail: _Mail, bounce: _Bounce, message_id: str) -> MailReport:
    recipient = next(iter(bounce.bounced_recipients), _Recipient())
    status = find_status(recipient.diagnostic_code, recipient.status)
    status = status or _STATUS_OF.get(bounce.bounce_sub_type)
    if bounce.bounce_type != "Permanent" and is_dead_mailbox(status):
        status = None  # SES itself does not believe it
    return MailReport(
        bounce.feedback_id or message_id,
        "bounce",
        _references(mail),
        status,
        bounce.timestamp,
        mail.message_id,
        recipient.email_address or next(iter(mail.destination), None),
    )


def _complaint(mail: _Mail, complaint: _Complaint, message_id: str) -> MailReport | None:
    if complaint.complaint_feedback_type == "not-spam":
        return None
    recipient = next(iter(complaint.complained_recipients), _Recipient())
    return MailReport(
        complaint.feedback_id or message_id,
        # not sent, since the person complained about an earlier mail
        "bounce" if complaint.complaint_sub_type == "OnAccountSuppressionList" else "complaint",
        _references(mail),
        None,
        complaint.timestamp,
        mail.message_id,
        recipient.email_address or next(iter(mail.destination), None),
    )


def _references(mail: _Mail) -> tuple[str, ...]:
    wanted = (TAG_HEADER.lower(), "message-id")
    return tuple(
        each.value for name in wanted for each in mail.headers if each.name.lower() == name
    )
