"""One `tocsin up` a data directory, and what a command beside it takes over from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from io import FileIO
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from tocsin import postgres
from tocsin.development import DEVELOPMENT_KEY
from tocsin.push_access import ApnsAccess, FcmAccess
from tocsin.secret_file import SecretFileError, read_secrets
from tocsin.settings import Settings, SettingsError
from tocsin.settings.smtp_url import parse_smtp_url

LOCK = "up.lock"
JWT_SECRET = "jwt_secret"


class Up(Struct, frozen=True):
    """What a running `tocsin up` says of itself, in its lock file."""

    pid: int
    url: str
    smtp_url: str | None = None
    apns: ApnsAccess | None = None
    fcm: FcmAccess | None = None


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
    if settings.database_url is None and (server := postgres.running(settings.data_dir)):
        taken["database_url"] = server.dsn
    if up := who_is_up(settings.data_dir):
        if settings.public_url is None:
            taken["public_url"] = up.url
        if settings.smtp_url is None and up.smtp_url:
            taken |= {"smtp_url": up.smtp_url, "smtp": parse_smtp_url(up.smtp_url)}
        taken |= _push(settings, up)
    return structs.replace(settings, **taken)


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
