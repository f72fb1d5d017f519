"""How many requests a caller may send (TOCSIN_RATE_LIMITS), and which proxies are trusted (TOCSIN_TRUSTED_PROXIES)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from msgspec import Struct

Network = IPv4Network | IPv6Network

_LIMIT = re.compile(r"([1-9][0-9]{0,6})/([1-9][0-9]{0,4})([smh])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}
_LONGEST = 86_400


class RateLimit(Struct, frozen=True):
    """So many requests in so many seconds, which may also come at once."""

    name: str  # as the setting and the header RateLimit-Policy have it
    requests: int
    seconds: int


RateLimits = tuple[RateLimit, ...]

DEFAULT_RATE_LIMITS: RateLimits = (
    RateLimit("sign-in", 30, 60),  # of an address
    RateLimit("address", 3_000, 60),  # calls without valid credentials
    RateLimit("tickets", 60, 60),  # of a person
    RateLimit("writes", 300, 60),
    RateLimit("reads", 1_200, 60),
    RateLimit("key-writes", 60_000, 60),  # of an API key
    RateLimit("key-reads", 12_000, 60),
)


def parse_rate_limits(text: str) -> RateLimits:
    """Returns the limits of `reads=1200/1m,sign-in=off`; what is not named has its default. `off`: there are none."""
    if text.lower() == "off":
        return ()
    found = {each.name: each for each in DEFAULT_RATE_LIMITS}
    names = tuple(found)
    for part in re.split(r"[,\s]+", text.strip(", \t\n")):
        name, _, value = part.partition("=")
        if name not in names:
            near = get_close_matches(name[:40], names, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"has no limit {name[:40]!r}{hint}: there are {', '.join(names)}")
        if value.lower() == "off":
            found.pop(name, None)
        else:
            found[name] = _parse_limit(name, value)
    return tuple(found.values())


def _parse_limit(name: str, value: str) -> RateLimit:
    match = _LIMIT.fullmatch(value)
    seconds = int(match[2]) * _SECONDS[match[3]] if match else 0
    if match is None or seconds > _LONGEST:
        raise ValueError(
            f"has {name}={value[:40]}: write a number of requests, a slash and a time of a day at most, "
            "such as 300/1m, or off"
        )
    return RateLimit(name, int(match[1]), seconds)


def to_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Returns what `parse_networks` has read."""
    return tuple(ip_network(text) for text in texts)


def parse_networks(text: str) -> tuple[str, ...]:
    """Returns addresses and networks, which are separated by commas or spaces."""
    found = []
    for part in re.split(r"[,\s]+", text.strip(", \t\n")):
        try:
            found.append(str(ip_network(part)))
        except ValueError:
            raise ValueError(
                f"has {part[:60]!r}, which is no address or network: write 10.0.0.5 or 10.0.0.0/8"
            ) from None
    return tuple(found)
