"""One `tocsin up` a data directory, and what a command beside it takes over from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from io import FileIO
from pathlib import Path
from typing import Any

import jwt
import msgspec
from msgspec import Struct, structs

from tocsin.settings import Settings, SettingsError
from tocsin.settings.addresses import is_loopback, parse_smtp_url
from tocsin.settings.provider_keys import ApnsKey
from tocsin.settings.secret_file import SecretFileError, read_secrets

# Under `tocsin up` alone: tokens signed with a key of their own, for a service that only this machine reaches.

DEVELOPMENT_KEY = "development_key"  # its name among the data directory's secrets
KEY_ID = "tocsin-development"  # `kid` in the header of a token that it signed
ALGORITHM = "HS256"
_DAY = timedelta(days=1)


def check_bind(settings: Settings) -> None:
    """Raises SettingsError where others could reach the pages that sign anybody in."""
    if not is_loopback(settings.host):
        raise SettingsError(
            f"TOCSIN_HOST {settings.host} can be reached from other machines, and the pages of `make up` sign anybody "
            "in: leave it unset (127.0.0.1), or run `tocsin serve` and `tocsin worker` in place of `make up`"
        )


def sign_token(settings: Settings, recipient_id: str, *, development_key: str | None = None) -> str:
    """A JWT for a day with the claims that the service asks for, by the development key or else TOCSIN_JWT_SECRET."""
    now = datetime.now(UTC)
    claims: dict[str, Any] = {"sub": recipient_id, "iat": now, "exp": now + _DAY}
    claims |= {"aud": settings.jwt_audience} if settings.jwt_audience else {}
    claims |= {"iss": settings.jwt_issuer} if settings.jwt_issuer else {}
    if development_key is not None:
        return jwt.encode(claims, development_key, ALGORITHM, headers={"kid": KEY_ID})
    if settings.jwt_secret is None:
        raise SettingsError(
            "TOCSIN_JWT_SECRET is not set: only your host app can sign tokens here."
        )
    return jwt.encode(claims, settings.jwt_secret, settings.jwt_algorithms[0])


# How the far ends of a running `tocsin up` are reached: told by its lock file, so by paths, without any secret.


class ApnsAccess(Struct, frozen=True, kw_only=True):
    """APNs' far end, with the key that it knows and the certificate to trust it by."""

    url: str
    key: str  # a path, as is ca_file
    key_id: str
    team_id: str
    topic: str
    ca_file: str

    @property
    def environ(self) -> dict[str, str]:
        """For a child process."""
        return {
            "TOCSIN_APNS_KEY": self.key,
            "TOCSIN_APNS_KEY_ID": self.key_id,
            "TOCSIN_APNS_TEAM_ID": self.team_id,
            "TOCSIN_APNS_TOPIC": self.topic,
            "TOCSIN_APNS_URL": self.url,
            "TOCSIN_APNS_CA_FILE": self.ca_file,
        }

    def settings(self) -> dict[str, object]:
        """The fields of Settings, read without a check, which would take its time; raises OSError."""
        pem = Path(self.key).read_text()
        return {
            "apns": ApnsKey(pem, self.key_id, self.team_id, self.topic),
            "apns_url": self.url,
            "apns_ca_file": Path(self.ca_file),
        }


class FcmAccess(Struct, frozen=True, kw_only=True):
    """FCM's far end, with the service account that it knows."""

    url: str
    service_account: str  # a path

    @property
    def environ(self) -> dict[str, str]:
        """For a child process."""
        return {
            "TOCSIN_FCM_SERVICE_ACCOUNT": self.service_account,
            "TOCSIN_FCM_URL": self.url,
        }

    def settings(self) -> dict[str, object]:
        """The fields of Settings; raises OSError."""
        account: dict[str, Any] = msgspec.json.decode(Path(self.service_account).read_bytes())
        return {"fcm_service_account": account, "fcm_url": self.url}


LOCK = "up.lock"
JWT_SECRET = "jwt_secret"
OWNER, DATABASE = "tocsin_owner", "tocsin"  # of the embedded PostgreSQL
OWNER_SECRET = "owner_password"
POSTGRES_HOST = "127.0.0.1"
POSTGRES_PORT_FILE = "postgres.port"


