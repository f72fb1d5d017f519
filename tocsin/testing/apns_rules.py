"""The checks of APNs on a request, in Apple's order, and the response to each error.

Apple: "Sending notification requests to APNs", "Handling notification responses from APNs" and
"Establishing a token-based connection to APNs".
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import jwt
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Struct

MAX_PAYLOAD = 4096
MAX_COLLAPSE_ID = 64
TOKEN_LIFE = 3600
_CLOCKS_DIFFER = 300

_PATH = re.compile(r"/3/device/([^/]*)")
_DEVICE = re.compile(r"[0-9a-fA-F]{8,200}")
_PUSH_TYPES = frozenset(
    [
        "alert",
        "background",
        "voip",
        "complication",
        "fileprovider",
        "mdm",
        "liveactivity",
        "location",
        "pushtotalk",
    ]
)


class ApnsReply(Struct, frozen=True):
    """One response: `body` replaces the JSON of `reason` and `timestamp` (milliseconds).

    `pieces` is the number of DATA frames for the body.
    """

    status: int = 200
    reason: str = ""
    timestamp: int | None = None
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    pieces: int = 1

    @property
    def content(self) -> bytes:
        """The body as it is sent."""
        if self.body is not None:
            return self.body
        if not self.reason:
            return b""
        body: dict[str, Any] = {"reason": self.reason}
        if self.timestamp is not None:
            body["timestamp"] = self.timestamp
        return msgspec.json.encode(body)


class Key(Struct, frozen=True):
    """A team's key for provider tokens; `private` is the content of Apple's .p8 file."""

    private: str
    key_id: str = "KEY1234567"
    team_id: str = "TEAM123456"

    @staticmethod
    def new() -> Key:
        """Makes a key."""
        pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return Key(pem.decode())


class Rules:
    """Judges requests; `min_refresh` is how many seconds a team must keep a token (Apple: 1200)."""

    def __init__(
        self,
        key: Key,
        *,
        topics: frozenset[str],
        min_refresh: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        private = serialization.load_pem_private_key(key.private.encode(), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        self._key = key
        self._public = private.public_key()
        self._topics = topics
        self._min_refresh = min_refresh
        self._clock = clock
        self._issued_at: dict[str, int] = {}
        self._refreshed_at = float("-inf")

    @property
    def tokens(self) -> list[str]:
        """The provider tokens that were accepted, in their order."""
        return list(self._issued_at)

    def judge(self, headers: Mapping[str, str], body: bytes) -> ApnsReply:
        """Returns the response to the first error, or 200."""
        if headers.get(":method") != "POST":
            return ApnsReply(405, "MethodNotAllowed")
        path = _PATH.fullmatch(headers.get(":path", ""))
        if not path:
            return ApnsReply(404, "BadPath")
        if refusal := self._of_token(headers) or self._of_headers(headers) or _of_payload(body):
            return refusal
        if not path[1]:
            return ApnsReply(400, "MissingDeviceToken")
        return ApnsReply() if _DEVICE.fullmatch(path[1]) else ApnsReply(400, "BadDeviceToken")

    def _of_token(self, headers: Mapping[str, str]) -> ApnsReply | None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return ApnsReply(403, "MissingProviderToken")
        known = token in self._issued_at
        issued_at = self._issued_at[token] if known else self._verified(token)
        if issued_at is None or issued_at > self._clock() + _CLOCKS_DIFFER:
            return ApnsReply(403, "InvalidProviderToken")
        if issued_at < self._clock() - TOKEN_LIFE:
            return ApnsReply(403, "ExpiredProviderToken")
        if known:
            return None
        if self._min_refresh and self._clock() < self._refreshed_at + self._min_refresh:
            return ApnsReply(429, "TooManyProviderTokenUpdates")
        self._issued_at[token] = issued_at
        self._refreshed_at = self._clock()
        return None

    def _verified(self, token: str) -> int | None:
        """Returns when it was issued; None where it is not one of this team."""
        try:
            if jwt.get_unverified_header(token).get("kid") != self._key.key_id:
                return None
            claims = jwt.decode(
                token,
                self._public,
                algorithms=["ES256"],
                issuer=self._key.team_id,
                options={"require": ["iss", "iat"], "verify_iat": False},
            )
            return int(claims["iat"])
        except (jwt.PyJWTError, ValueError, TypeError):
            return None

    def _of_headers(self, headers: Mapping[str, str]) -> ApnsReply | None:
        topic = headers.get("apns-topic")
        if not topic:
            return ApnsReply(400, "MissingTopic")
        if topic not in self._topics:
            return ApnsReply(400, "TopicDisallowed")
        if headers.get("apns-push-type") not in _PUSH_TYPES:
            return ApnsReply(400, "InvalidPushType")
        if not _is_uuid(headers.get("apns-id")):
            return ApnsReply(400, "BadMessageId")
        expiration = headers.get("apns-expiration", "0")
        if not (expiration.isascii() and expiration.isdigit()):
            return ApnsReply(400, "BadExpirationDate")
        priorities = {"5", "1"} if headers["apns-push-type"] == "background" else {"10", "5", "1"}
        if headers.get("apns-priority", "10") not in priorities:
            return ApnsReply(400, "BadPriority")
        if len(headers.get("apns-collapse-id", "").encode()) > MAX_COLLAPSE_ID:
            return ApnsReply(400, "BadCollapseId")
        return None


def _is_uuid(text: str | None) -> bool:
    """Returns whether an apns-id is a canonical UUID; it may be missing, then APNs makes one."""
    if text is None:
        return True
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


def _of_payload(body: bytes) -> ApnsReply | None:
    if not body:
        return ApnsReply(400, "PayloadEmpty")
    if len(body) > MAX_PAYLOAD:
        return ApnsReply(413, "PayloadTooLarge")
    try:
        payload = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return ApnsReply(400, "PayloadEmpty")
    return None if isinstance(payload, dict) and payload else ApnsReply(400, "PayloadEmpty")
