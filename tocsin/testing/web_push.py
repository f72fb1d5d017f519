"""A push service of browsers (RFC 8030): it checks what such a service checks, and decrypts as the browser would.

It makes the subscriptions itself, with the keys that a browser would make, so `received` has the messages in clear.

async with PushService() as service:
    subscription = service.subscribe()
    ...  # POST /api/push-tokens/ {"platform": "web", "subscription": subscription.json}
    service.received[-1].message
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Unpack

import jwt
from aiohttp import web
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Struct

from tocsin.testing.far_end import FarEndOptions, HttpFarEnd, Reply, play

MOST_BYTES = 4096
_LONGEST_TOKEN = timedelta(hours=24)
_URGENCIES = {"very-low", "low", "normal", "high"}
_TOPIC = re.compile(r"[A-Za-z0-9_-]{1,32}")
_VAPID = re.compile(r"vapid t=([^, ]+), ?k=([A-Za-z0-9_-]+)")


class BrowserSubscription(Struct, frozen=True):
    """A subscription as a browser's `PushSubscription.toJSON()` has it; `private` is the browser's secret."""

    endpoint: str
    p256dh: str
    auth: str
    private: str

    @property
    def json(self) -> dict[str, Any]:
        """What the browser gives its page."""
        keys = {"p256dh": self.p256dh, "auth": self.auth}
        return {"endpoint": self.endpoint, "expirationTime": None, "keys": keys}


class ReceivedPush(Struct, frozen=True):
    """One request to an endpoint, with its message in clear where it could be decrypted."""

    at: datetime
    endpoint: str
    headers: dict[str, str]  # with names in lower case
    message: bytes | None
    result: int | str  # the status, or the name of the fault


class PushService(HttpFarEnd[ReceivedPush]):
    """The far end: `received` has the requests, `script` the responses other than acceptance, by endpoint.

    With `vapid`, a public key, only messages of that key are accepted (RFC 8292 section 4).
    """

    def __init__(self, *, vapid: str | None = None, **options: Unpack[FarEndOptions]) -> None:
        super().__init__(
            web.post("/subscribe", self._subscribe),
            web.post("/push/{name}", self._push),
            **options,
        )
        self._vapid = vapid
        self._subscriptions: dict[str, BrowserSubscription] = {}
        self._ended: set[str] = set()

    @property
    def url(self) -> str:
        """The address of the server."""
        return self.origin

    def subscribe(self) -> BrowserSubscription:
        """Returns a new subscription, as a browser gets it from its push service."""
        key = ec.generate_private_key(ec.SECP256R1())
        number = key.private_numbers().private_value
        return self.restore(
            BrowserSubscription(
                endpoint=f"{self.url}/push/{secrets.token_urlsafe(24)}",
                p256dh=_encoded(_point(key)),
                auth=_encoded(secrets.token_bytes(16)),
                private=_encoded(number.to_bytes(32, "big")),
            )
        )

    def restore(self, subscription: BrowserSubscription) -> BrowserSubscription:
        """Accepts messages for a subscription from before a restart."""
        self._subscriptions[_name(subscription.endpoint)] = subscription
        return subscription

    def unsubscribe(self, subscription: BrowserSubscription) -> None:
        """Ends it: from then on the response is 410."""
        self._ended.add(_name(subscription.endpoint))

    async def _subscribe(self, _: web.Request) -> web.Response:
        """Subscribes a browser (RFC 8030 section 4), and makes its keys too."""
        subscription = self.subscribe()
        location = {"Location": subscription.endpoint}
        return web.json_response(subscription.json, status=201, headers=location)

    async def _push(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        body = await request.read()
        endpoint = f"{self.url}{request.path}"
        subscription = self._subscriptions.get(request.match_info["name"])
        message = decrypt(body, subscription) if subscription else None
        turn = self.script.next(endpoint) or self._refusal(request, body, subscription, message)
        result = turn.status if isinstance(turn, Reply) else turn.value if turn else 201
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.record(ReceivedPush(datetime.now(UTC), endpoint, headers, message, result))
        if turn is not None:
            return await play(turn, request)
        location = f"{self.url}/message/{secrets.token_urlsafe(16)}"
        return web.Response(status=201, headers={"Location": location, "TTL": headers["ttl"]})

    def _refusal(
        self,
        request: web.Request,
        body: bytes,
        subscription: BrowserSubscription | None,
        message: bytes | None,
    ) -> Reply | None:
        """Returns the error that a push service would return; None for a correct request."""
        if subscription is None:
            return Reply(404)
        if request.match_info["name"] in self._ended:
            return Reply(410)
        if len(body) > MOST_BYTES:
            return Reply(413)
        if fault := header_fault(request.headers.get):
            return Reply(400, fault)
        if fault := self._vapid_fault(request.headers.get("Authorization", "")):
            return Reply(403, fault)
        # a real service can't decrypt it, and would deliver what the browser then drops
        return Reply(400, "the message can't be decrypted") if message is None else None

    def _vapid_fault(self, authorization: str) -> str | None:
        """Returns what is wrong with an Authorization header (RFC 8292), or None."""
        found = _VAPID.fullmatch(authorization)
        if not found:
            return "Authorization must be: vapid t=…, k=…"
        token, key = found[1], found[2]
        if self._vapid not in {None, key}:
            return "the subscription belongs to another key"
        try:
            point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), _decoded(key))
            claims: dict[str, Any] = jwt.decode(
                token,
                point,
                algorithms=["ES256"],
                audience=self.url,
                options={"require": ["aud", "exp", "sub"]},
            )
        except (jwt.PyJWTError, ValueError) as error:
            return f"invalid token: {error}"
        if claims["exp"] > (datetime.now(UTC) + _LONGEST_TOKEN).timestamp():
            return "exp is more than 24 hours from now"
        if not str(claims["sub"]).startswith(("mailto:", "https:")):
            return "sub is neither mailto: nor https:"
        return None


def header_fault(header: Callable[[str], str | None]) -> str | None:
    """Returns what is wrong with the headers of a push message (RFC 8030 section 5), or None."""
    ttl = header("TTL") or ""
    if not (ttl.isascii() and ttl.isdigit()):
        return "TTL must be a number of seconds"
    if header("Content-Encoding") != "aes128gcm":
        return "Content-Encoding must be aes128gcm"
    if (header("Urgency") or "normal") not in _URGENCIES:
        return "Urgency must be very-low, low, normal or high"
    if not _TOPIC.fullmatch(header("Topic") or "x"):
        return "Topic must be at most 32 characters of base64url"
    return None


def decrypt(body: bytes, subscription: BrowserSubscription) -> bytes | None:
    """Returns the message as the browser reads it (RFC 8291 section 3.4, RFC 8188 section 2); None if it can't."""
    salt, length = body[:16], body[20] if len(body) > 20 else 0
    sent, record = body[21 : 21 + length], body[21 + length :]
    number = int.from_bytes(_decoded(subscription.private), "big")
    key = ec.derive_private_key(number, ec.SECP256R1())
    try:
        sender = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sent)
        shared = key.exchange(ec.ECDH(), sender)
        info = b"WebPush: info\0" + _point(key) + sent
        secret = _hkdf(_decoded(subscription.auth), shared, info, 32)
        content_key = _hkdf(salt, secret, b"Content-Encoding: aes128gcm\0", 16)
        nonce = _hkdf(salt, secret, b"Content-Encoding: nonce\0", 12)
        padded = AESGCM(content_key).decrypt(nonce, record, None).rstrip(b"\0")
    except (InvalidTag, ValueError):
        return None
    return padded[:-1] if padded.endswith(b"\2") else None


def _hkdf(salt: bytes, secret: bytes, info: bytes, length: int) -> bytes:
    """Returns at most 32 bytes by HKDF with SHA-256 (RFC 5869), written by its two steps."""
    extracted = hmac.digest(salt, secret, hashlib.sha256)
    return hmac.digest(extracted, info + b"\1", hashlib.sha256)[:length]


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _name(endpoint: str) -> str:
    return endpoint.rpartition("/")[2]


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
