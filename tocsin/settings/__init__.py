"""The settings: one frozen Settings, read from the environment once.

A setting is declared once, as the annotation of its field in Settings: what it means, how its text is read, and whether
it is a secret. `make settings-page` writes the tables of docs/settings.md from these declarations.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

from msgspec import Struct, structs

from tocsin.settings.addresses import (
    SmtpServer,
    StartTls,
    default_sender,
    parse_avatar_hosts,
    parse_host,
    parse_origins,
    parse_page_address,
    parse_public_url,
    parse_sender,
    parse_smtp_url,
)
from tocsin.settings.keys import (
    ApnsKey,
    DkimKey,
    parse_ca_file,
    parse_metrics_token,
    parse_service_account,
    read_apns_key,
    read_dkim_key,
    read_jwt_keys,
)

__all__ = ["Setting", "Settings", "SettingsError", "SmtpServer", "StartTls", "read_settings"]

LogFormat = Literal["json", "console"]

PREFIX = "TOCSIN_"
TRUE, FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
INTERNAL = frozenset({"TOCSIN_MAKE_PID", "TOCSIN_PARENT_FD"})  # see tocsin/dev/supervisor.py


class SettingsError(Exception):
    """One line that names the setting at fault and what to do."""


class Setting(Struct, frozen=True):
    """One TOCSIN_… variable. Without `parse` it is read together with others, in tocsin/settings/keys.py."""

    sentence: str  # Markdown, for docs/settings.md
    example: str
    parse: Callable[[str], Any] | None = None  # raises ValueError: what follows the setting's name
    default: str | None = None  # Markdown, where the default of the field does not say it
    secret: bool = False
    name: str = ""  # without the prefix; where it is empty, the field's


class Settings(Struct, frozen=True, kw_only=True):
    """The values of all settings. Each field with an annotation is a setting; the others are derived."""

    database_url: Annotated[
        str | None,
        Setting(
            "The app's own database, as a login that is granted `tocsin_service` (`serve`, `worker`) or as the owner "
            "of the schemas (`migrate`; it may run all), see [roles](operations.md#roles). Under `make up`, none "
            "means the embedded PostgreSQL. The connection must be direct, or by session pooling "
            "([PgBouncer](operations.md#pgbouncer)).",
            "postgresql://tocsin:secret@db:5432/app",
            _database_url,
            secret=True,
        ),
    ] = None
    data_dir: Annotated[
        Path,
        Setting(
            "Where `make up` keeps its database, mails, pushes and secrets. `serve` and `worker` need none.",
            "/var/lib/tocsin-dev",
            _folder,
        ),
    ] = Path(".tocsin")
    database_wait: Annotated[
        float,
        Setting(
            "For how many seconds `serve` and `worker` wait at their start for a database that can't be reached, "
            "starts or recovers; then they exit with one line. `0`: not at all.",
            "10",
            _whole(0, 86400),
        ),
    ] = 60.0
    retention_days: Annotated[
        int,
        Setting(
            "How many days a notification is kept after it was read or archived; one that was never in an inbox, "
            "after it was made. Workers clean up daily.",
            "30",
            _whole(1, 36500),
        ),
    ] = 90

    host: Annotated[
        str,
        Setting(
            "The address to listen on. `make up` takes loopback only, since its pages sign anybody in.",
            "0.0.0.0",  # noqa: S104
            parse_host,
        ),
    ] = "127.0.0.1"
    port: Annotated[int, Setting("The port.", "8080", _whole(1, 65535))] = 8000
    public_url: Annotated[
        str | None,
        Setting(
            "The address that people see; links in mails and in lists begin with it. May have a path prefix. `serve` "
            "needs it, and `worker` where mail is sent. `make up` sets it by itself.",
            "https://notify.example.com",
            parse_public_url,
        ),
    ] = None  # without a slash at its end
    sign_in_url: Annotated[
        str | None,
        Setting(
            "Your app's page for signing in, an address or a path: `/settings/` links to it where nobody is signed in. "
            "`make up` takes its demo.",
            "https://app.example.com/login",
            parse_page_address,
        ),
    ] = None
    allowed_origins: Annotated[
        tuple[str, ...],
        Setting(
            "Origins of other pages that people's calls may come from ([CORS](http.md#other-origins)), separated by "
            "commas or spaces: scheme, host and port, no wildcard. A page of the public URL's own origin needs none; "
            "the pages of an app made with Capacitor have `capacitor://localhost` and `https://localhost`.",
            "https://app.example.com,https://www.example.com",
            parse_origins,
        ),
    ] = ()
    avatar_hosts: Annotated[
        tuple[str, ...],
        Setting(
            "Hosts from which people's pictures (`avatar_url`) may be loaded, separated by commas or spaces; "
            "`*.example.com` is every host below that one. The API leaves out other addresses, and http; a path is "
            "always shown. Not set: no pictures of other hosts.",
            "pictures.example.com,*.gravatar.com",
            parse_avatar_hosts,
        ),
    ] = ()
    metrics_token: Annotated[
        str | None,
        Setting(
            "Opens `/metrics` to those who send it as `Authorization: Bearer`; 16 to 200 characters, or the path of "
            "a file. Not set: `/metrics` is a 404.",
            "openssl rand -hex 24",
            parse_metrics_token,
            secret=True,
        ),
    ] = None
    metrics_port: Annotated[
        int | None,
        Setting(
            "A listener for `/metrics` alone, on `127.0.0.1`, without credentials. Each `serve` of a machine needs "
            "its own.",
            "9464",
            _whole(1, 65535),
        ),
    ] = None

    jwt_secret: Annotated[
        str | None,
        Setting(
            "The secret that the host app signs its JWTs with; 32 bytes at least.",
            "openssl rand -base64 48",
            secret=True,
        ),
    ] = None
    jwt_public_key: Annotated[
        str | None, Setting("The public key of the host app's JWTs, as PEM.", "/etc/app/jwt.pem")
    ] = None
    jwks_url: Annotated[
        str | None,
        Setting(
            "The key set of an identity provider. Read again after 5 minutes, or after 10 s when a token names a key "
            "that is not known. While it can't be read, the known keys stay in use. Plain http, also by a redirect, "
            "for this machine only.",
            "https://login.example.com/jwks.json",
        ),
    ] = None
    jwt_algorithms: Annotated[
        tuple[str, ...],
        Setting(
            "Which algorithms are accepted, separated by commas or spaces. `HS256` for a secret, `RS256,ES256` for "
            "public keys. Shared and public kinds can't be mixed.",
            "ES256",
            default="by the key",
        ),
    ] = ()
    jwt_audience: Annotated[
        str | None,
        Setting(
            "The `aud` that a token must have. Not set: a token with an `aud` is refused.",
            "notifications",
            str,
        ),
    ] = None
    jwt_issuer: Annotated[
        str | None,
        Setting(
            "The `iss` that a token must have. Not set: it is not checked.",
            "https://login.example.com",
            str,
        ),
    ] = None

    smtp_url: Annotated[
        str | None,
        Setting(
            "The server that takes mails. Not set: email is decided `off` with the reason `no_provider`; under "
            "`make up`, mails go to its mailbox.",
            "smtp://user:pass@mail.example.com:587",
            _smtp_url,
            secret=True,
        ),
    ] = None
    smtp: SmtpServer | None = None  # smtp_url, parsed
    email_from: Annotated[
        str,
        Setting(
            "The sender: one address that mail servers accept, with an ASCII name before the @, and perhaps a name of "
            "at most 200 characters. Anything else ends the start with one line.",
            "Example <notifications@example.com>",
            parse_sender,
            default="`notifications@` the host of the public URL, or `notifications@localhost`",
        ),
    ] = "notifications@localhost"
    templates_dir: Annotated[
        Path | None,
        Setting(
            "The folder of your own [mail templates](templates.md), colours and logo. Workers check it as they start.",
            "/etc/tocsin/templates",
            _templates_dir,
        ),
    ] = None
    templates_reload: Annotated[
        bool,
        Setting(
            "A template that changed is read again, without a restart. For development: a broken one is then a "
            "warning at the start. `make up` sets it.",
            "true",
            _switch,
        ),
    ] = False
    dkim: Annotated[
        DkimKey | None,
        Setting(
            "Signs each mail: a private key in PEM, RSA of 1024 to 4096 bits or Ed25519; a path or the content. The "
            "next belongs to it. [How to set it up](mail.md#dkim).",
            "/run/secrets/dkim.pem",
            secret=True,
            name="DKIM_KEY",
        ),
        Setting("The key's name in DNS.", "tocsin2026", name="DKIM_SELECTOR"),
        Setting(
            "The domain that signs: that of the sender, or one above or below it.",
            "example.com",
            default="that of `TOCSIN_EMAIL_FROM`",
            name="DKIM_DOMAIN",
        ),
    ] = None

    apns: Annotated[
        ApnsKey | None,
        Setting(
            "Apple's .p8 key, a path or the content. The next three belong to it.",
            "/run/secrets/AuthKey_ABC123.p8",
            secret=True,
            name="APNS_KEY",
        ),
        Setting("Its id.", "ABC123DEFG", name="APNS_KEY_ID"),
        Setting("The team's id.", "DEF123GHIJ", name="APNS_TEAM_ID"),
        Setting("The app's bundle id.", "com.example.app", name="APNS_TOPIC"),
    ] = None
    apns_url: Annotated[
        str | None,
        Setting(
            "In place of Apple's two addresses, production and sandbox.",
            "https://127.0.0.1:2197",
            parse_public_url,
            default="Apple's",
        ),
    ] = None
    apns_ca_file: Annotated[
        Path | None,
        Setting(
            "Certificates (PEM) to trust for APNs alone. `make up` sets it for its far end of APNs.",
            "/etc/ssl/far-end-ca.pem",
            parse_ca_file,
            default="`TOCSIN_CA_FILE`",
        ),
    ] = None
    fcm_service_account: Annotated[
        dict[str, Any] | None,
        Setting(
            "A service account, a path or the content; its `token_uri` is used.",
            "/run/secrets/firebase.json",
            parse_service_account,
            secret=True,
        ),
    ] = None
    fcm_url: Annotated[
        str, Setting("In place of Google's address.", "http://127.0.0.1:8085", parse_public_url)
    ] = "https://fcm.googleapis.com"
    badge_pushes: Annotated[
        bool,
        Setting(
            "Silent pushes that [correct the badge](delivery.md#badges-on-phones) of people who read on another "
            "device. Set it alike for `serve` and `worker`: the leader among them makes these pushes.",
            "false",
            _switch,
        ),
    ] = True

    ca_file: Annotated[
        Path | None,
        Setting(
            "Certificates (PEM) to trust, in place of the system's, for the mail server, APNs, FCM and the key set.",
            "/etc/ssl/private-ca.pem",
            parse_ca_file,
            default="the system's",
        ),
    ] = None
    log_level: Annotated[
        str, Setting("`DEBUG`, `INFO`, `WARNING` or `ERROR`.", "WARNING", _log_level)
    ] = "INFO"
    log_format: Annotated[
        LogFormat,
        Setting(
            "One line per log entry, on standard error.",
            "json",
            _log_format,
            default="`console` on a terminal, else `json`",
        ),
    ] = "json"

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
    found.setdefault("email_from", default_sender(found.get("public_url")))
    found.setdefault("log_format", "console" if sys.stderr.isatty() else "json")
    if smtp_url := found.get("smtp_url"):
        found["smtp"] = parse_smtp_url(smtp_url)
    try:
        found |= structs.asdict(read_jwt_keys(texts))
        found["apns"] = read_apns_key(texts)
        found["dkim"] = read_dkim_key(texts, email_from=found["email_from"])
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
    parse_smtp_url(text)
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
    """Yields every setting, in order, with the field that it fills."""
    return {
        structs.replace(each, name=each.name or field.name.upper()): field.name
        for field in structs.fields(Settings)
        for each in getattr(field.type, "__metadata__", ())
    }


DECLARED = _declared()
_SECRET = frozenset(field for setting, field in DECLARED.items() if setting.secret)
