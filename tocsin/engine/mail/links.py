"""Signed links, by which the reader of a mail can act without signing in.

A token is base64url of: version, kind, expiry, the payload as MessagePack, and an HMAC-SHA256 of all
that, cut to 128 bits. The kind is signed too, so a token can't be used as one of another kind.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import lru_cache
from typing import Literal

import msgspec
from msgspec import Struct, structs

from tocsin.engine.model import NotFound
from tocsin.engine.text import is_web_address

VALID_FOR = timedelta(days=365)
KEY_BYTES = 32

_VERSION = 1
_TAG_BYTES = 16
_HEAD_BYTES = 7  # version, kind, and 5 of the expiry in seconds: good for 34,000 years
_MOST_CHARACTERS = 2048
_MOST_BYTES = 600  # of a payload: a header's line ends at 998 characters (RFC 5322)


class LinkKind(IntEnum):
    """What a token is for; the numbers are in mails that were already sent."""

    UNSUBSCRIBE = 1
    OPEN = 2
    UNSUBSCRIBE_ADDRESS = 3
    UNSUBSCRIBE_DIGEST = 4
    CHOOSE = 5


class Unsubscribe(Struct, frozen=True, array_like=True):
    """Turns the email of the event types that one mail holds off for one recipient."""

    recipient_id: str
    event_type: str
    others: tuple[str, ...] = ()  # further event types of the same mail
    topic: str | None = None  # what it may be muted for instead

    @property
    def event_types(self) -> tuple[str, ...]:
        """All event types of the mail."""
        return self.event_type, *self.others


class UnsubscribeAddress(Struct, frozen=True, array_like=True):
    """Ends all mail to an address without an account; if it has one by then, the email of that event type."""

    address: str
    event_type: str


class UnsubscribeDigest(Struct, frozen=True, array_like=True):
    """Turns one recipient's digest off."""

    recipient_id: str


class Open(Struct, frozen=True, array_like=True):
    """Marks a notification read and redirects to its action URL."""

    notification_id: int
    recipient_id: str
    in_push: Literal[True] | None = None  # no scanner of mails follows it


class Choose(Struct, frozen=True, array_like=True):
    """Shows the actions of a notification, of which one can be pressed."""

    notification_id: int
    recipient_id: str


OptOutLink = Unsubscribe | UnsubscribeAddress | UnsubscribeDigest
_OPT_OUTS: dict[LinkKind, type[OptOutLink]] = {
    LinkKind.UNSUBSCRIBE: Unsubscribe,
    LinkKind.UNSUBSCRIBE_ADDRESS: UnsubscribeAddress,
    LinkKind.UNSUBSCRIBE_DIGEST: UnsubscribeDigest,
}


class Links(Struct, frozen=True):
    """Makes and reads the links of one service; `key` is 32 secret bytes."""

    public_url: str
    key: bytes

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise ValueError(f"a link key has {KEY_BYTES} bytes")

    def unsubscribe(
        self,
        recipient_id: str,
        event_type: str,
        now: datetime,
        *,
        others: Iterable[str] = (),
        topic: str | None = None,
    ) -> str:
        """Returns the link that turns the email of these types off: a page by GET, one click by POST (RFC 8058)."""
        link = Unsubscribe(recipient_id, event_type, topic=topic)
        for other in others:
            longer = structs.replace(link, others=(*link.others, other))
            if len(_encoded(longer)) <= _MOST_BYTES:
                link = longer
        return self._unsubscribe(LinkKind.UNSUBSCRIBE, link, now)

    def unsubscribe_address(self, address: str, event_type: str, now: datetime) -> str:
        """Returns the link that ends all mail to an address without an account."""
        link = UnsubscribeAddress(address, event_type)
        return self._unsubscribe(LinkKind.UNSUBSCRIBE_ADDRESS, link, now)

    def unsubscribe_digest(self, recipient_id: str, now: datetime) -> str:
        """Returns the link that turns a digest off."""
        link = UnsubscribeDigest(recipient_id)
        return self._unsubscribe(LinkKind.UNSUBSCRIBE_DIGEST, link, now)

    def _unsubscribe(self, kind: LinkKind, link: OptOutLink, now: datetime) -> str:
        return f"{self._base}/unsubscribe/{sign(self.key, kind, link, now + VALID_FOR)}/"

    def open(
        self, notification_id: int, recipient_id: str, now: datetime, *, in_push: bool = False
    ) -> str:
        """Returns the click-through of one notification."""
        payload = Open(notification_id, recipient_id, in_push or None)
        return f"{self._base}/c/{sign(self.key, LinkKind.OPEN, payload, now + VALID_FOR)}/"

    def choose(self, notification_id: int, recipient_id: str, now: datetime) -> str:
        """Returns the page with the actions of one notification; only its POST presses one."""
        payload = Choose(notification_id, recipient_id)
        return f"{self._base}/a/{sign(self.key, LinkKind.CHOOSE, payload, now + VALID_FOR)}/"

    def read_unsubscribe(self, token: str, now: datetime) -> OptOutLink:
        """Returns the content of an unsubscribe token; raises NotFound."""
        kind, payload = verify(self.key, _OPT_OUTS, token, now)
        return msgspec.msgpack.decode(payload, type=_OPT_OUTS[kind])

    def read_open(self, token: str, now: datetime) -> Open:
        """Returns the content of a click-through token; raises NotFound."""
        _, payload = verify(self.key, (LinkKind.OPEN,), token, now)
        return msgspec.msgpack.decode(payload, type=Open)

    def read_choose(self, token: str, now: datetime) -> Choose:
        """Returns the content of a token for the actions of a notification; raises NotFound."""
        _, payload = verify(self.key, (LinkKind.CHOOSE,), token, now)
        return msgspec.msgpack.decode(payload, type=Choose)

    def absolute(self, action_url: str) -> str | None:
        """Returns an action URL as an absolute address; None if it is not a safe link.

        A path is on this service's own host.
        """
        if not is_web_address(action_url):
            return None
        return f"{self._base}{action_url}" if action_url.startswith("/") else action_url

    @property
    def _base(self) -> str:
        return self.public_url.rstrip("/")


