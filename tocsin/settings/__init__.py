"""One frozen Settings, read from the environment once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, cast
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import fields

from tocsin.settings.addresses import (
    SmtpServer,
    StartTls,
    address_fault,
    parse_origins,
    parse_sender,
    parse_smtp_url,
)
from tocsin.settings.jwt_keys import read_content, read_jwt_keys
from tocsin.settings.provider_keys import ApnsKey, DkimKey, read_apns_key, read_dkim_key

__all__ = ["Settings", "SettingsError", "SmtpServer", "StartTls", "read_settings"]

LogFormat = Literal["json", "console"]

PREFIX = "TOCSIN_"
TRUE, FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
APNS = frozenset(
    {"TOCSIN_APNS_KEY", "TOCSIN_APNS_KEY_ID", "TOCSIN_APNS_TEAM_ID", "TOCSIN_APNS_TOPIC"}
)
DKIM = frozenset({"TOCSIN_DKIM_KEY", "TOCSIN_DKIM_SELECTOR", "TOCSIN_DKIM_DOMAIN"})
INTERNAL = frozenset({"TOCSIN_MAKE_PID", "TOCSIN_PARENT_FD"})  # see tocsin/dev/supervisor.py
DERIVED = frozenset(
    {"smtp", "dkim", "apns", "unknown"}
)  # fields that no setting of their own fills
SECRET = frozenset(
    {"fcm_service_account", "database_url", "smtp_url", "jwt_secret", "metrics_token"}
)

T = TypeVar("T")


class SettingsError(Exception):
    """One line that names the setting at fault and what to do."""


class Settings(Struct, frozen=True, kw_only=True):
    """What TOCSIN_… says; see docs/settings.md."""

    database_url: str | None = None
    data_dir: Path = Path(".tocsin")
    host: str = "127.0.0.1"
    port: int = 8000
    public_url: str | None = None  # absolute, without a slash at its end
    allowed_origins: tuple[str, ...] = ()  # of pages elsewhere that people's calls may come from
    smtp_url: str | None = None
    smtp: SmtpServer | None = None  # smtp_url, parsed
    email_from: str = "notifications@localhost"
    dkim: DkimKey | None = None  # the three settings of it
    templates_dir: Path | None = None  # the host's own mail templates
    templates_reload: bool = False  # a file that changed is read anew
    jwt_secret: str | None = None
    jwt_public_key: str | None = None  # PEM
    jwks_url: str | None = None
    jwt_algorithms: tuple[str, ...] = ()
    jwt_audience: str | None = None
    jwt_issuer: str | None = None
    apns: ApnsKey | None = None  # the four settings of it
    apns_url: str | None = None  # in place of both of Apple's
    apns_ca_file: Path | None = None  # for APNs alone, in place of ca_file
    fcm_service_account: dict[str, Any] | None = None
    fcm_url: str = "https://fcm.googleapis.com"
    badge_pushes: bool = True  # silent ones, to devices whose person read elsewhere
    ca_file: Path | None = None
    retention_days: int = 90
    metrics_token: str | None = None  # opens /metrics on the main port
    metrics_port: int | None = None  # of a listener for /metrics alone, on loopback
    database_wait: float = 60.0  # seconds
    log_level: str = "INFO"
    log_format: LogFormat = "json"
    unknown: tuple[str, ...] = ()  # TOCSIN_… variables that mean nothing here, to warn of

    def __repr__(self) -> str:
        """Without the secrets, as it ends in logs and tracebacks."""
        shown = (
            f"{name}={'***' if name in SECRET and value else repr(value)}"
            for name in self.__struct_fields__
            if (value := getattr(self, name))
        )
        return f"Settings({', '.join(shown)})"


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Reads TOCSIN_… and validates it; raises SettingsError with one line. An empty value is no value."""
    read = _Reader(environ)
    smtp_url = read("SMTP_URL", str, None)
    public_url = read("PUBLIC_URL", _public_url, None)
    email_from = read("EMAIL_FROM", parse_sender, _default_sender(public_url))
    try:
        jwt = read_jwt_keys(read.value)
        apns = read_apns_key(read.value)
        dkim = read_dkim_key(read.value, email_from=email_from)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    return Settings(
        database_url=read("DATABASE_URL", _database_url, None),
        data_dir=read("DATA_DIR", _folder, Path(".tocsin")),
        host=read("HOST", _host, "127.0.0.1"),
        port=read("PORT", lambda text: _whole(text, 1, 65535), 8000),
        public_url=public_url,
        allowed_origins=read("ALLOWED_ORIGINS", parse_origins, ()),
        smtp_url=smtp_url,
        smtp=read("SMTP_URL", parse_smtp_url, None),
        email_from=email_from,
        dkim=dkim,
        templates_dir=read("TEMPLATES_DIR", _templates_dir, None),
        templates_reload=read("TEMPLATES_RELOAD", _switch, False),
        jwt_secret=jwt.secret,
        jwt_public_key=jwt.public_key,
        jwks_url=jwt.jwks_url,
        jwt_algorithms=jwt.algorithms,
        jwt_audience=read("JWT_AUDIENCE", str, None),
        jwt_issuer=read("JWT_ISSUER", str, None),
        apns=apns,
        apns_url=read("APNS_URL", _public_url, None),
        apns_ca_file=read("APNS_CA_FILE", _ca_file, None),
        fcm_service_account=read("FCM_SERVICE_ACCOUNT", _service_account, None),
        fcm_url=read("FCM_URL", _public_url, "https://fcm.googleapis.com"),
        badge_pushes=read("BADGE_PUSHES", _switch, True),
        ca_file=read("CA_FILE", _ca_file, None),
        retention_days=read("RETENTION_DAYS", lambda text: _whole(text, 1, 36500), 90),
        metrics_token=read("METRICS_TOKEN", _metrics_token, None),
        metrics_port=read("METRICS_PORT", lambda text: _whole(text, 1, 65535), None),
        database_wait=read("DATABASE_WAIT", lambda text: float(_whole(text, 0, 86400)), 60.0),
        log_level=read("LOG_LEVEL", _log_level, "INFO"),
        log_format=read("LOG_FORMAT", _log_format, "console" if sys.stderr.isatty() else "json"),
        unknown=tuple(sorted(name for name in environ if _is_unknown(name))),
    )


