"""The settings: one frozen Settings, read from the environment once.

A setting is a field of Settings, annotated with how its text is read, and a table of settings.toml with what it means.
`make settings-page` writes the tables of docs/settings.md from both.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast, get_args

from msgspec import Struct, structs

from tocsin.settings import addresses, keys
from tocsin.settings.addresses import SmtpServer
from tocsin.settings.keys import ApnsKey, DkimKey, VapidKey, read_vapid_key

LogFormat = Literal["json", "console"]

PREFIX = "TOCSIN_"
TRUE, FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
INTERNAL = frozenset({"TOCSIN_MAKE_PID", "TOCSIN_PARENT_FD"})  # see tocsin/dev/supervisor.py


class SettingsError(Exception):
    """One line that names the setting at fault and what to do."""


class Setting(Struct, frozen=True, forbid_unknown_fields=True):
    """One TOCSIN_… variable. Without `parse` it is read together with others, in tocsin/settings/keys.py."""

    sentence: str  # Markdown, for docs/settings.md
    example: str
    parse: Callable[[str], Any] | None = None  # raises ValueError: what follows the setting's name
    default: str | None = None  # Markdown, where the default of the field does not state it
    secret: bool = False
    name: str = ""  # without the prefix


Network = IPv4Network | IPv6Network

_LIMIT = re.compile(r"([1-9][0-9]{0,6})/([1-9][0-9]{0,4})([smh])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}
_SEND_RATE = re.compile(r"([1-9][0-9]{0,6})/([1-9][0-9]{0,4})?([smh])", re.ASCII)
SEND_RATE_CHANNELS = ("email", "push", "web_push")
_LONGEST = 86_400


class RateLimit(Struct, frozen=True):
    """So many requests in so many seconds, which may also come at once."""

    name: str  # as the setting and the header RateLimit-Policy have it
    requests: int
    seconds: int


RateLimits = tuple[RateLimit, ...]
SendRates = tuple[tuple[str, float], ...]

DEFAULT_RATE_LIMITS: RateLimits = (
    RateLimit("sign-in", 30, 60),  # of an address
    RateLimit("address", 3_000, 60),  # calls without valid credentials
    RateLimit("tickets", 60, 60),  # of a person
    RateLimit("writes", 300, 60),
    RateLimit("reads", 1_200, 60),
    RateLimit("key-writes", 60_000, 60),  # of an API key
    RateLimit("key-reads", 12_000, 60),
)


class Settings(Struct, frozen=True, kw_only=True):
    """The values of all settings. A field is annotated with how its setting is read, or with the names of its settings.

    The fields without an annotation are derived.
    """

    database_url: Annotated[str | None, _database_url] = None
    pooler_url: Annotated[str | None, _database_url] = None
    replica_url: Annotated[str | None, _database_url] = None
    data_dir: Annotated[Path, _folder] = Path(".tocsin")
    max_connections: Annotated[int | None, _whole(3, 1000)] = None
    database_wait: Annotated[float, _whole(0, 86400)] = 60.0
    retention_days: Annotated[int, _whole(1, 36500)] = 90
    unread_retention_days: Annotated[int | None, _whole(1, 36500)] = None

    host: Annotated[str, addresses.parse_host] = "127.0.0.1"
    port: Annotated[int, _whole(1, 65535)] = 8000
    public_url: Annotated[str | None, addresses.parse_public_url] = (
        None  # without a slash at its end
    )
    sign_in_url: Annotated[str | None, addresses.parse_page_address] = None
    allowed_origins: Annotated[tuple[str, ...], addresses.parse_origins] = ()
    avatar_hosts: Annotated[tuple[str, ...], addresses.parse_avatar_hosts] = ()
    metrics_token: Annotated[str | None, keys.parse_metrics_token] = None
    metrics_port: Annotated[int | None, _whole(1, 65535)] = None
    worker_metrics_port: Annotated[int | None, _whole(1, 65535)] = None

    jwt_secret: Annotated[str | None, "JWT_SECRET"] = None
    jwt_public_key: Annotated[str | None, "JWT_PUBLIC_KEY"] = None
    jwks_url: Annotated[str | None, "JWKS_URL"] = None
    jwt_algorithms: Annotated[tuple[str, ...], "JWT_ALGORITHMS"] = ()
    jwt_audience: Annotated[str | None, str] = None
    jwt_issuer: Annotated[str | None, str] = None

    smtp_url: Annotated[str | None, _smtp_url] = None
    smtp_servers: tuple[SmtpServer, ...] = ()  # smtp_url, parsed: in the order of their use
    email_from: Annotated[str, addresses.parse_sender] = "notifications@localhost"
    templates_dir: Annotated[Path | None, _templates_dir] = None
    templates_reload: Annotated[bool, _switch] = False
    dkim: Annotated[DkimKey | None, "DKIM_KEY", "DKIM_SELECTOR", "DKIM_DOMAIN"] = None

    return_path: Annotated[str | None, addresses.parse_return_path] = None
    ses_topics: Annotated[tuple[str, ...], addresses.parse_topics] = ()
    sns_url: Annotated[str | None, addresses.parse_public_url] = None
    postmark_secret: Annotated[str | None, keys.parse_shared_secret] = None
    mailgun_signing_key: Annotated[str | None, keys.parse_shared_secret] = None
    sendgrid_public_key: Annotated[str | None, keys.parse_p256_public_key] = None

    apns: Annotated[ApnsKey | None, "APNS_KEY", "APNS_KEY_ID", "APNS_TEAM_ID", "APNS_TOPIC"] = None
    apns_url: Annotated[str | None, addresses.parse_public_url] = None
    apns_ca_file: Annotated[Path | None, keys.parse_ca_file] = None
    fcm_service_account: Annotated[dict[str, Any] | None, keys.parse_service_account] = None
    fcm_url: Annotated[str, addresses.parse_public_url] = "https://fcm.googleapis.com"
    vapid: Annotated[VapidKey | None, "VAPID_KEY", "VAPID_SUBJECT"] = None
    badge_pushes: Annotated[bool, _switch] = True

    allow_private_endpoints: Annotated[bool, _switch] = False
    mail_cap: Annotated[int, _whole(0, 100_000)] = 60
    send_rates: Annotated[SendRates, parse_send_rates] = ()  # channels, and messages a second
    rate_limits: Annotated[RateLimits, parse_rate_limits] = DEFAULT_RATE_LIMITS
    trusted_proxies: Annotated[tuple[str, ...], parse_networks] = ()

    ca_file: Annotated[Path | None, keys.parse_ca_file] = None
    log_level: Annotated[str, _log_level] = "INFO"
    log_format: Annotated[LogFormat, _log_format] = "json"

    unknown: tuple[str, ...] = ()  # TOCSIN_… variables that are no settings, to warn of

    def __repr__(self) -> str:
        """Returns a text without the secrets, since it is written to logs and tracebacks."""
        shown = (
            f"{name}={'***' if name in _SECRET and value else repr(value)}"
            for name in self.__struct_fields__
            if (value := getattr(self, name))
        )
        return f"Settings({', '.join(shown)})"


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Reads and validates all settings; raises SettingsError with one line. An empty value is no value."""
    texts = {
        setting.name: text
        for setting in DECLARED
        if (text := environ.get(PREFIX + setting.name, "").strip())
    }
    found: dict[str, Any] = {
        setting.name.lower(): _parsed(setting, texts[setting.name])
        for setting in DECLARED
        if setting.parse and setting.name in texts
    }
    found.setdefault("email_from", addresses.default_sender(found.get("public_url")))
    found.setdefault("log_format", "console" if sys.stderr.isatty() else "json")
    if smtp_url := found.get("smtp_url"):
        found["smtp_servers"] = addresses.parse_smtp_urls(smtp_url)
    try:
        found |= keys.read_jwt_keys(texts)
        found["apns"] = keys.read_apns_key(texts)
        found["dkim"] = keys.read_dkim_key(texts, email_from=found["email_from"])
        found["vapid"] = read_vapid_key(texts, email_from=found["email_from"])
    except ValueError as error:
        raise SettingsError(str(error)) from None
    known = {PREFIX + setting.name for setting in DECLARED} | INTERNAL
    unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
    return Settings(**found, unknown=tuple(unknown))