class Up(Struct, frozen=True):
    """What a running `tocsin up` says of itself, in its lock file."""

    pid: int
    url: str
    smtp_url: str | None = None
    apns: ApnsAccess | None = None
    fcm: FcmAccess | None = None
    embedded_postgres: bool = False  # whether its database is its own


class AlreadyUp(Exception):
    """Another `tocsin up` has this data directory."""

    def __init__(self, other: Up | None) -> None:
        where = f" (pid {other.pid}) at {other.url}" if other else ""
        super().__init__(f"Tocsin is up already{where}: stop it first, or set TOCSIN_DATA_DIR")


@contextmanager
def only_one(data_dir: Path) -> Iterator[FileIO]:
    """Holds the data directory; the kernel lets go of it with the process, so that no crash leaves it locked."""
    with FileIO(data_dir / LOCK, "a+") as lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise AlreadyUp(_read(lock)) from None
        lock.truncate(0)
        try:
            yield lock
        finally:
            lock.truncate(0)


def tell(lock: FileIO, up: Up) -> None:
    """Writes what commands beside it need to know."""
    lock.truncate(0)
    lock.write(msgspec.json.encode(up))


def who_is_up(data_dir: Path) -> Up | None:
    """The `tocsin up` of this data directory, while it runs."""
    with suppress(OSError), FileIO(data_dir / LOCK) as lock:
        try:
            flock(lock, LOCK_SH | LOCK_NB)
        except BlockingIOError:
            return _read(lock)
    return None


def development_key(data_dir: Path) -> str | None:
    """The key of development tokens, while a `tocsin up` of this data directory runs that accepts them."""
    try:
        return read_secrets(data_dir).get(DEVELOPMENT_KEY) if who_is_up(data_dir) else None
    except SecretFileError as error:
        raise SettingsError(str(error)) from None


def beside(settings: Settings) -> Settings:
    """The settings with what is not set taken from the `tocsin up` of the same data directory.

    Database, public URL, mail server, APNs and FCM while it runs; the JWT secret also afterwards.
    """
    taken: dict[str, object] = {}
    try:
        secret = read_secrets(settings.data_dir).get(JWT_SECRET)
    except SecretFileError as error:
        raise SettingsError(str(error)) from None
    if secret and not (settings.jwt_secret or settings.jwt_public_key or settings.jwks_url):
        taken["jwt_secret"] = secret
        taken["jwt_algorithms"] = settings.jwt_algorithms or ("HS256",)
    if up := who_is_up(settings.data_dir):
        if settings.database_url is None and up.embedded_postgres:
            taken["database_url"] = owner_dsn(settings.data_dir)
        if settings.public_url is None:
            taken["public_url"] = up.url
        if settings.smtp_url is None and up.smtp_url:
            taken |= {"smtp_url": up.smtp_url, "smtp": parse_smtp_url(up.smtp_url)}
        taken |= _push(settings, up)
    return structs.replace(settings, **taken)


def owner_dsn(data_dir: Path) -> str:
    """The owner's DSN of the embedded PostgreSQL of this data directory; raises SettingsError."""
    try:
        port = int((data_dir / POSTGRES_PORT_FILE).read_text())
        password = read_secrets(data_dir)[OWNER_SECRET]
    except (OSError, ValueError, KeyError, SecretFileError) as error:
        raise SettingsError(
            f"the database of `make up` in {data_dir} can't be found: {error}"
        ) from None
    return f"postgresql://{OWNER}:{password}@{POSTGRES_HOST}:{port}/{DATABASE}"


def _push(settings: Settings, up: Up) -> dict[str, object]:
    taken: dict[str, object] = {}
    try:
        if settings.apns is None and up.apns:
            taken |= up.apns.settings()
        if settings.fcm_service_account is None and up.fcm:
            taken |= up.fcm.settings()
    except OSError as error:
        raise SettingsError(f"{error.filename} can't be read: {error.strerror}") from None
    return taken


def _read(lock: FileIO) -> Up | None:
    lock.seek(0)
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(lock.read(), type=Up)
    return None
