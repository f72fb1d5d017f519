"""Rate limits: how many requests a person, an API key or an address may send to this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from litestar.connection import ASGIConnection
from litestar.types import Scope

from tocsin.http.auth import RATE, Person
from tocsin.http.errors import TooManyRequests
from tocsin.settings import Network, RateLimit, Settings, to_networks

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

Connection = ASGIConnection[Any, Any, Any, Any]


class Limiter:
    """Counts the requests of each caller by one limit: a token bucket, of which only the time when it is full is kept.

    A caller that sent nothing for the time of the limit has a full bucket, so it can be forgotten: there are two
    generations, and the older one is dropped when that time is over or the younger one has many callers.
    """

    def __init__(self, limit: RateLimit, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._each = limit.seconds / limit.requests
        self._clock = clock
        self._young: dict[object, float] = {}
        self._old: dict[object, float] = {}
        self._renewed_at = clock()

    def count(self, caller: object) -> None:
        """Counts a request; raises TooManyRequests."""
        now = self._clock()
        if now - self._renewed_at > self._limit.seconds or len(self._young) >= _MOST_CALLERS:
            self._old, self._young, self._renewed_at = self._young, {}, now
        full_at = self._young.get(caller)
        if full_at is None:
            full_at = self._old.get(caller, now)
        full_at = max(full_at, now) + self._each
        over = full_at - now - self._limit.seconds
        if over > 1e-9:
            raise TooManyRequests(self._limit, over)
        self._young[caller] = full_at

    @property
    def callers(self) -> int:
        """How many callers are remembered."""
        return len(self._young) + len(self._old)


class RateLimiting:
    """The limits of this process; one per app, as `state.rate_limiting`."""

    def __init__(self, settings: Settings, *, development: bool = False) -> None:
        limits = () if development else settings.rate_limits
        self._limiters = {limit.name: Limiter(limit) for limit in limits}
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

    def count(self, connection: Connection, opt: dict[str, Any]) -> None:
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
