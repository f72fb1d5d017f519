"""What each request passes through before it reaches its handler, and each response on its way back; and rate limits.

Rate limits are how many requests a person, an API key or an address may send to this process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from tocsin.engine.badge.hub import BadgeHub
from tocsin.engine.model import Badge
from tocsin.engine.store.installation import ServingProcesses
from tocsin.http.auth import COOKIE, RATE, Person, read_cookie
from tocsin.http.errors import PROBLEM, ProblemDetails, TooManyRequests
from tocsin.http.observability import RequestSummary
from tocsin.http.tokens import TokenVerifier
from tocsin.settings import Network, RateLimit, Settings, to_networks
from tocsin.settings.addresses import host_of, is_loopback

Headers = list[tuple[bytes, bytes]]
_ALWAYS: Headers = [(b"x-content-type-options", b"nosniff")]
# A year. Not for subdomains, since other services may use these.
_BY_HTTPS: Headers = [(b"strict-transport-security", b"max-age=31536000")]
# What a cache may keep has a header of its own, as the modules of pages do.
_UNKEPT: Headers = [(b"cache-control", b"no-store")]


def security_headers(public_url: str | None) -> Headers:
    """Returns those of each response, also of one that is sent before the app is called."""
    return _ALWAYS + (_BY_HTTPS if urlsplit(public_url or "").scheme == "https" else [])


class SecurityHeaders:
    """Around the app."""

    def __init__(self, app: ASGIApp, public_url: str | None) -> None:
        self._app = app
        self._headers = security_headers(public_url) + _UNKEPT

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower(), value) for name, value in message["headers"]]
                names = {name for name, _ in own}
                message["headers"] = own + [each for each in self._headers if each[0] not in names]
            await send(message)

        await self._app(scope, receive, completed)


_PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
    (
        b"access-control-allow-headers",
        b"Authorization, Content-Type, Last-Event-ID, Tocsin-Position",
    ),
    (b"access-control-max-age", b"7200"),  # seconds; Chromium keeps it no longer
    (b"content-length", b"0"),
]
_EXPOSED = (
    b"access-control-expose-headers",
    b"Tocsin-Undo, Tocsin-Position, Retry-After, RateLimit, RateLimit-Policy, Idempotent-Replayed",
)
_VARY = (b"vary", b"Origin")


class CrossOrigin:
    """Around the app, where origins are allowed at all."""

    def __init__(self, app: ASGIApp, origins: Iterable[str], paths: Iterable[str]) -> None:
        self._app = app
        self._origins = frozenset(origin.encode() for origin in origins)
        self._paths = frozenset(_resource(path) for path in paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = self._allowed(scope) if scope["type"] == ScopeType.HTTP else None
        if origin is None:
            await self._app(scope, receive, send)
            return
        allowed = _readable_by(origin)
        if scope.get("method") == "OPTIONS":
            headers = [*allowed, *_PREFLIGHT]
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return

        async def allowing(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *allowed]
            await send(message)

        await self._app(scope, receive, allowing)

    def _allowed(self, scope: Scope) -> bytes | None:
        for name, value in scope["headers"]:
            if name == b"origin":
                known = value in self._origins and _resource(scope["path"]) in self._paths
                return value if known else None
        return None


def _readable_by(origin: bytes) -> Headers:
    return [(b"access-control-allow-origin", origin), _EXPOSED, _VARY]


def _resource(path: str) -> str:
    """Returns the resource, such as `api/notifications`: all of its calls are for people, or all are for apps."""
    return "/".join(path.split("/", 3)[1:3])


def _problem(status: int, detail: str, *more: tuple[bytes, bytes]) -> tuple[Message, bytes]:
    """Returns the start of a response outside of the app, and its body."""
    body = msgspec.json.encode(ProblemDetails(HTTPStatus(status).phrase, status, detail))
    headers = [
        (b"content-type", PROBLEM.encode()),
        (b"content-length", str(len(body)).encode()),
        *_UNKEPT,
        *_ALWAYS,
        *more,
    ]
    return {"type": "http.response.start", "status": status, "headers": headers}, body


_STOPPING, _STOPPING_BODY = _problem(
    503,
    "The service stopped before the response was ready. Try again in a few seconds.",
    (b"retry-after", b"5"),
)


class StoppedRequests:
    """Around the app: a request that the server ends, since it stops, gets a response, and no traceback in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if scope["type"] != ScopeType.HTTP:
                raise
            with suppress(RuntimeError):  # the response had begun
                await send(_STOPPING)
                await send(
                    {"type": "http.response.body", "body": _STOPPING_BODY, "more_body": False}
                )


_MISDIRECTED, _MISDIRECTED_BODY = _problem(
    421, "This service is for its own machine: call it as localhost, 127.0.0.1 or [::1]."
)


