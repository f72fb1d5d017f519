"""The checks of the PostgreSQL server, of Tocsin's schema and its roles in it, and of what else uses the server."""

from __future__ import annotations

import asyncio
import time
import zoneinfo
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any
from uuid import uuid4

import psycopg
from msgspec import Struct
from psycopg.conninfo import conninfo_to_dict

from tocsin.cli.doctor.examination import TEXTS, Examination, Finding, finding
from tocsin.engine.model import Unavailable
from tocsin.engine.store.connection import (
    DIRECT_OF_LEADER,
    SERVE_CONNECTIONS,
    WORKER_CONNECTIONS,
    connect,
    connect_async,
    find_fault,
    one_line,
)
from tocsin.engine.store.database import Database
from tocsin.engine.store.health import NotReady, check_pooler
from tocsin.engine.store.installation import processes
from tocsin.engine.store.replica import identifier_of, seconds_behind, why_no_standby
from tocsin.settings.addresses import is_loopback
from tocsin.sql import load
from tocsin.sql.install import State, state

_SQL = load("doctor")
_Row = dict[str, Any]

_RECEIVED_WITHIN = 3.0  # seconds
_HEARD_LATE = 0.25
_SKEW = 2.0  # seconds
_TOO_MUCH_SKEW = 30.0  # what a token's nbf and iat may be ahead by
_SLOW_COMMIT = 0.1
_QUEUE_FILLS, _QUEUE_FULL = 0.25, 0.75  # of the queue of NOTIFY
_XID_AGE = 1_000_000_000  # PostgreSQL stops at two billions


class _Server(Struct, frozen=True):
    version: str
    database: str
    role: str
    pid: int


class _Storage(Struct, frozen=True):
    durable: bool
    vacuums: bool
    xid_age: int
    collation_changed: bool | None
    unlogged: list[str]


async def check_database(examination: Examination) -> Iterable[Finding]:
    """Checks whether the database can be reached, and whether others could read along."""
    if reason := examination.unreachable:
        cure = next(cure for words, cure in TEXTS["unreachable"].items() if words in reason)
        return [finding("database.unreachable", reason=reason.rstrip(".?"), cure=cure)]
    async with examination.database.session() as session:
        server = await session.row(_Server, _SQL["server"])
        encrypted = session.connection.pgconn.ssl_in_use
        pooled = server is not None and server.pid != session.connection.info.backend_pid
    assert server is not None
    host = str(conninfo_to_dict(examination.dsn).get("host") or "")
    found = [finding("database.pooled" if pooled else "database.direct", server=server)]
    if host and not host.startswith("/") and not is_loopback(host) and not encrypted:
        found.append(finding("database.unencrypted", host=host))
    return found


async def check_requirements(examination: Examination) -> Iterable[Finding]:
    """Checks the version, the encoding, that it is a primary, no pooler that shares sessions, and TOCSIN_POOLER_URL."""
    if fault := await asyncio.to_thread(find_fault, examination.dsn):
        sentence, _, cure = fault.partition(": ")
        cure = f"{cure[:1].upper()}{cure[1:]}"
        return [finding("requirements.wrong", sentence=sentence.rstrip("."), cure=cure)]
    try:
        await check_pooler(examination.dsn, examination.settings.pooler_url, time.monotonic())
    except NotReady as error:
        return [finding("requirements.pooler", sentence=str(error).rstrip("."))]
    return [finding("requirements.right")]


async def check_session(examination: Examination) -> Iterable[Finding]:
    """Checks whether Tocsin's sessions have the settings that they rely on, whatever database and role set."""
    async with examination.database.session() as session:
        settings = {
            row["name"]: row["value"] for row in await session.rows(_Row, _SQL["session_settings"])
        }
        for_apps = await session.rows(_Row, _SQL["app_settings"])
    found = [compare_session(settings)]
    for row in for_apps:
        name = row["owner"].removeprefix("the ")
        found.append(finding("session.read_only", **row, name=name))
    return found


def compare_session(settings: dict[str, str]) -> Finding:
    """Returns a finding on the settings of a session."""
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
        return finding("session.wrong", settings=", ".join(wrong))
    return finding("session.right")


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
    if took is None:
        found = [finding("notify.lost", limit=_RECEIVED_WITHIN)]
    else:
        found = [finding("notify.late" if took > _HEARD_LATE else "notify.right", ms=took * 1000)]
    if usage > _QUEUE_FILLS:
        full = usage > _QUEUE_FULL
        found.append(finding("notify.queue_full" if full else "notify.queue_fills", usage=usage))
    return found


