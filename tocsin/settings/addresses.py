"""Addresses in settings: URLs, hosts, origins, the sender of mails. Parsers raise ValueError with what is wrong."""

from __future__ import annotations

import re
from email.utils import parseaddr
from ipaddress import ip_address
from typing import Literal, cast
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from msgspec import Struct

StartTls = Literal["auto", "always", "never"]

MOST_NAME_CHARACTERS = 200

_PORTS = {"http": 80, "https": 443, "smtp": 25, "smtps": 465}
_APP_SCHEMES = ("capacitor", "ionic", "tauri")  # the pages of apps on phones and desktops
_SENDER = re.compile(
    r'(?:"(?:[^"\\]|\\.)*"|[^"<>@,;:\\\[\]]*?)\s*<(?P<named>[^<>\s]+)>|(?P<bare>[^<>\u2039\u203a\s,;]+)'
)
# As `tocsin.address_fault` in sql/functions/address.sql, of what is ASCII: RFC 5321, RFC 1123.
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}")
_AVATAR_HOST = re.compile(rf"(?:\*\.)?(?:{_LABEL}\.)*{_LABEL}(?::[0-9]{{1,5}})?", re.IGNORECASE)
_EXAMPLE = '"Example <notifications@example.com>"'
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?")


class SmtpServer(Struct, frozen=True, kw_only=True):
    """A mail server to submit to: `tls` from the first byte, or `starttls` once connected."""

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    tls: bool = False
    starttls: StartTls = "auto"

    @property
    def address(self) -> str:
        """The host with its port, by which attempts and alarms name the server."""
        return f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        """Returns a text without the password, since it is written to logs and tracebacks."""
        return f"SmtpServer({self.address}, tls={self.tls}, starttls={self.starttls})"


def parse_host(text: str) -> str:
    """Returns an address to listen on; raises ValueError."""
    if not all(char.isalnum() or char in ".:-_%" for char in text):
        raise ValueError("must be an address or a host name alone, such as 127.0.0.1 or 0.0.0.0")
    return text


