"""Push to browsers by Web Push (RFC 8030), encrypted for each subscription (RFC 8291).

Every primitive of the encryption is cryptography's; docs/adr/0073-web-push.md has the reasons against a package of its
own.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import jwt
import msgspec
import structlog
from aiohttp import ClientSession
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Struct
from msgspec.structs import replace
from yarl import URL

from tocsin.engine.actors.machinery.endpoints import url_fault
from tocsin.engine.actors.machinery.envelope import Envelope, RetryNow, SendResult
from tocsin.engine.actors.machinery.http_actor import HttpActor, HttpRequest, HttpResponse
from tocsin.engine.actors.machinery.shared_limits import target_key
from tocsin.engine.model import (
    CheckResult,
    Deferred,
    Message,
    Priority,
    Push,
    Rejected,
    SendHold,
    Sent,
    Unsent,
)
from tocsin.engine.text import clip, json_size
from tocsin.settings.keys import VapidKey, load_vapid_key

LONGEST_LIFE = 28 * 24 * 3600
"""Seconds for which the push services keep a message for a browser that is closed."""

OVER_QUOTA_WAIT = 60.0
"""Seconds to wait where a 429 has no Retry-After."""

_URGENCY = {Priority.LOW: "low", Priority.NORMAL: "normal", Priority.HIGH: "high"}
_BADGE_BYTES = 60
_TOPIC_BYTES = 24  # 32 characters in base64url (RFC 8030 section 5.4)

log = structlog.get_logger(__name__)


class WebPushActor(HttpActor):
    """Sends pushes to the subscriptions of browsers; the address of each is its endpoint.

    Connects to public addresses over https only; with `allow_loopback` also to this machine, and by http. Further
    options are those of `HttpActor`.
    """

    several_services = True

    def __init__(self, *, vapid: VapidKey, **options: Any) -> None:
        settings: dict[str, Any] = {"name": "web_push", "senders": 16}
        super().__init__(public_only=True, **(settings | options))
        self._tokens = VapidTokens(vapid, self._now)

    def draft(self, message: Message) -> bytes | Rejected:
        """Returns the JSON without the badge."""
        if not isinstance(message.content, Push):
            return Rejected("not_a_push")
        try:
            return write_payload(message.content, tag=f"tocsin-{message.delivery_id}")
        except UnicodeEncodeError:  # half of a surrogate pair
            return Rejected("invalid_text")

    async def transmit(
        self, connection: ClientSession, envelope: Envelope
    ) -> SendResult | RetryNow:
        """Sends one request, unless the subscription has had too many."""
        check_result = envelope.check_result
        if check_result and (wait := self.holds.left(target_key(self.name, check_result.address))):
            return SendResult(Unsent("paced", wait))
        return await super().transmit(connection, envelope)

    def request(self, envelope: Envelope, check_result: CheckResult) -> HttpRequest | Rejected:
        """Returns the request, encrypted for the subscription."""
        endpoint, given = check_result.address, check_result.options or {}
        if reason := url_fault(endpoint, allow_loopback=self.allow_loopback):
            return Rejected(f"web_push_{reason}", address_dead=True)
        if not envelope.draft:
            return Rejected("payload_too_large")
        try:
            keys = read_receiver_keys(str(given.get("p256dh")), str(given.get("auth")))
        except ValueError:
            return Rejected("web_push_keys_invalid", address_dead=True)
        push, priority = envelope.message.content, envelope.message.priority
        assert isinstance(push, Push)
        tag = push.collapse_id or f"tocsin-{envelope.message.delivery_id}"
        headers = {
            "Authorization": self._tokens.authorization(endpoint),
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(seconds_left(push.expires_at, self._now())),
            "Topic": topic(endpoint, tag),
            "Urgency": _URGENCY[priority],
        }
        return HttpRequest(
            endpoint, encrypt(with_badge(envelope.draft, check_result.badge), keys), headers
        )

    def classify(self, response: HttpResponse) -> SendResult:
        """See the function `classify`."""
        if response.status in {400, 401, 403}:
            log.error(
                "a push service refuses our key or request: check TOCSIN_VAPID_KEY and TOCSIN_VAPID_SUBJECT",
                status=response.status,
            )
        result = classify(response.status, response.retry_after)
        outcome = result.outcome
        if response.status == 429 and isinstance(outcome, Deferred) and outcome.retry_after:
            key = target_key(self.name, response.request.url)
            self.holds.add(SendHold(key, outcome.reason, outcome.retry_after))
        return result


def classify(status: int, retry_after: float | None) -> SendResult:
    """Returns what a push service's response means (RFC 8030 sections 5 and 8, RFC 8292 section 4.2).

    Browsers have different push services, so the breaker counts none of them, and a refused key changes no
    subscription. A redirect is not followed.
    """
    reason = f"web_push_{status}"
    if 200 <= status < 300:
        return SendResult(Sent())
    if status in {404, 410}:
        return SendResult(Rejected(reason, address_dead=True))
    if status == 413:
        return SendResult(Rejected(reason))
    if status == 429:
        wait = OVER_QUOTA_WAIT if retry_after is None else retry_after
        return SendResult(Deferred(reason, wait))
    return SendResult(Deferred(reason, retry_after))


def write_payload(push: Push, *, tag: str) -> bytes:
    """Returns a declarative push message, which Safari shows by itself and our service worker elsewhere.

    Its texts are cut so that it fits, else the buttons left out; empty where it does not fit without them either.
    """

    def write(title: str, body: str) -> bytes:
        shown: dict[str, Any] = {"title": title, "body": body, "navigate": push.link or ""}
        shown |= {"tag": push.collapse_id or tag, "data": push.data}
        if push.collapse_id:
            shown["renotify"] = True
        if push.buttons:
            shown["actions"] = push.buttons
        return msgspec.json.encode({"web_push": 8030, "notification": shown})

    most = MOST_PLAIN_BYTES - _BADGE_BYTES
    whole = write(push.title, push.body)
    if len(whole) <= most:
        return whole
    if body := clip(push.body, most - len(write(push.title, "x")) + 1, json_size):
        return write(push.title, body)
    if title := clip(push.title, most - len(write("x", "")) + 1, json_size):
        return write(title, "")
    return write_payload(replace(push, buttons=()), tag=tag) if push.buttons else b""


def with_badge(draft: bytes, badge: int | None) -> bytes:
    """Returns the draft with the number of unread notifications, which only the presend check returns.

    As the standard's draft has it, and within the notification, where Safari reads it.
    """
    if badge is None:
        return draft
    message = msgspec.json.decode(draft)
    message["app_badge"] = badge
    message["notification"]["app_badge"] = str(badge)
    return msgspec.json.encode(message)


def topic(endpoint: str, tag: str) -> str:
    """Returns the name under which a later message replaces one that waits; a hash, since the service reads it."""
    digest = sha256(f"{endpoint}\0{tag}".encode()).digest()
    return base64.urlsafe_b64encode(digest[:_TOPIC_BYTES]).decode()


def seconds_left(expires_at: datetime | None, now: datetime) -> int:
    """Returns the TTL of a message."""
    if expires_at is None:
        return LONGEST_LIFE
    return min(LONGEST_LIFE, max(0, int((expires_at - now).total_seconds())))


MOST_PLAIN_BYTES = 3993
"""Of a plaintext: with header, delimiter and tag it is the 4,096 bytes that every push service accepts."""

RECORD_SIZE = 4096
SALT_BYTES, AUTH_BYTES, POINT_BYTES = 16, 16, 65

_LAST_RECORD = b"\x02"  # the delimiter of the only record, without padding (RFC 8188 section 2)


class ReceiverKeys(Struct, frozen=True):
    """The keys of one subscription: a point of P-256 and a shared secret of 16 bytes."""

    point: bytes
    auth: bytes


def read_receiver_keys(p256dh: str, auth: str) -> ReceiverKeys:
    """Returns the keys that a browser gave in base64url; raises ValueError."""
    point, secret = _decoded(p256dh), _decoded(auth)
    if len(point) != POINT_BYTES or len(secret) != AUTH_BYTES:
        raise ValueError("not the keys of a subscription")
    ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)  # is it on the curve?
    return ReceiverKeys(point, secret)


def encrypt(
    plaintext: bytes,
    keys: ReceiverKeys,
    *,
    salt: bytes | None = None,
    sender: ec.EllipticCurvePrivateKey | None = None,
) -> bytes:
    """Returns the body of a push message. `salt` and `sender` are new for each message, but for a test vector."""
    salt = salt or os.urandom(SALT_BYTES)
    sender = sender or ec.generate_private_key(ec.SECP256R1())
    receiver = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), keys.point)
    sent = sender.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    shared = sender.exchange(ec.ECDH(), receiver)
    key, nonce = derive(shared, keys, sent, salt)
    header = salt + RECORD_SIZE.to_bytes(4, "big") + bytes([len(sent)]) + sent
    return header + AESGCM(key).encrypt(nonce, plaintext + _LAST_RECORD, None)


def derive(shared: bytes, keys: ReceiverKeys, sent: bytes, salt: bytes) -> tuple[bytes, bytes]:
    """Returns the key and the nonce of a message (RFC 8291 section 3.4); `sent` is the sender's point."""
    info = b"WebPush: info\0" + keys.point + sent
    secret = HKDF(SHA256(), 32, keys.auth, info).derive(shared)
    key = HKDF(SHA256(), 16, salt, b"Content-Encoding: aes128gcm\0").derive(secret)
    nonce = HKDF(SHA256(), 12, salt, b"Content-Encoding: nonce\0").derive(secret)
    return key, nonce


