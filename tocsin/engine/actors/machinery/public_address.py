"""Whether a URL that others chose may be connected to: only public addresses, so never our own network.

For development `allow_loopback` also allows this machine, and plain http.
"""

from __future__ import annotations

import asyncio
import re
import socket
from ipaddress import IPv6Address, ip_address, ip_network

from yarl import URL

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
