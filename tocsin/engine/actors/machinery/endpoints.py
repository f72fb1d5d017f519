"""Endpoints that others chose: which URLs may be connected to, and an actor for each.

Only public addresses may be, so never our own network. For development `allow_loopback` also allows this machine, and
plain http. An endpoint that hangs or fails occupies its own senders and its own mailbox, and nothing else: its actor is
made when it is first needed, and stopped once it is idle. Endpoints on one host share a limit, so that many of them
together do not open many connections to it.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Callable, Hashable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from msgspec import Struct
from yarl import URL

from tocsin.engine.actors.machinery.base import Actor
from tocsin.engine.actors.machinery.envelope import Clock
from tocsin.engine.model import ActorReport

_NUMBER = re.compile(r"(?:.*\.)?(?:\d+|0x[0-9a-f]*)\.?", re.IGNORECASE | re.ASCII)
"""An IPv4 address in an old spelling (127.1, 0x7f000001); no host name looks like one."""

_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052: the last four bytes are an IPv4 address
_RESOLVED_WITHIN = 5.0  # seconds

URL_CURES = {
    "url_invalid": "Give an https address with a host, and without a user name and a password.",
    "url_not_https": "Give an https address; for development, TOCSIN_ALLOW_PRIVATE_ENDPOINTS=1 allows http.",
    "address_forbidden": "It leads to a private address: give a public one. "
    "For development, TOCSIN_ALLOW_PRIVATE_ENDPOINTS=1 allows this machine's own.",
    "host_unknown": "The name of its host can't be resolved: check its spelling, or try again later.",
}
"""What to do about each fault of a URL, for those who registered it."""


def url_fault(url: str, *, allow_loopback: bool) -> str | None:
    """Returns why nothing is posted to a URL: it is invalid, not https, has credentials, or a private address."""
    try:
        parts = URL(url)
        host, port = parts.host, parts.port
    except ValueError:
        return "url_invalid"
    if parts.scheme not in {"https", "http"} or not host or not port or "@" in parts.raw_authority:
        return "url_invalid"
    if parts.scheme != "https" and not allow_loopback:
        return "url_not_https"
    return None if _may_be_allowed(host, allow_loopback) else "address_forbidden"


async def resolved_url_fault(url: str, *, allow_loopback: bool) -> str | None:
    """Returns the same, also where the host's name resolves to a private address now, or to none.

    For a registration. The name may resolve to another address later, so each connection is checked too.
    """
    fault = url_fault(url, allow_loopback=allow_loopback)
    if fault is not None:
        return fault
    parts = URL(url)
    try:
        async with asyncio.timeout(_RESOLVED_WITHIN):
            found = await asyncio.get_running_loop().getaddrinfo(
                parts.host, parts.port, type=socket.SOCK_STREAM
            )
    except (OSError, UnicodeError):
        return None if allow_loopback else "host_unknown"  # development may be without a network
    addresses = {str(address[0]) for *_, address in found}
    allowed = all(is_allowed(each, allow_loopback=allow_loopback) for each in addresses)
    return None if allowed else "address_forbidden"


def is_allowed(address: str, *, allow_loopback: bool) -> bool:
    """Returns whether an IP address may be connected to: a public one, and this machine where that is allowed."""
    return is_public(address) or (
        allow_loopback and ip_address(address.partition("%")[0]).is_loopback
    )


def is_public(address: str) -> bool:
    """Returns whether an IP address is public, and an IPv4 address that it embeds."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ip_address(int(ip) & 0xFFFFFFFF)  # type: ignore[assignment]
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def _may_be_allowed(host: str, allow_loopback: bool) -> bool:
    """Returns whether a host is an allowed address, or a name that is still to be resolved."""
    try:
        return is_allowed(host, allow_loopback=allow_loopback)
    except ValueError:
        return not _NUMBER.fullmatch(host)


PER_HOST = 16
"""Requests to one host at a time."""

_IDLE = 60.0  # seconds after which an unused actor is stopped, unless its breaker is open
_STOP_WITHIN = 1.0

MakeActor = Callable[[asyncio.Semaphore], Actor[Any]]


class _Endpoint(Struct, eq=False):
    actor: Actor[Any]
    host: str
    used_at: float


class EndpointActors:
    """The actors of one provider's endpoints; `make` gets the limit of the endpoint's host.

    It starts, stops and reports like one actor.
    """

    def __init__(self, name: str, make: MakeActor, *, clock: Clock = time.monotonic) -> None:
        self.name = name
        self._make = make
        self._clock = clock
        self._endpoints: dict[Hashable, _Endpoint] = {}
        self._limits: dict[str, asyncio.Semaphore] = {}
        self._stopping: set[asyncio.Task[None]] = set()
        self._swept_at = clock()

    async def start(self) -> None:
        """Starts nothing: each actor starts when its endpoint is needed."""

    async def of(self, key: Hashable, url: str) -> Actor[Any]:
        """Returns the running actor of an endpoint; a new address is a new endpoint."""
        self._stop_idle()
        endpoint = self._endpoints.get((key, url))
        if endpoint is None:
            host = _host(url)
            limit = self._limits.setdefault(host, asyncio.Semaphore(PER_HOST))
            endpoint = _Endpoint(self._make(limit), host, self._clock())
            self._endpoints[key, url] = endpoint
            await endpoint.actor.start()
        endpoint.used_at = self._clock()
        return endpoint.actor

    async def stop(self, grace: float = 5.0) -> None:
        """Stops all of them, as an actor does."""
        actors = [each.actor for each in self._endpoints.values()]
        await asyncio.gather(*(actor.stop(grace) for actor in actors), *self._stopping)
        self._endpoints.clear()

    def reports(self) -> list[ActorReport]:
        return [self.report()]

    def report(self) -> ActorReport:
        """Returns the sums; no breaker, since endpoints are independent of one another."""
        reports = [each.actor.report() for each in self._endpoints.values()]
        return ActorReport(
            name=self.name,
            waiting=sum(each.waiting for each in reports),
            size=sum(each.size for each in reports),
            in_flight=sum(each.in_flight for each in reports),
            senders=sum(each.senders for each in reports),
            rate=None,
            breaker="closed",
            breaker_reason=None,
            failing_for=0.0,
            retry_in=0.0,
            crashes=sum(each.crashes for each in reports),
            advice=None,
        )

    def _stop_idle(self) -> None:
        now = self._clock()
        if now - self._swept_at < _IDLE:
            return
        self._swept_at = now
        for key, each in list(self._endpoints.items()):
            report = each.actor.report()
            busy = report.waiting or report.in_flight or report.breaker != "closed"
            if not busy and now - each.used_at > _IDLE:
                del self._endpoints[key]
                task = asyncio.create_task(each.actor.stop(_STOP_WITHIN))
                self._stopping.add(task)
                task.add_done_callback(self._stopping.discard)
        used = {each.host for each in self._endpoints.values()}
        self._limits = {host: limit for host, limit in self._limits.items() if host in used}


def _host(url: str) -> str:
    try:
        return URL(url).host or ""
    except ValueError:
        return ""
