"""The data directory of `tocsin up`: its secrets, its lock, and what other commands take from a running one."""

from __future__ import annotations

import errno
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, structs

from tocsin.settings import Settings, SettingsError, read_settings
from tocsin.settings.addresses import is_loopback

DEVELOPMENT_KEY = "development_key"  # its name among the data directory's secrets
KEY_ID = "tocsin-development"  # `kid` in the header of a token that it signed
ALGORITHM = "HS256"

LOCK = "up.lock"
SECRETS = "secrets.json"
JWT_SECRET = "jwt_secret"
OWNER, DATABASE = "tocsin_owner", "tocsin"  # of the embedded PostgreSQL
OWNER_SECRET = "owner_password"
POSTGRES_HOST = "127.0.0.1"
POSTGRES_PORT_FILE = "postgres.port"

# Settings that are taken from a running `tocsin up`, each group where its first one is not set.
_TOGETHER = (
    ("public_url",),
    ("smtp_url", "smtp_servers"),
    ("apns", "apns_url", "apns_ca_file"),
    ("fcm_service_account", "fcm_url"),
    ("vapid", "allow_private_endpoints"),
)
_RANDOM_BYTES = 36  # 48 characters, enough for HS384 too
_DAY = timedelta(days=1)


class SecretFileError(Exception):
    """The file of secrets is there and can't be used; one line that names the reason."""


class AlreadyRunning(Exception):
    """Another `tocsin up` has this data directory."""

    def __init__(self, other: RunningInstance | None) -> None:
        where = f" (pid {other.pid}) at {other.url}" if other else ""
        super().__init__(f"Tocsin is up already{where}: stop it first, or set TOCSIN_DATA_DIR")


class RunningInstance(Struct, frozen=True):
    """The content of the lock file of a running `tocsin up`."""

    pid: int
    url: str
    environ: dict[
        str, str
    ] = {}  # its mail server, APNs, FCM and Web Push as settings; keys are paths
    embedded_postgres: bool = False  # whether its database is its own


@contextmanager
def lock_data_dir(data_dir: Path) -> Iterator[FileIO]:
    """Locks the data directory for one `tocsin up`; raises AlreadyRunning.

    The kernel releases the lock with the process, so that no crash leaves it locked.
    """
    with FileIO(data_dir / LOCK, "a+") as lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(_read(lock)) from None
        lock.truncate(0)
        try:
            yield lock
        finally:
            lock.truncate(0)


def publish(lock: FileIO, instance: RunningInstance) -> None:
    """Writes into the lock file what other commands need to know."""
    lock.truncate(0)
    lock.write(msgspec.json.encode(instance))


def find_running_instance(data_dir: Path) -> RunningInstance | None:
    """Returns the `tocsin up` of this data directory; None where none runs."""
    with suppress(OSError), FileIO(data_dir / LOCK) as lock:
        try:
            flock(lock, LOCK_SH | LOCK_NB)
        except BlockingIOError:
            return _read(lock)
    return None


def with_running_instance(settings: Settings) -> Settings:
    """Returns the settings, where what is not set is taken from the `tocsin up` of the same data directory.

    Database, public URL, mail server, APNs, FCM and Web Push while it runs; the JWT secret also afterwards.
    """
    taken: dict[str, object] = {}
    secret = _read_secrets_for_settings(settings.data_dir).get(JWT_SECRET)
    if secret and not (settings.jwt_secret or settings.jwt_public_key or settings.jwks_url):
        taken["jwt_secret"] = secret
        taken["jwt_algorithms"] = settings.jwt_algorithms or ("HS256",)
    if instance := find_running_instance(settings.data_dir):
        theirs = read_settings(instance.environ | {"TOCSIN_PUBLIC_URL": instance.url})
        for names in _TOGETHER:
            if getattr(settings, names[0]) is None:
                taken |= {name: getattr(theirs, name) for name in names}
        if settings.database_url is None and instance.embedded_postgres:
            taken["database_url"] = owner_dsn(settings.data_dir)
    return structs.replace(settings, **taken)


def owner_dsn(data_dir: Path) -> str:
    """Returns the owner's DSN of the embedded PostgreSQL of this data directory; raises SettingsError."""
    try:
        port = int((data_dir / POSTGRES_PORT_FILE).read_text())
        password = read_secrets(data_dir)[OWNER_SECRET]
    except (OSError, ValueError, KeyError, SecretFileError) as error:
        raise SettingsError(
            f"the database of `make up` in {data_dir} can't be found: {error}"
        ) from None
    return f"postgresql://{OWNER}:{password}@{POSTGRES_HOST}:{port}/{DATABASE}"


def development_key(data_dir: Path) -> str | None:
    """Returns the key of development tokens, while a `tocsin up` of this data directory runs, which accepts them."""
    if find_running_instance(data_dir) is None:
        return None
    return _read_secrets_for_settings(data_dir).get(DEVELOPMENT_KEY)


def sign_token(settings: Settings, recipient_id: str, *, development_key: str | None = None) -> str:
    """Returns a JWT for a day, signed with the development key or else TOCSIN_JWT_SECRET."""
    import jwt

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


def check_bind(settings: Settings) -> None:
    """Raises SettingsError where others could reach the pages that sign anybody in."""
    if not is_loopback(settings.host):
        raise SettingsError(
            f"TOCSIN_HOST {settings.host} can be reached from other machines, and the pages of `make up` sign anybody "
            "in: leave it unset (127.0.0.1), or run `tocsin serve` and `tocsin worker` in place of `make up`"
        )


def check_port(settings: Settings) -> None:
    """Raises SettingsError where nothing can listen at the host and port."""
    host, port = settings.host, settings.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
                probe.listen()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            cure = f"TOCSIN_PORT {port} is in use: set it to a free one"
        elif error.errno == errno.EACCES:
            cure = f"TOCSIN_PORT {port} needs root: set it above 1023"
        else:
            cure = (
                f"TOCSIN_HOST {host} is no address of this machine: set it to 127.0.0.1 or 0.0.0.0"
            )
        raise SettingsError(cure) from None


def read_secrets(data_dir: Path) -> dict[str, str]:
    """Returns the secrets that are kept in the data directory, by name; raises SecretFileError."""
    file = data_dir / SECRETS
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except PermissionError:
        raise SecretFileError(
            f"{file} is another user's: run this as the one of `make up`"
        ) from None
    except (OSError, msgspec.DecodeError):
        raise SecretFileError(
            f"{file} can't be read: repair it, or start over with make reset"
        ) from None


def keep_secrets(data_dir: Path, *names: str) -> dict[str, str]:
    """Makes those that are missing, keeps the others, and returns all."""
    kept = read_secrets(data_dir)
    made = {name: secrets.token_urlsafe(_RANDOM_BYTES) for name in names if not kept.get(name)}
    if made:
        kept |= made
        write_secret(data_dir / SECRETS, msgspec.json.format(msgspec.json.encode(kept)) + b"\n")
    return kept


def write_secret(file: Path, content: bytes) -> None:
    """Writes all or nothing, never readable by others: a crash in between leaves the old file."""
    draft = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(file)


def _read_secrets_for_settings(data_dir: Path) -> dict[str, str]:
    try:
        return read_secrets(data_dir)
    except SecretFileError as error:
        raise SettingsError(str(error)) from None


def _read(lock: FileIO) -> RunningInstance | None:
    lock.seek(0)
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(lock.read(), type=RunningInstance)
    return None