def parse_public_url(text: str) -> str:
    """Returns an absolute http(s) address, without a slash at its end; raises ValueError."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be absolute, such as https://notify.example.com")
    if parts.query or parts.fragment or parts.username is not None or not text.isprintable():
        raise ValueError("may have a host, a port and a path, and nothing else")
    _ = parts.port  # raises ValueError when it is no port
    return text.rstrip("/")


def parse_page_address(text: str) -> str:
    """Returns the address of a page: http(s), or a path; raises ValueError."""
    parts = urlsplit(text)
    is_path = not parts.scheme and not parts.netloc and text.startswith("/")
    is_web = parts.scheme in ("http", "https") and parts.hostname
    if not (is_path or is_web) or not text.isprintable() or "\\" in text:
        raise ValueError(
            "must be a path or an http(s) address, such as https://app.example.com/login"
        )
    return text


def default_sender(public_url: str | None) -> str:
    """Returns the sender of mails where TOCSIN_EMAIL_FROM is not set."""
    host = urlsplit(public_url or "").hostname or "localhost"
    sender = f"notifications@{host}"
    # mail servers refuse a bare number after the @, and other hosts that no mail has
    return "notifications@localhost" if address_fault(sender) else sender


_BETWEEN_URLS = re.compile(r"[\s,]+(?=smtps?:)")  # a password may contain commas


def parse_smtp_urls(text: str) -> tuple[SmtpServer, ...]:
    """Reads one URL, or several that are separated by blanks or commas; raises ValueError."""
    servers = tuple(_parse_smtp_url(url) for url in _BETWEEN_URLS.split(text.strip(" ,")))
    twice = [each for each in servers if servers.count(each) > 1]
    if twice:
        raise ValueError(f"names {twice[0].address} twice: name each server once")
    return servers


def _parse_smtp_url(url: str) -> SmtpServer:
    """Reads `smtp[s]://[user:pass@]host[:port][?starttls=auto|always|never]`."""
    parts = urlsplit(url)
    if parts.scheme not in ("smtp", "smtps"):
        raise ValueError("must begin with smtp:// or smtps://")
    if not parts.hostname:
        raise ValueError("has no host: write smtp://host:port")
    if re.search(r"[\s,;]", parts.hostname):
        raise ValueError(
            "has a host that is none; several servers are separated by blanks, each with its smtp://"
        )
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
        return _PORTS[parts.scheme]
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


def parse_sender(text: str) -> str:
    """Returns one ASCII address that mail servers accept, and perhaps a name before it."""
    found = _SENDER.fullmatch(text)
    address = found and (found["named"] or found["bare"])
    if not address or "@" not in address or not text.isprintable() or parseaddr(text)[1] != address:
        raise ValueError(f"must be one address in one line, such as {_EXAMPLE}")
    if len(parseaddr(text)[0]) > MOST_NAME_CHARACTERS:
        raise ValueError(f"has a name of more than {MOST_NAME_CHARACTERS} characters")
    if fault := address_fault(address):
        raise ValueError(
            f"must have an address that mail servers accept, such as {_EXAMPLE}: {fault}"
        )
    return text


TAG_PLACE = "{tag}"
"""Where the tag of a mail stands in the return path."""
_LONGEST_TAG = "9223372036854775807.0123456789ab"
_TOPIC_ARN = re.compile(
    r"arn:aws(?:-cn|-us-gov)?:sns:[a-z0-9-]{3,40}:[0-9]{12}:[A-Za-z0-9_.-]{1,256}"
)


def parse_return_path(text: str) -> str:
    """Returns the address to which mail servers report, perhaps with a place for the tag; raises ValueError."""
    if fault := address_fault(text.replace(TAG_PLACE, _LONGEST_TAG, 1)):
        raise ValueError(
            f"must be an address, such as bounces+{TAG_PLACE}@example.com: with the tag in place, {fault}"
        )
    return text


def parse_topics(text: str) -> tuple[str, ...]:
    """Returns the ARN of each topic of SNS; raises ValueError."""
    topics = tuple(dict.fromkeys(text.replace(",", " ").split()))
    for topic in topics:
        if not _TOPIC_ARN.fullmatch(topic):
            raise ValueError(
                f"has {topic[:100]!r}: write a topic's ARN, such as arn:aws:sns:eu-west-1:123456789012:bounces"
            )
    return topics


def address_fault(address: str) -> str | None:
    """Returns what is wrong with an address that mails are sent from, or None. Its domain may be in any script."""
    local, at, domain = address.rpartition("@")
    if not (at and local and domain):
        return "it needs an @ between a name and a domain"
    if not local.isascii():
        return "many lack SMTPUTF8, which the letters before the @ need"
    if len(local) > 64 or not _LOCAL.fullmatch(local):
        return "before the @ are at most 64 letters, digits and single dots"
    domain = _to_ascii(domain)
    if not _DOMAIN.fullmatch(domain) or len(local) + 1 + len(domain) > 254:
        return "its domain has an empty, overlong or misspelt part"
    return None


def _to_ascii(domain: str) -> str:
    """Returns a name as DNS has it (IDNA 2008); empty where it is invalid."""
    if domain.isascii():
        return domain
    import idna

    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        return ""


def parse_origins(text: str) -> tuple[str, ...]:
    """Returns each origin as a browser writes it in `Origin` (RFC 6454)."""
    return tuple(dict.fromkeys(_origin(each) for each in text.replace(",", " ").split()))


def parse_avatar_hosts(text: str) -> tuple[str, ...]:
    """Returns each host in lower case, as a Content-Security-Policy takes it; raises ValueError."""
    hosts = tuple(dict.fromkeys(each.lower() for each in text.replace(",", " ").split()))
    for host in hosts:
        if not _AVATAR_HOST.fullmatch(host):
            raise ValueError(
                f"has {host[:100]!r}: write a host, such as pictures.example.com or *.example.com"
            )
    return hosts


def _origin(text: str) -> str:
    shown = repr(text[:100])
    if "*" in text:
        raise ValueError(f"has {shown}: name each origin, since there is no wildcard")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError(f"has {shown}, whose port is none") from None
    host = parts.hostname
    if (
        parts.scheme not in ("http", "https", *_APP_SCHEMES)
        or not host
        or not text.isascii()
        or "@" in parts.netloc
    ):
        raise ValueError(f"has {shown}: write a scheme and a host, such as https://app.example.com")
    if parts.path or parts.query or parts.fragment:
        raise ValueError(f"has {shown}: leave out what follows the host and its port")
    return origin_of(text)


def origin_of(url: str) -> str:
    """Returns the origin of pages at this address, as a browser writes it in `Origin` (RFC 6454)."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port not in (None, _PORTS.get(parts.scheme)) else ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"


def is_loopback(host: str) -> bool:
    """Returns whether it is localhost, an address of 127.0.0.0/8, or ::1; no name is looked up."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(authority: str) -> str:
    """Returns the host of `host:port` as a Host header has it, without brackets; empty where it is something else."""
    found = _AUTHORITY.fullmatch(authority)
    return (found[1] or found[2]) if found else ""


def is_untampered(url: str) -> bool:
    """Returns whether nobody on the network can change the response: https, or plain http on this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