class _Reader:
    """Reads one setting after another and puts its name before what is wrong with it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def value(self, name: str) -> str | None:
        return self._environ.get(PREFIX + name, "").strip() or None

    def __call__(self, name: str, parse: Callable[[str], T], default: T) -> T:
        text = self.value(name)
        if text is None:
            return default
        try:
            return parse(text)
        except ValueError as error:
            raise SettingsError(f"{PREFIX}{name} {error}") from None


def names() -> frozenset[str]:
    """All settings, as the environment has them."""
    own = {PREFIX + field.name.upper() for field in fields(Settings) if field.name not in DERIVED}
    return frozenset(own | APNS | DKIM)


def _is_unknown(name: str) -> bool:
    return name.startswith(PREFIX) and name not in names() | INTERNAL


def _whole(text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise ValueError(f"must be a whole number from {low} to {high}")
    return int(text)


def _switch(text: str) -> bool:
    if text.lower() not in TRUE | FALSE:
        raise ValueError("must be true or false")
    return text.lower() in TRUE


def _metrics_token(text: str) -> str:
    token = read_content(text)
    if token is None and text.startswith(("/", "./", "~/")):
        raise ValueError("looks like a path, but there is no such file")
    token = text if token is None else token
    if not (
        16 <= len(token) <= 200 and token.isascii() and token.isprintable() and " " not in token
    ):
        raise ValueError(
            "must be 16 to 200 ASCII characters without blanks: try openssl rand -hex 24"
        )
    return token


def _log_level(text: str) -> str:
    if text.upper() not in LOG_LEVELS:
        raise ValueError(f"must be one of {', '.join(LOG_LEVELS)}")
    return text.upper()


def _log_format(text: str) -> LogFormat:
    if text not in ("json", "console"):
        raise ValueError("must be json or console")
    return cast("LogFormat", text)


def _host(text: str) -> str:
    if not all(char.isalnum() or char in ".:-_%" for char in text):
        raise ValueError("must be an address or a host name alone, such as 127.0.0.1 or 0.0.0.0")
    return text


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


def _service_account(text: str) -> dict[str, Any]:
    from tocsin.settings.provider_keys import parse_service_account

    return parse_service_account(text)


def _ca_file(text: str) -> Path:
    file = Path(text).expanduser()
    try:
        holds_one = b"-----BEGIN CERTIFICATE-----" in file.read_bytes()
    except OSError as error:
        raise ValueError(f"can't be read ({error.strerror}): name a PEM file") from None
    if not holds_one:
        raise ValueError("holds no PEM certificate")
    return file


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


def _public_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be absolute, such as https://notify.example.com")
    if parts.query or parts.fragment or parts.username is not None or not text.isprintable():
        raise ValueError("may have a host, a port and a path, and nothing else")
    _ = parts.port  # raises ValueError when it is no port
    return text.rstrip("/")


def _default_sender(public_url: str | None) -> str:
    host = urlsplit(public_url or "").hostname or "localhost"
    sender = f"notifications@{host}"
    # mail servers refuse a bare number after the @, and other hosts that no mail has
    return "notifications@localhost" if address_fault(sender) else sender
