"""A local far end of APNs: HTTP/2 over TLS, with Apple's checks and scripted responses and faults.

authority, key = Authority(), Key.new()
async with ApnsServer(authority, key, topics={"org.example.app"}) as server:
    server.plan("aabbccdd", ApnsReply(410, "Unregistered", 1770000000000), Hang())
    ...  # send to server.url with the CA of authority.write(path)
    assert server.received[0].payload["aps"]["badge"] == 3
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import trustme
from msgspec import Struct

from tocsin.testing.apns_rules import ApnsReply, Key, Rules
from tocsin.testing.apns_wire import Wire

__all__ = [
    "Act",
    "ApnsReply",
    "ApnsServer",
    "Authority",
    "Babble",
    "Dribble",
    "Drop",
    "Freeze",
    "GoAway",
    "Hang",
    "Held",
    "Key",
    "Received",
    "Reset",
    "Rules",
    "trusting",
]


class Hang(Struct, frozen=True):
    """Sends no response to this request."""


class Held(Struct, frozen=True):
    """Sends the response after `ApnsServer.release`."""

    reply: ApnsReply = ApnsReply()


class Babble(Struct, frozen=True):
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


class Dribble(Struct, frozen=True):
    """Sends the status, then one byte of the body after another, without an end."""

    status: int = 400


class Drop(Struct, frozen=True):
    """Closes the connection without a GOAWAY."""


class Freeze(Struct, frozen=True):
    """Keeps the connection open, but neither reads nor writes on it, not even for a PING."""


Act = ApnsReply | Held | Hang | Babble | Reset | GoAway | Dribble | Drop | Freeze


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
    `first_streams` how many before the first valid provider token (one with Apple). With `greets` false connections are
    accepted, but nothing is sent on them.
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
        self.greets = True
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
        case Dribble(status):
            wire.dribble(stream, status)
        case Babble(data):
            wire.babble(data)
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