def sign(key: bytes, kind: LinkKind, payload: Struct, expires_at: datetime) -> str:
    """Returns a token for `payload`, valid until `expires_at` and safe in a path."""
    seconds = int(expires_at.timestamp()).to_bytes(_HEAD_BYTES - 2, "big")
    body = bytes((_VERSION, kind)) + seconds + _encoded(payload)
    return base64.urlsafe_b64encode(body + _tag(key, body)).rstrip(b"=").decode()


def verify(
    key: bytes, kinds: Collection[LinkKind], token: str, now: datetime
) -> tuple[LinkKind, bytes]:
    """Returns kind and payload of a valid token of one of these kinds; raises NotFound."""
    signed = _decode(token)
    body, tag = signed[:-_TAG_BYTES], signed[-_TAG_BYTES:]
    if not hmac.compare_digest(tag, _tag(key, body)):
        raise NotFound("This link is not one of ours.")
    if len(body) < _HEAD_BYTES or body[0] != _VERSION or body[1] not in kinds:
        raise NotFound("This link is for something else.")
    if datetime.fromtimestamp(int.from_bytes(body[2:_HEAD_BYTES], "big"), UTC) <= now:
        raise NotFound("This link has expired.")
    return LinkKind(body[1]), body[_HEAD_BYTES:]


def _encoded(payload: Struct) -> bytes:
    """Encodes the payload without trailing empty fields, which most links have."""
    values = list(structs.astuple(payload))
    while values[-1] in ((), None):
        values.pop()
    return msgspec.msgpack.encode(values)


def _tag(key: bytes, body: bytes) -> bytes:
    return _mac(key, b"tocsin link" + body).digest()[:_TAG_BYTES]


def _mac(key: bytes, text: bytes) -> hmac.HMAC:
    """Returns the HMAC-SHA256 of a text; to copy one that began with the key takes less time than to begin again."""
    mac = _begin_mac(key).copy()
    mac.update(text)
    return mac


@lru_cache(maxsize=8)
def _begin_mac(key: bytes) -> hmac.HMAC:
    return hmac.new(key, digestmod="sha256")


def _decode(token: str) -> bytes:
    """Decodes a token, in the one spelling that `sign` writes: Python's decoder accepts several."""
    if len(token) > _MOST_CHARACTERS or not token.isascii():
        raise NotFound("This link is not one of ours.")
    try:
        signed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise NotFound("This link is not one of ours.") from None
    if base64.urlsafe_b64encode(signed).rstrip(b"=").decode() != token:
        raise NotFound("This link is not one of ours.")
    return signed


TAG_HEADER = "X-Tocsin-Delivery"
POSTMARK_TAG = "X-PM-Metadata-tocsin"
"""The header by which Postmark returns the tag, as its metadata `tocsin`; it replaces the Message-ID."""

_PROOF_CHARACTERS = 12
_TAG_TEXT = re.compile(r"(?<![0-9A-Za-z])(\d{1,19})\.([0-9a-f]{12})(?![0-9A-Za-z])", re.ASCII)
_LAST_ID = 2**63 - 1
_MOST_TAGS = 50  # tags that are verified of one text


def make_tag(key: bytes, delivery_id: int) -> str:
    """Returns the tag of a delivery: the same at each attempt; others can't guess it."""
    identity = f"message-id {delivery_id}".encode()
    proof = _mac(key, identity).hexdigest()[:_PROOF_CHARACTERS]
    return f"{delivery_id}.{proof}"


def find_tagged_delivery(key: bytes, text: str) -> int | None:
    """Returns the delivery of the first genuine tag in a text, such as a Message-ID or a return path."""
    for count, found in enumerate(_TAG_TEXT.finditer(text.lower())):
        if count >= _MOST_TAGS:
            break
        delivery_id = int(found[1])
        if delivery_id <= _LAST_ID and hmac.compare_digest(make_tag(key, delivery_id), found[0]):
            return delivery_id
    return None
