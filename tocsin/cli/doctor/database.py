"""The checks of the PostgreSQL server, and of the connection to it."""

from __future__ import annotations

import asyncio
import time
import zoneinfo
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
from msgspec import Struct
from psycopg.conninfo import conninfo_to_dict

from tocsin.cli.doctor.examination import Examination, Finding, green, red, yellow
from tocsin.engine.model import Unavailable
from tocsin.engine.store.connection import connect_async, find_fault, one_line
from tocsin.engine.store.database import Database
from tocsin.settings.addresses import is_loopback
from tocsin.sql import load

_SQL = load("doctor")
_MIGRATE = "Run `tocsin migrate` as the owner of the schemas."

_RECEIVED_WITHIN = 3.0  # seconds
_HEARD_LATE = 0.25
_SKEW = 2.0  # seconds
_TOO_MUCH_SKEW = 30.0  # what a token's nbf and iat may be ahead by
_SLOW_COMMIT = 0.1
_QUEUE_FILLS, _QUEUE_FULL = 0.25, 0.75  # of the queue of NOTIFY
_XID_AGE = 1_000_000_000  # PostgreSQL stops at two billions

_CURES = (  # by words of libpq's or the server's message
    ("password authentication failed", "Correct user and password in TOCSIN_DATABASE_URL."),
    (
        "no pg_hba.conf entry",
        "Allow this host, user and database in pg_hba.conf, or add ?sslmode=require to the URL.",
    ),
    (
        "certificate verify failed",
        "Name the server's authority by ?sslrootcert= in TOCSIN_DATABASE_URL.",
    ),
    (
        "does not match host name",
        "Connect by a name in the server's certificate, or give it a certificate for this name.",
    ),
    ("does not support SSL", "Turn SSL on at the server, or add ?sslmode=prefer to the URL."),
    (
        "could not translate host name",
        "Correct the host in TOCSIN_DATABASE_URL, or the DNS of this machine.",
    ),
    (
        "failed to resolve host",
        "Correct the host in TOCSIN_DATABASE_URL, or the DNS of this machine.",
    ),
    (
        "refused",
        "Start PostgreSQL, or correct host and port in TOCSIN_DATABASE_URL; it must listen on that address.",
    ),
    ("does not exist", "Create it, or correct the name in TOCSIN_DATABASE_URL."),
    ("too many", "End sessions, raise max_connections, or the limit of the role or database."),
    ("remaining connection slots", "End sessions, or raise max_connections."),
    ("starting up", "Wait until PostgreSQL has started; its log shows the progress."),
    ("No space left", "Free space on the database's disk."),
    (
        "is not set",
        "Set TOCSIN_DATABASE_URL=postgresql://user:password@host:5432/database, or start `make up`.",
    ),
)


class _Server(Struct, frozen=True):
    version: str
    database: str
    role: str
    pid: int


class _Setting(Struct, frozen=True):
    name: str
    value: str


class _AppSetting(Struct, frozen=True):
    owner: str
    setting: str


class _Storage(Struct, frozen=True):
    durable: bool
    vacuums: bool
    xid_age: int
    collation_changed: bool | None
    unlogged: list[str]


class _Zone(Struct, frozen=True):
    name: str
    offsets: list[int]


async def check_connection(examination: Examination) -> Iterable[Finding]:
    """Checks whether the database can be reached, and whether others could read along."""
    if reason := examination.unreachable:
        cure = next((cure for words, cure in _CURES if words in reason), None)
        return [
            red(
                f"The database can't be reached: {reason.rstrip('.?')}.",
                cure or "Check TOCSIN_DATABASE_URL and the network.",
            )
        ]
    async with examination.session() as session:
        server = await session.row(_Server, _SQL["server"])
        encrypted = session.connection.pgconn.ssl_in_use
        pooled = server is not None and server.pid != session.connection.info.backend_pid
    assert server is not None
    host = str(conninfo_to_dict(examination.dsn).get("host") or "")
    where = f"PostgreSQL {server.version}, database {server.database}, as {server.role}"
    found = [green(where + (", through a pooler." if pooled else "."))]
    if host and not host.startswith("/") and not is_loopback(host) and not encrypted:
        found.append(
            yellow(
                f"The connection to {host} is not encrypted.",
                "Add ?sslmode=require (or verify-full) to TOCSIN_DATABASE_URL.",
            )
        )
    return found