def _parsed(setting: Setting, text: str) -> Any:
    assert setting.parse is not None
    try:
        return setting.parse(text)
    except ValueError as error:
        raise SettingsError(f"{PREFIX}{setting.name} {error}") from None


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def _smtp_url(text: str) -> str:
    addresses.parse_smtp_urls(text)
    return text


def _switch(text: str) -> bool:
    if text.lower() not in TRUE | FALSE:
        raise ValueError("must be true or false")
    return text.lower() in TRUE


def _log_level(text: str) -> str:
    if text.upper() not in LOG_LEVELS:
        raise ValueError(f"must be one of {', '.join(LOG_LEVELS)}")
    return text.upper()


def _log_format(text: str) -> LogFormat:
    if text not in get_args(LogFormat):
        raise ValueError("must be json or console")
    return cast("LogFormat", text)


def _folder(text: str) -> Path:
    folder = Path(text).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ValueError("is a file: name a folder, which is made if it is not there")
    return folder


def _templates_dir(text: str) -> Path:
    folder = Path(text).expanduser()
    if not folder.is_dir() or not os.access(folder, os.R_OK | os.X_OK):
        raise ValueError("is no folder that can be read: name the one with your mail templates")
    return folder.resolve()


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


def parse_send_rates(text: str) -> SendRates:
    """Returns the messages a second of each channel in `email=14/s, push=500/s`."""
    found: dict[str, float] = {}
    for part in re.split(r"[,\s]+", text.strip(", \t\n")):
        name, _, value = part.partition("=")
        match = _SEND_RATE.fullmatch(value)
        if name not in SEND_RATE_CHANNELS:
            near = get_close_matches(name[:40], SEND_RATE_CHANNELS, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            channels = ", ".join(SEND_RATE_CHANNELS)
            raise ValueError(
                f"has {name[:40]!r}{hint}, which is no channel that may have a rate: {channels}"
            )
        if name in found:
            raise ValueError(f"has {name} twice: a channel has one rate")
        if match is None:
            raise ValueError(
                f"has {name}={value[:40]}: write a number of messages, a slash and a time, such as 14/s or 500/1h"
            )
        found[name] = int(match[1]) / (int(match[2] or 1) * _SECONDS[match[3]])
    return tuple(found.items())


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


def _database_url(text: str) -> str:
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    cure = "write postgresql://user:password@host:5432/database"
    if "://" in text and not text.startswith(("postgresql://", "postgres://")):
        raise ValueError(f"is no PostgreSQL URL: {cure}")
    try:
        conninfo_to_dict(text)
    except ProgrammingError:  # its message may quote the password
        raise ValueError(f"can't be read: {cure}, special characters percent-encoded") from None
    return text


def _declared() -> dict[Setting, str]:
    """Returns every setting, in order, with the field that it fills."""
    rows = tomllib.loads(Path(__file__).with_name("settings.toml").read_text("utf-8"))
    return {
        Setting(**rows[name], name=name, parse=parse): field.name
        for field in structs.fields(Settings)
        for each in getattr(field.type, "__metadata__", ())
        for name, parse in ((each, None) if isinstance(each, str) else (field.name.upper(), each),)
    }


DECLARED = _declared()
_SECRET = frozenset(field for setting, field in DECLARED.items() if setting.secret)
