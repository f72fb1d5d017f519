"""Which host names mean this machine alone."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether it is localhost, an address of 127.0.0.0/8, or ::1; no name is looked up."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(authority: str) -> str:
    """The host of `host:port` as a Host header has it, without brackets; empty where it can't be read."""
    try:
        parts = urlsplit(f"//{authority}")
        _ = parts.port  # raises ValueError where it is no port
    except ValueError:
        return ""
    unusual = parts.path or parts.query or parts.fragment or "@" in authority
    return "" if unusual else parts.hostname or ""


def is_untampered(url: str) -> bool:
    """Whether nobody on the network can change what the address returns: https, or plain http on this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
