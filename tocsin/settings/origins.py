"""TOCSIN_ALLOWED_ORIGINS: the pages of other origins that people's calls may come from."""

from __future__ import annotations

from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


def parse_origins(text: str) -> tuple[str, ...]:
    """Each as a browser writes it in `Origin` (RFC 6454); raises ValueError with the one at fault."""
    return tuple(dict.fromkeys(_origin(each) for each in text.replace(",", " ").split()))


def _origin(text: str) -> str:
    shown = repr(text[:100])
    if "*" in text:
        raise ValueError(f"has {shown}: name each origin, since there is no wildcard")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"has {shown}, whose port is none") from None
    host = parts.hostname
    if parts.scheme not in _PORTS or not host or not text.isascii() or "@" in parts.netloc:
        raise ValueError(f"has {shown}: write a scheme and a host, such as https://app.example.com")
    if parts.path or parts.query or parts.fragment:
        raise ValueError(f"has {shown}: leave out what follows the host and its port")
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (
        f":{port}" if port not in (None, _PORTS[parts.scheme]) else ""
    )