class LoopbackHosts:
    """Around a whole app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or _is_ours(scope):  # there are no WebSockets
            await self._app(scope, receive, send)
            return
        body = b"" if scope.get("method") == "HEAD" else _MISDIRECTED_BODY
        await send(_MISDIRECTED)
        await send({"type": "http.response.body", "body": body, "more_body": False})


def _is_ours(scope: Scope) -> bool:
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    return len(hosts) == 1 and is_loopback(host_of(hosts[0].decode("latin-1")))


_NO_METHOD = "TRACE"  # of any path


class OptionsMethod:
    """Around the app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope.get("method") != "OPTIONS":
            await self._app(scope, receive, send)
            return
        found = False

        async def named(message: Message) -> None:
            nonlocal found
            if message["type"] == "http.response.start" and message["status"] == 405:
                found = True
                await send(_allowed(cast("dict[str, Any]", message)["headers"]))
            elif message["type"] == "http.response.body" and found:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await send(message)

        await self._app(cast("Scope", {**scope, "method": _NO_METHOD}), receive, named)


def _allowed(headers: list[tuple[bytes, bytes]]) -> Message:
    methods = {
        method.strip()
        for name, value in headers
        if name.lower() == b"allow"
        for method in value.split(b",")
    }
    allow = b", ".join(sorted(methods | {b"OPTIONS"}))
    kept = [(b"allow", allow), (b"cache-control", b"no-store")]
    return {"type": "http.response.start", "status": 204, "headers": kept}


COUNT_PATH = "/api/notifications/unread-count/"
COUNT_FAILED = "unread_count_failed"
"""In a scope's state: why QuickCount failed, so that the count is tried once and the failure reported as any other."""

_JSON = (b"content-type", b"application/json")
_BEARER = b"Bearer "


