"""Signed links: what a mail may do for its reader without signing in.

A token is base64url of: version, kind, expiry, the payload as MessagePack, and an HMAC-SHA256 of all
that, cut to 128 bits. The kind is under the signature, so a token of one kind is none of another.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from tocsin.engine.model import NotFound

VALID_FOR = timedelta(days=365)
KEY_BYTES = 32

DIGEST = "digest"  # in place of an event type, none of which is without a dot

_VERSION = 1
_TAG_BYTES = 16
_HEAD_BYTES = 7  # version, kind, and 5 of the expiry in seconds: good for 34,000 years
_MOST_CHARACTERS = 2048


class LinkKind(IntEnum):
    """What a token is for; the numbers are in mails that were sent."""

    UNSUBSCRIBE = 1
    OPEN = 2


class Unsubscribe(Struct, frozen=True, array_like=True):
    """Turns the email of one event type off for one recipient."""

    recipient_id: str
    event_type: str


class Open(Struct, frozen=True, array_like=True):
    """Marks a notification read and goes where it leads."""

    notification_id: int
    recipient_id: str


class Links(Struct, frozen=True):
    """Makes and reads the links of one service; `key` is 32 secret bytes."""

    public_url: str
    key: bytes

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise ValueError(f"a link key has {KEY_BYTES} bytes")

    def unsubscribe(self, recipient_id: str, event_type: str, now: datetime) -> str:
        """The link that turns this type's email off: a page by GET, one click by POST (RFC 8058)."""
        payload = Unsubscribe(recipient_id, event_type)
        token = sign(self.key, LinkKind.UNSUBSCRIBE, payload, now + VALID_FOR)
        return f"{self._base}/unsubscribe/{token}/"

    def unsubscribe_digest(self, recipient_id: str, now: datetime) -> str:
        """The link that turns somebody's digest off."""
        return self.unsubscribe(recipient_id, DIGEST, now)

    def open(self, notification_id: int, recipient_id: str, now: datetime) -> str:
        """The click-through of one notification."""
        payload = Open(notification_id, recipient_id)
        return f"{self._base}/c/{sign(self.key, LinkKind.OPEN, payload, now + VALID_FOR)}/"

    def read_unsubscribe(self, token: str, now: datetime) -> Unsubscribe:
        """Whom and what an unsubscribe token names; raises NotFound."""
        payload = verify(self.key, LinkKind.UNSUBSCRIBE, token, now)
        return msgspec.msgpack.decode(payload, type=Unsubscribe)

    def read_open(self, token: str, now: datetime) -> Open:
        """Which notification a click-through token names; raises NotFound."""
        return msgspec.msgpack.decode(verify(self.key, LinkKind.OPEN, token, now), type=Open)

    def absolute(self, action_url: str) -> str | None:
        """Where an action URL leads, seen from anywhere; None unless that is http or https.

        A path is one of this service's own host. Backslashes and control characters are refused,
        and `//host` with them, since browsers disagree with parsers about both.
        """
        if any(ord(char) <= 0x20 or char in "\\\x7f" for char in action_url):
            return None
        if action_url.startswith("/"):
            return None if action_url.startswith("//") else f"{self._base}{action_url}"
        try:
            parts = urlsplit(action_url)
        except ValueError:
            return None
        return action_url if parts.scheme in {"http", "https"} and parts.hostname else None

    @property
    def _base(self) -> str:
        return self.public_url.rstrip("/")


def sign(key: bytes, kind: LinkKind, payload: Struct, expires_at: datetime) -> str:
    """A token for `payload`, good until `expires_at`; safe in a path."""
    seconds = int(expires_at.timestamp()).to_bytes(_HEAD_BYTES - 2, "big")
    body = bytes((_VERSION, kind)) + seconds + msgspec.msgpack.encode(payload)
    return base64.urlsafe_b64encode(body + _tag(key, body)).rstrip(b"=").decode()


def verify(key: bytes, kind: LinkKind, token: str, now: datetime) -> bytes:
    """The payload of a token of this kind that is ours and still good; raises NotFound."""
    signed = _decode(token)
    body, tag = signed[:-_TAG_BYTES], signed[-_TAG_BYTES:]
    if not hmac.compare_digest(tag, _tag(key, body)):
        raise NotFound("This link is not one of ours.")
    if len(body) < _HEAD_BYTES or body[:2] != bytes((_VERSION, kind)):
        raise NotFound("This link is for something else.")
    if datetime.fromtimestamp(int.from_bytes(body[2:_HEAD_BYTES], "big"), UTC) <= now:
        raise NotFound("This link has expired.")
    return body[_HEAD_BYTES:]


def _tag(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, b"tocsin link" + body, "sha256")[:_TAG_BYTES]


def _decode(token: str) -> bytes:
    """The bytes of a token, of the one spelling that we make: Python's decoder takes many."""
    if len(token) > _MOST_CHARACTERS or not token.isascii():
        raise NotFound("This link is not one of ours.")
    try:
        signed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise NotFound("This link is not one of ours.") from None
    if base64.urlsafe_b64encode(signed).rstrip(b"=").decode() != token:
        raise NotFound("This link is not one of ours.")
    return signed
