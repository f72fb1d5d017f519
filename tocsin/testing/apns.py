"""A local far end of APNs: HTTP/2 over TLS, with Apple's checks in Apple's order, and scripted responses and faults.

Apple: "Sending notification requests to APNs", "Handling notification responses from APNs" and
"Establishing a token-based connection to APNs".

authority, key = Authority(), Key.new()
async with ApnsServer(authority, key, topics={"org.example.app"}) as server:
    server.plan("aabbccdd", ApnsReply(410, "Unregistered", 1770000000000), Hang())
    ...  # send to server.url with the CA of authority.write(path)
    assert server.received[0].payload["aps"]["badge"] == 3
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
import msgspec
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Struct

from tocsin.testing.apns_wire import Wire

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


class Hang(Struct, frozen=True):
    """Sends no response to this request."""


class Held(Struct, frozen=True):
    """Sends the response after `ApnsServer.release`."""

    reply: ApnsReply = ApnsReply()


class Garbage(Struct, frozen=True):
    """Sends bytes that are not HTTP/2."""

    data: bytes = b"HTTP/1.1 400 Bad Request\r\n\r\n"


class Reset(Struct, frozen=True):
    """Ends the stream by RST_STREAM; 2 is INTERNAL_ERROR, 7 REFUSED_STREAM: the request was not processed."""

    code: int = 2


class GoAway(Struct, frozen=True):
    """Ends the connection by GOAWAY, after the responses to earlier requests, and to this one if `processed`."""

    processed: bool = True
    reason: str = ""
    code: int = 0


class SlowBody(Struct, frozen=True):
    """Sends the status, then one byte of the body after another, without an end."""

    status: int = 400


class Drop(Struct, frozen=True):
    """Closes the connection without a GOAWAY."""


class Freeze(Struct, frozen=True):
    """Keeps the connection open, but neither reads nor writes on it, not even for a PING."""


Act = ApnsReply | Held | Hang | Garbage | Reset | GoAway | SlowBody | Drop | Freeze


class Received(Struct):
    """One request; `status` is that of the response, 0 where there is none (yet)."""

    device: str
    headers: dict[str, str]
    payload: Any  # None where it is not JSON
    connection: int
    status: int = 0


class Authority(trustme.CA):
    """A certificate authority for one run, so that clients reach a local far end by real TLS."""

    def write(self, path: Path) -> Path:
        """Writes its own certificate to a file, for TOCSIN_APNS_CA_FILE."""
        self.cert_pem.write_to_path(path)
        return path

    def server_context(self, *names: str) -> ssl.SSLContext:
        """Returns a TLS context for a server that is called by these names or addresses."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.issue_cert(*names).configure_cert(context)
        return context


class ApnsServer:
    """Responds as APNs does, 200 to correct requests, unless a plan has another response for the device.

    It keeps the last `keep` requests in `received` and counts all responses by status in `replies`; `on_request` is
    called with each request right before its response is sent. `streams` is how many a connection may have open,
    `first_streams` how many before the first valid provider token (one with Apple). If `sends_settings` is
    false, connections are accepted, but nothing is sent on them.
    """

    def __init__(
        self,
        authority: Authority,
        key: Key,
        *,
        topics: Iterable[str],
        host: str = "127.0.0.1",
        port: int = 0,
        streams: int = 1000,
        first_streams: int = 1,
        keep: int = 1000,
        rules: Rules | None = None,
        on_request: Callable[[Received], None] | None = None,
    ) -> None:
        self.rules = rules or Rules(key, topics=frozenset(topics))
        self.received: deque[Received] = deque(maxlen=keep)
        self.replies: Counter[int] = Counter()
        self.default: Act | None = None  # in place of the rules, for devices without a plan
        self.sends_settings = True
        self.connected = 0  # connections ever
        self.streams = streams
        self.first_streams = first_streams
        self.wires: set[Wire] = set()
        self._plans: dict[str, deque[Act]] = {}
        self._held: list[Callable[[], None]] = []
        self._address = (host, port)
        self._on_request = on_request
        self._tls = authority.server_context(host, "localhost")
        self._tls.set_alpn_protocols(["h2"])
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"https://{self._address[0]}:{self._address[1]}"

    def plan(self, device: str, *acts: Act) -> None:
        """Sets what the next requests for a device get, one act each; later ones get the usual response."""
        self._plans.setdefault(device, deque()).extend(acts)

    def release(self) -> None:
        """Sends the responses to all held requests."""
        held, self._held = self._held, []
        for reply in held:
            reply()

    async def start(self) -> None:
        """Listens; port 0 means a free one."""
        loop = asyncio.get_running_loop()
        host, port = self._address
        self._server = await loop.create_server(lambda: Wire(self), host, port, ssl=self._tls)
        self._address = (host, self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Closes all connections, and stops listening."""
        if self._server is not None:
            self._server.close()
            for wire in list(self.wires):
                wire.drop()
            await self._server.wait_closed()
            while self.wires:  # noqa: ASYNC110 - closed by the loop's next rounds
                await asyncio.sleep(0)
            self._server = None

    async def __aenter__(self) -> ApnsServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # Called by its connections.

    def take(self, wire: Wire, stream: int, headers: dict[str, str], body: bytes) -> None:
        """Handles one whole request."""
        device = headers.get(":path", "").rpartition("/")[2]
        record = Received(device, headers, _decoded(body), wire.number)
        self.received.append(record)
        judged = self.rules.judge(headers, body)
        wire.trusted(judged.status != 403)
        plan = self._plans.get(device)
        act = plan.popleft() if plan else (self.default or judged)
        if plan is not None and not plan:
            del self._plans[device]
        self._perform(act, wire, stream, record)

    def _perform(self, act: Act, wire: Wire, stream: int, record: Received) -> None:
        match act:
            case ApnsReply():
                self._reply(act, wire, stream, record)
            case Held(reply):
                self._held.append(lambda: self._reply(reply, wire, stream, record))
            case GoAway(processed, reason, code):
                wire.go_away(stream if processed else max(0, stream - 2), code, reason)
                if processed:
                    self._reply(ApnsReply(), wire, stream, record)
            case _:
                _misbehave(act, wire, stream)

    def _reply(self, reply: ApnsReply, wire: Wire, stream: int, record: Received) -> None:
        record.status = reply.status
        self.replies[reply.status] += 1
        if self._on_request:
            self._on_request(record)
        headers = (("apns-id", record.headers.get("apns-id", "")), *reply.headers)
        wire.reply(stream, reply.status, headers, reply.content, reply.pieces)


def _misbehave(act: Act, wire: Wire, stream: int) -> None:
    match act:
        case Reset(code):
            wire.reset(stream, code)
        case SlowBody(status):
            wire.send_slowly(stream, status)
        case Garbage(data):
            wire.send_garbage(data)
        case Drop():
            wire.drop()
        case Freeze():
            wire.frozen = True


def trusting(authority: Authority) -> ssl.SSLContext:
    """Returns a client's TLS context that trusts this authority alone."""
    return ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