async def send_badge(send: Send, badge: Badge, more: Headers | None = None) -> None:
    """Sends the badge, with these headers too."""
    body = b'{"count":%d,"unseen":%d}' % (badge.count, badge.unseen)
    headers = [_JSON, (b"content-length", b"%d" % len(body)), *_UNKEPT, *(more or ())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class QuickCount:
    """The badge before Litestar: a GET of the unread count whose token can be verified at once.

    Everything else is passed on to the app: another path, method or credential, a token that is expired or needs a key
    set, a person beyond the rate limit, and a failure here. So one place refuses, not two.
    """

    def __init__(
        self,
        app: ASGIApp,
        hub: BadgeHub,
        tokens: TokenVerifier,
        rate_limiting: RateLimiting,
        summary: RequestSummary,
        *,
        public_url: str | None,
        origins: Iterable[str] = (),
    ) -> None:
        self._app = app
        self._hub = hub
        self._tokens = tokens
        self._rate_limiting = rate_limiting
        self._summary = summary
        self._headers = security_headers(public_url)
        self._headers_by_origin: dict[bytes | None, Headers] = {
            origin: self._headers + _readable_by(origin)
            for origin in (each.encode() for each in origins)
        }
        prefix = urlsplit(public_url or "").path.rstrip("/")
        self._paths = {
            (start + path).encode()
            for start in ("", prefix)
            for path in (COUNT_PATH, COUNT_PATH.rstrip("/"))
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("raw_path") in self._paths and scope.get("method") == "GET":
            recipient_id, origin = self._caller(scope)
            if recipient_id is not None:
                started = time.perf_counter()
                try:
                    badge = await self._hub.count(recipient_id)
                except Exception as error:  # noqa: BLE001 - the app reports it
                    scope.setdefault("state", {})[COUNT_FAILED] = error
                else:
                    headers = self._headers_by_origin.get(origin, self._headers)
                    await send_badge(send, badge, headers)
                    self._summary.count(time.perf_counter() - started)
                    return
        await self._app(scope, receive, send)

    def _caller(self, scope: Scope) -> tuple[str | None, bytes | None]:
        """Returns who calls, or None where the app has to decide, and the page's origin."""
        credentials = origin = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                if credentials is not None:
                    return None, origin
                credentials = value
            elif name == b"origin" and origin is None:
                origin = value
        if credentials is None:
            text = read_cookie(scope, COOKIE)
        elif credentials.startswith(_BEARER):
            text = credentials[len(_BEARER) :].decode("latin-1")
        else:
            return None, origin
        token = self._tokens.verify_at_once(text)
        if token is None or self._rate_limiting.is_over(token.recipient_id):
            return None, origin
        return token.recipient_id, origin


_MOST_CALLERS = 50_000  # of a generation; there are two
# this machine, and networks in which a proxy may be: RFC 1918, 6598, 3927, 4193, 4291
_PRIVATE = to_networks(
    (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "::1",
        "fc00::/7",
        "fe80::/10",
    )
)
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

_Connection = ASGIConnection[Any, Any, Any, Any]


class Limiter:
    """Counts the requests of each caller by one limit: a token bucket, of which only the time when it is full is kept.

    Of several processes, each one's bucket is filled at its part of the rate: so all together let through the limit in
    the long run, however a load balancer distributes a caller's requests.

    A caller that sent nothing until its bucket is full can be forgotten: there are two generations, and the older one
    is dropped when that time is over or the younger one has many callers.
    """

    def __init__(
        self,
        limit: RateLimit,
        clock: Callable[[], float] = time.monotonic,
        processes: ServingProcesses | None = None,
    ) -> None:
        self._limit = limit
        self._processes = processes or ServingProcesses()
        self._each = limit.seconds / limit.requests
        self._clock = clock
        self._young: dict[object, float] = {}
        self._old: dict[object, float] = {}
        self._read_at = self._now = self._renewed_at = clock()

    def count(self, caller: object) -> None:
        """Counts a request; raises TooManyRequests."""
        now = self._time()
        if now - self._renewed_at > self._limit.seconds or len(self._young) >= _MOST_CALLERS:
            self._old, self._young, self._renewed_at = self._young, {}, now
        full_at = self._young.get(caller)
        if full_at is None:
            full_at = self._old.get(caller, now)
        full_at = max(full_at, now) + self._each
        over = full_at - now - self._limit.seconds
        if over > 1e-9:
            raise TooManyRequests(self._limit, over * self._processes.count)
        self._young[caller] = full_at

    @property
    def callers(self) -> int:
        """How many callers are remembered."""
        return len(self._young) + len(self._old)

    def _time(self) -> float:
        """Returns a time that passes as fast as this process's buckets are filled."""
        at = self._clock()
        self._now += (at - self._read_at) / self._processes.count
        self._read_at = at
        return self._now


class RateLimiting:
    """The limits of this process, which shares them with others; one per app, as `state.rate_limiting`."""

    def __init__(
        self, settings: Settings, processes: ServingProcesses, *, development: bool = False
    ) -> None:
        limits = () if development else settings.rate_limits
        self._limiters = {limit.name: Limiter(limit, processes=processes) for limit in limits}
        self._trusted = to_networks(settings.trusted_proxies)
        self._reads = self._limiters.get("reads")

    def is_over(self, recipient_id: str) -> bool:
        """Counts a read of a person; returns whether there are too many, and counts none then."""
        if self._reads is None:
            return False
        try:
            self._reads.count(recipient_id)
        except TooManyRequests:
            return True
        return False

    def count(self, connection: _Connection, opt: dict[str, Any]) -> None:
        """Counts a request whose credentials are verified, or which needs none; raises TooManyRequests."""
        if not self._limiters:
            return
        caller = connection.scope.get("auth")
        safe = connection.scope.get("method") in _SAFE
        name: str | None
        if isinstance(caller, Person):
            name, key = opt.get(RATE, "reads" if safe else "writes"), caller.recipient_id
        elif caller is not None:
            name = "key-reads" if safe else "key-writes"
            key = str(caller.api_key_id)
        else:
            self.count_address(connection.scope, opt.get(RATE, "address"))
            return
        if name in self._limiters:
            self._limiters[name].count(key)

    def count_address(self, scope: Scope, name: str | None = "address") -> None:
        """Counts a request of an address; raises TooManyRequests."""
        limiter = self._limiters.get(name or "")
        if limiter is None:
            return
        address = client_address(scope, self._trusted)
        if address is not None:
            limiter.count(address)


def client_address(scope: Scope, trusted: Sequence[Network]) -> object | None:
    """Returns by what an address is counted: IPv4, or the first 64 bits of IPv6; None where it is not known.

    `X-Forwarded-For` counts as far as it was written by trusted proxies, from its end. Where none are configured, a
    peer of this machine or of a private network may be a proxy: all its clients would be counted as one.
    """
    peer = _parsed((scope.get("client") or ("", 0))[0])
    if peer is None:
        return None
    if not trusted:
        return None if _is_in(peer, _PRIVATE) else _counted(peer)
    address: IPv4Address | IPv6Address | None = peer
    hops = _forwarded_for(scope)
    while address is not None and _is_in(address, trusted):
        if not hops:
            return None  # a proxy's own request
        address = _parsed(hops.pop())
    return None if address is None else _counted(address)


def _forwarded_for(scope: Scope) -> list[str]:
    values = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return b",".join(values).decode("latin-1").split(",") if values else []


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    """Returns an address, also one with a port as some proxies write it; None where it is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


def _is_in(address: IPv4Address | IPv6Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _counted(address: IPv4Address | IPv6Address) -> object:
    return address if isinstance(address, IPv4Address) else int(address) >> 64