async def check_clock(examination: Examination) -> Iterable[Finding]:
    """Checks how far this machine's clock and the server's differ."""
    clock = examination.options.clock
    async with examination.database.session() as session:
        before = clock()
        server = float(await session.value(_SQL["clock"]))
        skew = server - (before + clock()) / 2
    if abs(skew) <= _SKEW:
        return [finding("clock.right", ms=abs(skew) * 1000)]
    side = "ahead of" if skew > 0 else "behind"
    name = "clock.wrong" if abs(skew) > _TOO_MUCH_SKEW else "clock.differs"
    return [finding(name, seconds=abs(skew), side=side)]


async def check_zones(examination: Examination) -> Iterable[Finding]:
    """Checks whether Python's rules of time zones are those of PostgreSQL."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    moments = [now + timedelta(days=91 * quarter) for quarter in range(4)]
    rows = await examination.database.rows(_Row, _SQL["zones"], moments=moments)
    missing, other = [], []
    for row in rows:
        try:
            zone = zoneinfo.ZoneInfo(row["name"])
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            missing.append(row["name"])
            continue
        if [_offset(zone, at) for at in moments] != row["offsets"]:
            other.append(row["name"])
    found = [
        finding(name, number=len(zones), all=len(rows), names=", ".join(zones[:4]))
        for name, zones in (("zones.different", other), ("zones.missing", missing))
        if zones
    ]
    if examination.migrated:
        unknown = int(await examination.database.value(_SQL["unknown_zones"]))
        if unknown:
            found.append(finding("zones.new", number=unknown))
    return found or [finding("zones.right", all=len(rows))]


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
        full = isinstance(cause, psycopg.errors.DiskFull)
        return [finding("storage.full" if full else "storage.read_only", error=one_line(cause))]
    storage = await examination.database.row(_Storage, _SQL["storage"])
    assert storage is not None
    found = list(_judge_storage(storage, took))
    return found or [finding("storage.right", ms=took * 1000)]


def _judge_storage(storage: _Storage, took: float) -> Iterable[Finding]:
    """Yields what is wrong with it; `took` is the time of a commit in seconds."""
    if took > _SLOW_COMMIT:
        yield finding("storage.slow", ms=took * 1000)
    if not storage.durable:
        yield finding("storage.not_durable")
    if not storage.vacuums:
        yield finding("storage.no_vacuum")
    if storage.xid_age > _XID_AGE:
        yield finding("storage.old_transactions", age=storage.xid_age)
    if storage.unlogged:
        tables = ", ".join(storage.unlogged)
        yield finding("storage.unlogged", tables=tables, first=storage.unlogged[0])
    if storage.collation_changed:
        yield finding("storage.collation")


async def _write(database: Database, migrated: bool) -> float:
    """Seconds that a commit takes, after a write that is rolled back."""
    async with database.session() as session:
        if migrated:
            async with session.transaction(force_rollback=True):
                await session.run(_SQL["write"])
        started = time.perf_counter()
        await session.value(_SQL["begin_write"])
        return time.perf_counter() - started


_SQL = load("doctor")

_REPLAYED_WITHIN = 5.0  # seconds
_ASK_AGAIN = 0.1


class FreeConnections(Struct, frozen=True):
    """How many connections are open and possible, for this role."""

    possible: int
    used: int
    role_limit: int | None
    used_by_role: int
    database_limit: int | None
    used_in_database: int

    @property
    def free(self) -> int:
        """How many more this role can open."""
        role = self.possible if self.role_limit is None else self.role_limit - self.used_by_role
        database = (
            self.possible
            if self.database_limit is None
            else self.database_limit - self.used_in_database
        )
        return max(0, min(self.possible - self.used, role, database))


class _Transaction(Struct, frozen=True):
    name: str
    role: str
    program: str
    seconds: float
    prepared: bool


class _Replication(Struct, frozen=True):
    """Standbys and replication slots; `position` is the end of what was written."""

    sees_standbys: bool
    needs_standby: bool
    waits: bool
    synchronous: int
    standbys: int
    position: str
    abandoned_slots: list[str] | None


async def check_schema(examination: Examination) -> Iterable[Finding]:
    """Checks whether the tables and functions are those of this version."""
    found = await asyncio.to_thread(_read_state, examination.dsn)
    if found != "current":
        return [finding(f"schema.{found}")]
    if await examination.database.value(_SQL["has_foreign_xids"]):
        return [finding("schema.restored")]
    return [finding("schema.right", version=version("tocsin"))]


def _read_state(dsn: str) -> State:
    with connect(dsn) as connection:
        return state(connection)


async def check_rights(examination: Examination) -> Iterable[Finding]:
    """Checks whether roles and grants are as they have to be."""
    rights = await examination.database.rows(_Row, _SQL["rights"])
    if rights:
        return [Finding(row["level"], row["sentence"], row["cure"]) for row in rights]
    logins = [row["name"] for row in await examination.database.rows(_Row, _SQL["app_logins"])]
    return [finding("rights.right", logins=", ".join(logins) or "no login besides the owner")]


async def check_publications(examination: Examination) -> Iterable[Finding]:
    """Checks whether logical replication keeps Tocsin's rows from being changed."""
    found = []
    for row in await examination.database.rows(_Row, _SQL["publications"]):
        name, refusing = row["name"], row["refusing"]
        if refusing:
            tables, first = ", ".join(refusing), refusing[0]
            found.append(finding("publications.refusing", name=name, tables=tables, first=first))
        else:
            found.append(finding("publications.sending", name=name))
    return found or [finding("publications.right")]