def _decoded(text: str) -> bytes:
    """Returns the bytes of base64url, with or without its padding; raises ValueError."""
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), b"-_", True)
    except binascii.Error:
        raise ValueError("not base64url") from None


VALID_FOR = timedelta(hours=12)
"""Of a token; push services refuse one that is valid for more than 24 hours."""

RENEWED = timedelta(hours=1)
"""Before its end, since a push service's clock may be another one."""

MOST_ORIGINS = 1_000
"""Whose tokens are kept: there are four large push services, and people may run their own."""


class VapidTokens:
    """Makes and keeps the Authorization header for each push service."""

    def __init__(self, key: VapidKey, now: Callable[[], datetime]) -> None:
        self._key = load_vapid_key(key.private)
        self._public = key.public
        self._subject = key.subject
        self._now = now
        self._kept: dict[str, tuple[datetime, str]] = {}

    def authorization(self, endpoint: str) -> str:
        """Returns the header for the push service of an endpoint."""
        origin, now = str(URL(endpoint).origin()), self._now()
        ends_at, header = self._kept.get(origin, (now, ""))
        if ends_at - now <= RENEWED:
            ends_at = now + VALID_FOR
            header = f"vapid t={self._token(origin, ends_at)}, k={self._public}"
            self._kept.pop(origin, None)
            if len(self._kept) >= MOST_ORIGINS:
                del self._kept[next(iter(self._kept))]
            self._kept[origin] = (ends_at, header)
        return header

    def _token(self, origin: str, ends_at: datetime) -> str:
        claims = {"aud": origin, "exp": int(ends_at.timestamp()), "sub": self._subject}
        return jwt.encode(claims, self._key, "ES256")
