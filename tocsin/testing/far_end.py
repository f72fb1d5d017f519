"""What the HTTP far ends have in common: scripted responses and faults, and what was received; and that of webhooks."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Generic, Self, TypedDict, TypeVar, Unpack

from aiohttp import web
from msgspec import Struct

T = TypeVar("T")

_SLOW_BODY = 0.01  # seconds between two bytes


class Fault(Enum):
    """A fault in place of a response."""

    HANG = "hang"  # reads the request and sends no response
    RESET = "reset"  # reads the request and resets the connection
    SLOW_BODY = "slow-body"  # sends a byte at a time, without an end
    GARBAGE = "garbage"  # sends bytes that are not HTTP


class Reply(Struct, frozen=True):
    """A response as it is sent."""

    status: int = 200
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()


Turn = Reply | Fault


class Script:
    """What to do with the next requests of each key, in place of the usual response."""

    EVERY = ""

    def __init__(self) -> None:
        self._once: dict[str, deque[Turn]] = {}
        self._always: dict[str, Turn] = {}

    def then(self, key: str, turns: Iterable[Turn]) -> None:
        """Adds one turn for each of the key's next requests."""
        self._once.setdefault(key, deque()).extend(turns)

    def always(self, key: str, turn: Turn | None) -> None:
        """Sets the turn of all requests of the key that have none of their own; None removes it."""
        if turn is None:
            self._always.pop(key, None)
        else:
            self._always[key] = turn

    def next(self, key: str) -> Turn | None:
        """Returns what to do with this request of the key; None: the usual response."""
        for each in (key, self.EVERY):
            if queue := self._once.get(each):
                return queue.popleft()
        return self._always.get(key) or self._always.get(self.EVERY)


async def play(turn: Turn, request: web.Request) -> web.StreamResponse:
    """Sends the response, or commits the fault, of a turn."""
    if isinstance(turn, Reply):
        body = turn.body.encode()
        return web.Response(status=turn.status, body=body, headers=dict(turn.headers))
    transport = request.transport
    assert transport is not None
    if turn is Fault.RESET:
        transport.abort()
    elif turn is Fault.GARBAGE:
        transport.write(b"\x00\x01 this is not HTTP\r\n\r\n")
        transport.close()
    elif turn is Fault.SLOW_BODY:
        transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not transport.is_closing():
        await asyncio.sleep(_SLOW_BODY)
        if turn is Fault.SLOW_BODY:
            transport.write(b" ")
    return web.Response()  # never sent


class FarEndOptions(TypedDict, total=False):
    """The options of each HTTP far end."""

    on_request: Callable[[Any], object]  # called with each request before its response
    keep: int  # how many are kept; 10,000
    host: str
    port: int  # 0: a free one
    tls: ssl.SSLContext | None


class HttpFarEnd(Generic[T]):
    """A server of these routes: `received` has what came, `script` the responses in place of the usual ones.

    `origin` is known once it listens.
    """

    def __init__(self, *routes: web.RouteDef, **options: Unpack[FarEndOptions]) -> None:
        self.script = Script()
        self.received: list[T] = []
        self.requests = 0
        self.origin = ""
        self._on_request = options.get("on_request")
        self._keep = options.get("keep", 10_000)
        self.port = options.get("port", 0)
        self._host, self._tls = options.get("host", "127.0.0.1"), options.get("tls")
        app = web.Application()
        app.router.add_routes(routes)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.0)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listens."""
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self.port, ssl_context=self._tls).start()
        self.port = self._runner.addresses[0][1]
        self.origin = f"{'https' if self._tls else 'http'}://{self._host}:{self.port}"

    async def stop(self) -> None:
        """Closes all connections."""
        await self._runner.cleanup()

    def record(self, arrived: T) -> None:
        """Keeps what came."""
        self.received.append(arrived)
        del self.received[: -self._keep]
        self.report(arrived)

    def report(self, arrived: T) -> None:
        """Calls `on_request`."""
        if self._on_request is not None:
            self._on_request(arrived)


class WebhookEndpoint(HttpFarEnd[tuple[dict[str, str], bytes]]):
    """A receiver that checks requests by Standard Webhooks, and replies as scripted: 204, or 401 for a wrong signature.

    Without secrets, it verifies nothing. `received` has the headers and the body of each request.
    """

    def __init__(self, *secrets: str, **options: Unpack[FarEndOptions]) -> None:
        super().__init__(web.post("/{path:.*}", self._receive), **options)
        self.secrets = secrets

    @property
    def url(self) -> str:
        """The address of a webhook; any other path is received too."""
        return f"{self.origin}/hook"

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.record((headers, body))
        if turn := self.script.next(request.path):
            return await play(turn, request)
        return web.Response(status=204 if self.verified(headers, body) else 401)

    def verified(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Returns whether one of the secrets made a signature; written after the standard, not after the actor."""
        if not self.secrets:
            return True
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        signatures = headers["webhook-signature"].split(" ")
        keys = (base64.b64decode(secret.split("_", 1)[1]) for secret in self.secrets)
        digests = (hmac.digest(key, signed, hashlib.sha256) for key in keys)
        expected = {f"v1,{base64.b64encode(digest).decode()}" for digest in digests}
        return not expected.isdisjoint(signatures)