async def check_connections(examination: Examination) -> Iterable[Finding]:
    """Checks whether the server has room for the services."""
    row = await free_connections(examination.database)
    running = (
        {each.kind for each in await processes(examination.database) if not each.silent}
        if examination.migrated
        else set()
    )
    # through a pooler, each process has its direct connections here, and the pooler its own
    direct = DIRECT_OF_LEADER if examination.settings.pooler_url else None
    return [judge_connections(row, running, direct or examination.settings.max_connections)]


async def free_connections(database: Database) -> FreeConnections:
    """Returns how many connections are open and possible."""
    return await database.one(FreeConnections, _SQL["connections"])


def judge_connections(row: FreeConnections, running: set[str], most: int | None = None) -> Finding:
    """Services that run have theirs; the others need them still, `most` each."""
    of_serve, of_worker = most or SERVE_CONNECTIONS, most or WORKER_CONNECTIONS
    needed = (0 if "serve" in running else of_serve) + (0 if "worker" in running else of_worker)
    limits = {"free": row.free, "of_serve": of_serve, "of_worker": of_worker}
    if row.free < max(1, needed):
        return finding("connections.too_few", needed=max(1, needed), **limits)
    if row.free < needed + of_worker:
        return finding("connections.few", **limits)
    return finding("connections.right", free=row.free, possible=row.possible)


async def check_transactions(examination: Examination) -> Iterable[Finding]:
    """Checks whether a transaction has been open for long."""
    longest = examination.options.long_transaction
    rows = await examination.database.rows(
        _Transaction, _SQL["open_transactions"], longer_than=longest
    )
    found = [
        finding(
            "transactions.prepared" if row.prepared else "transactions.open",
            of=row,
            minutes=row.seconds / 60,
        )
        for row in rows
    ]
    return found or [finding("transactions.right", minutes=longest.seconds // 60)]


async def check_replication(examination: Examination) -> Iterable[Finding]:
    """Checks whether standbys keep up, and whether commits wait for one that is not there."""
    row = await examination.database.row(_Replication, _SQL["replication"])
    assert row is not None
    found = list(_judge_replication(row))
    found += (
        finding("replication.late", name=name, limit=_REPLAYED_WITHIN)
        for name in await _late_standbys(examination, row)
    )
    if found:
        return found
    if not row.standbys:
        return [finding("replication.none")]
    name = "replication.right" if row.sees_standbys else "replication.unseen"
    return [finding(name, standbys=row.standbys)]


async def check_replica(examination: Examination) -> Iterable[Finding]:
    """Checks whether reads can come from the standby, and how late it is."""
    dsn = examination.settings.replica_url
    if dsn is None:
        return [finding("replica.unused")]
    if reason := await why_no_standby(dsn, await identifier_of(examination.database)):
        return [finding("replica.unusable", reason=reason.rstrip("."))]
    took = await seconds_behind(dsn, examination.database, most=_REPLAYED_WITHIN)
    if took is None:
        return [finding("replica.late", limit=_REPLAYED_WITHIN)]
    return [finding("replica.right", ms=took * 1000)]


async def _late_standbys(examination: Examination, row: _Replication) -> list[str]:
    """Asks again until there is none, or the time is over."""
    if not row.sees_standbys:
        return []
    give_up = time.monotonic() + _REPLAYED_WITHIN
    while True:
        rows = await examination.database.rows(_Row, _SQL["late_standbys"], position=row.position)
        late = [each["name"] for each in rows]
        if not late or time.monotonic() > give_up:
            return late
        await asyncio.sleep(_ASK_AGAIN)


def _judge_replication(row: _Replication) -> Iterable[Finding]:
    """Yields what is wrong, but for standbys that are late."""
    is_missing = row.synchronous == 0 if row.sees_standbys else row.standbys == 0
    if row.needs_standby and row.waits and is_missing:
        yield finding("replication.waiting")
    for slot in row.abandoned_slots or ():
        yield finding("replication.slot", slot=slot)
