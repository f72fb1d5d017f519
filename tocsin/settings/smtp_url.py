"""TOCSIN_SMTP_URL: where mail goes out, as one parsed address."""

from __future__ import annotations

from typing import Literal, cast
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from msgspec import Struct

StartTls = Literal["auto", "always", "never"]

DEFAULT_PORTS = {"smtp": 25, "smtps": 465}


class SmtpServer(Struct, frozen=True, kw_only=True):
    """A mail server to submit to: `tls` from the first byte, or `starttls` once connected."""

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    tls: bool = False
    starttls: StartTls = "auto"

    def __repr__(self) -> str:
        """Without the password, as it ends in logs and tracebacks."""
        return f"SmtpServer({self.host}:{self.port}, tls={self.tls}, starttls={self.starttls})"


def parse_smtp_url(url: str) -> SmtpServer:
    """Reads `smtp[s]://[user:pass@]host[:port][?starttls=auto|always|never]`; ValueError says what is wrong."""
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError("must begin with smtp:// or smtps://")
    if not parts.hostname:
        raise ValueError("has no host: write smtp://host:port")
    if parts.path not in ("", "/") or parts.fragment:
        raise ValueError("has a path; percent-encode / and # in the user name or password")
    tls = parts.scheme == "smtps"
    return SmtpServer(
        host=parts.hostname,
        port=_port(parts),
        username=_decoded(parts.username),
        password=_decoded(parts.password),
        tls=tls,
        starttls=_starttls(parts.query, tls=tls),
    )


def _port(parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port is None:
        return DEFAULT_PORTS[parts.scheme]
    if port == 0:
        raise ValueError("has a port that is not a number from 1 to 65535")
    return port


def _decoded(part: str | None) -> str | None:
    if not part:
        return None
    decoded = unquote(part, errors="strict")
    if not decoded.isprintable():  # a line break here would write SMTP commands of its own
        raise ValueError("has a control character in the user name or password")
    return decoded


def _starttls(query: str, *, tls: bool) -> StartTls:
    options = parse_qs(query, keep_blank_values=True)
    unknown = sorted(set(options) - {"starttls"})
    if unknown:
        raise ValueError(f"has an unknown option {unknown[0]!r}: only starttls= is known")
    if "starttls" not in options:
        return "never" if tls else "auto"
    value = options["starttls"][-1]
    if value not in ("auto", "always", "never"):
        raise ValueError("has starttls= other than auto, always or never")
    if tls and value == "always":
        raise ValueError("has starttls=always with smtps://, which is encrypted already: use one")
    return cast("StartTls", value)