async def check_requirements(examination: Examination) -> Iterable[Finding]:
    """Checks the version, the encoding, that it is a primary, and that no pooler shares sessions."""
    if fault := await asyncio.to_thread(find_fault, examination.dsn):
        sentence, _, cure = fault.partition(": ")
        return [red(f"{sentence.rstrip('.')}.", f"{cure[:1].upper()}{cure[1:]}")]
    return [
        green(
            "PostgreSQL 15 or newer, UTF8, a primary, and a session of its own for each connection."
        )
    ]


async def check_session(examination: Examination) -> Iterable[Finding]:
    """Checks whether Tocsin's sessions have the settings that they rely on, whatever database and role set."""
    async with examination.session() as session:
        settings = {
            row.name: row.value for row in await session.rows(_Setting, _SQL["session_settings"])
        }
        for_apps = await session.rows(_AppSetting, _SQL["app_settings"])
    found = list(compare_session(settings))
    found += (
        yellow(
            f"{each.owner} sets {each.setting}: apps can't notify.",
            f"Run: alter {each.owner.removeprefix('the ')} reset default_transaction_read_only;",
        )
        for each in for_apps
    )
    return found


def compare_session(settings: dict[str, str]) -> Iterable[Finding]:
    """Yields one finding on the settings of a session."""
    expected = {
        "DateStyle": "ISO, YMD",
        "IntervalStyle": "postgres",
        "TimeZone": "UTC",
        "client_encoding": "UTF8",
        "transaction_isolation": "read committed",
        "transaction_read_only": "off",
        "search_path": "pg_catalog, pg_temp",
        "statement_timeout": "0",
    }
    wrong = [
        f"{name} = {settings.get(name)}"
        for name, value in expected.items()
        if settings.get(name) != value
    ]
    if wrong:
        yield red(
            f"A session has not the settings that Tocsin gave it: {', '.join(wrong)}.",
            "Something between resets them: connect directly, or by a pooler with pool_mode = session.",
        )
    else:
        yield green(
            "DateStyle, time zone, isolation and timeouts of Tocsin's sessions are as it sets them."
        )


async def check_notify(examination: Examination) -> Iterable[Finding]:
    """Checks whether a NOTIFY on one connection is received on another, and how soon."""
    payload = uuid4().hex
    listening = await connect_async(examination.dsn)
    try:
        await listening.execute(_SQL["listen"])
        started = time.perf_counter()
        await examination.database.value(_SQL["notify"], payload=payload)
        took = None
        async for each in listening.notifies(timeout=_RECEIVED_WITHIN):
            if each.payload == payload:
                took = time.perf_counter() - started
                break
    finally:
        await listening.close()
    usage = float(await examination.database.value(_SQL["notification_queue"]))
    found = []
    if took is None:
        found.append(
            red(
                f"A NOTIFY was not received within {_RECEIVED_WITHIN:.0f} s: badges and mails would wait for a poll.",
                "A pooler in transaction mode drops LISTEN: connect directly, or set pool_mode = session.",
            )
        )
    elif took > _HEARD_LATE:
        found.append(
            yellow(
                f"A NOTIFY took {took * 1000:.0f} ms.",
                "Check the load of the server, and what is between.",
            )
        )
    else:
        found.append(green(f"A NOTIFY is received within {took * 1000:.0f} ms."))
    if usage > _QUEUE_FILLS:
        finding = red if usage > _QUEUE_FULL else yellow
        found.append(
            finding(
                f"{usage:.0%} of the queue of NOTIFY is full: then every commit that notifies fails.",
                "A session that listens has a transaction open for long: end it (check `transactions`).",
            )
        )
    return found


async def check_clock(examination: Examination) -> Iterable[Finding]:
    """Checks how far this machine's clock and the server's differ."""
    clock = examination.options.clock
    async with examination.session() as session:
        before = clock()
        server = float(await session.value(_SQL["clock"]))
        skew = server - (before + clock()) / 2
    if abs(skew) <= _SKEW:
        return [
            green(
                f"The clocks of this machine and of PostgreSQL differ by {abs(skew) * 1000:.0f} ms."
            )
        ]
    sentence = f"PostgreSQL's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
    cure = "Let both be set by NTP (timedatectl set-ntp true)."
    if abs(skew) > _TOO_MUCH_SKEW:
        return [
            red(
                f"{sentence}: tokens and the keys of APNs are refused, and retries come at the wrong time.",
                cure,
            )
        ]
    return [yellow(f"{sentence}.", cure)]


async def check_zones(examination: Examination) -> Iterable[Finding]:
    """Checks whether Python's rules of time zones are those of PostgreSQL."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    moments = [now + timedelta(days=91 * quarter) for quarter in range(4)]
    rows = await examination.database.rows(_Zone, _SQL["zones"], moments=moments)
    missing, other = [], []
    for row in rows:
        try:
            zone = zoneinfo.ZoneInfo(row.name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            missing.append(row.name)
            continue
        if [_offset(zone, at) for at in moments] != row.offsets:
            other.append(row.name)
    found = []
    for names, what in (
        (other, "have other rules in Python than in PostgreSQL"),
        (missing, "are not known to Python"),
    ):
        if names:
            found.append(
                yellow(
                    f"{len(names)} of {len(rows)} time zones {what}: {', '.join(names[:4])}. Tocsin uses PostgreSQL's.",
                    "Update tzdata, on this machine and on the database's, and PostgreSQL's minor version.",
                )
            )
    if examination.migrated:
        unknown = int(await examination.database.value(_SQL["unknown_zones"]))
        if unknown:
            found.append(
                yellow(
                    f"PostgreSQL has {unknown} time zones that were not there at the last migration.",
                    f"{_MIGRATE} People can choose them then.",
                )
            )
    return found or [
        green(f"PostgreSQL and Python agree on {len(rows)} time zones for the coming year.")
    ]


def _offset(zone: zoneinfo.ZoneInfo, at: datetime) -> int:
    offset = at.astimezone(zone).utcoffset()
    assert offset is not None
    return round(offset.total_seconds())


async def check_storage(examination: Examination) -> Iterable[Finding]:
    """Checks whether the database can be written to, how long a commit takes, and whether it is vacuumed."""
    try:
        took = await _write(examination.database, examination.migrated)
    except (Unavailable, psycopg.Error) as error:
        cause = error.__cause__ or error
        cure = "See PostgreSQL's log: a read-only volume, or a standby."
        if isinstance(cause, psycopg.errors.DiskFull):
            cure = (
                "Free space on its disk, or enlarge it. Nothing is lost: Tocsin goes on by itself."
            )
        return [red(f"The database can't be written to: {one_line(cause)}.", cure)]
    storage = await examination.database.row(_Storage, _SQL["storage"])
    assert storage is not None
    found = list(judge_storage(storage, took))
    return found or [green(f"A commit takes {took * 1000:.1f} ms; the database is vacuumed.")]


def judge_storage(storage: _Storage, took: float) -> Iterable[Finding]:
    """Yields what is wrong with it; `took` is the time of a commit in seconds."""
    if took > _SLOW_COMMIT:
        yield yellow(
            f"A commit takes {took * 1000:.0f} ms.",
            "Check the disk of the database, and a synchronous standby.",
        )
    if not storage.durable:
        yield yellow(
            "fsync is off: a crash of the server's machine can lose or destroy everything.",
            "Set fsync = on in postgresql.conf; off is for tests alone.",
        )
    if not storage.vacuums:
        yield red(
            "Autovacuum is off: tables of Tocsin grow without end, and everything gets slower.",
            "Set autovacuum = on and track_counts = on in postgresql.conf.",
        )
    if storage.xid_age > _XID_AGE:
        yield red(
            f"The oldest transaction id is {storage.xid_age:,} transactions old: at 2 billions PostgreSQL stops.",
            "End old transactions and replication slots, then run: vacuum (freeze);",
        )
    if storage.unlogged:
        yield red(
            f"Tables are unlogged: {', '.join(storage.unlogged)}. A crash empties them, and standbys lack them.",
            f"Run: alter table tocsin.{storage.unlogged[0]} set logged;",
        )
    if storage.collation_changed:
        yield yellow(
            "The system's collation library changed since the database was made: indexes on text may be wrong.",
            "Run: reindex database; and then: alter database … refresh collation version;",
        )


async def _write(database: Database, migrated: bool) -> float:
    """Seconds that a commit takes, after a write that is rolled back."""
    async with database.session() as session:
        if migrated:
            async with session.connection.transaction(force_rollback=True):
                await session.run(_SQL["write"])
        started = time.perf_counter()
        await session.value(_SQL["begin_write"])
        return time.perf_counter() - started
