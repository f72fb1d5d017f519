"""Connections of commands, and whether Tocsin can work on a database at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple

import psycopg
import structlog
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tocsin.background import cancel_tasks
from tocsin.engine.model import Unavailable
from tocsin.engine.store.lost_sessions import ConnectionsInUse, end_lost
from tocsin.sql import load

# Whether the database can be reached: one watcher for a process, shared by all that wait for the database.
#
# While it can't, one task tries to connect several times a second, everything else fails at once or waits for that
# task, and the log gets one line for each change of state and one a minute. So the process is back within a second of
# the database's return, however long the outage was.

_SQL = load("session")

# Seconds between two attempts to connect
_PROBE_AGAIN = 0.25
# After this long it counts as unavailable. The attempt continues: a slow or paused server may accept it later.
_PROBE_WITHIN = 2.0
# For each address of the DSN, and then for the statement; less where another address may respond.
_CONNECT_WITHIN = 5.0
_CONNECT_WITHIN_OF_SEVERAL = 3
# A server that has no connection left is available: those that are open still work.
_FULL = ("too many", "remaining connection slots")
_NO_RESPONSE = "no response within 2 s"
# After an outage of so many seconds, statements that were sent before it fail.
_HANGS_FOR = 10.0
# Seconds between two lines of the log during an outage.
_REMIND = 60.0

# A session that vanished (a frozen machine, a cut cable) is noticed within half a minute, on either side.
KEEPALIVES: dict[str, Any] = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
    "connect_timeout": 5,
}

SERVE_CONNECTIONS, WORKER_CONNECTIONS = 12, 28
"""How many connections each opens at most where TOCSIN_MAX_CONNECTIONS is not set."""
LEAST_OF_WORKER = 5
_DIRECT = 2  # of each: one that listens, one of the dispatcher
DIRECT_OF_LEADER = _DIRECT + 1


class WorkerPools(NamedTuple):
    """How many connections each pool of a worker may have."""

    queue: int
    deliveries: int
    other: int


def serve_pools(most: int | None, *, standby: bool = False) -> tuple[int, int]:
    """Returns how many connections the pool of a `serve` may have, of `most` in all, and the one of its standby."""
    pooled = (most or SERVE_CONNECTIONS) - _DIRECT
    of_standby = pooled // 2 if standby else 0
    return pooled - of_standby, of_standby


def worker_pools(most: int | None) -> WorkerPools:
    """Returns how many connections the pools of a worker may have, of `most` in all: 10, 12 and 4 of 28."""
    pooled = (most or WORKER_CONNECTIONS) - _DIRECT
    queue, other = max(pooled * 10 // 26, 1), max(pooled * 4 // 26, 1)
    return WorkerPools(queue, pooled - queue - other, other)


# What is done first on a connection to a database that is back; a failure counts as the database's.
OnReturn = Callable[[psycopg.AsyncConnection[Any]], Awaitable[object]]

log = structlog.get_logger("tocsin.database")


class Availability:
    """Knows whether the database at `dsn` can be reached and written to, and so can `pooler`, if there is one.

    It is taken as available until a lost connection is reported; then this tries to connect until that works.
    """

    def __init__(self, dsn: str, pooler: str | None = None) -> None:
        self._dsn = dsn
        self._pooler = pooler
        self._pooler_lost = asyncio.Event()
        self._available = asyncio.Event()
        self._available.set()
        self._probed = asyncio.Event()  # since a connection was lost
        self._hanging = asyncio.Event()
        self._probing: asyncio.Task[None] | None = None
        self.in_use = ConnectionsInUse()
        self.reason = ""
        """Why the last attempt to connect failed, in one line; empty while the database is available."""
        self.on_return: OnReturn | None = None
        """Called when the database is back after an outage, before anything else uses it."""
        self.generation = 0
        """Grows with each return of the database: connections of an earlier generation are dead."""

    @property
    def available(self) -> bool:
        """Whether the database is believed to be available."""
        return self._available.is_set()

    def report_lost(self, *, broken: bool = True) -> None:
        """Reports a connection that does not work (`broken`), or none that is free: checks the database."""
        if self._probing is None or self._probing.done():
            self._available.clear()
            self._probed.clear()
            self._probing = asyncio.create_task(self._probe(broken), name="probe")

    async def wait(self) -> None:
        """Waits until the database is available, however long that takes."""
        await self._available.wait()

    async def pooler_lost(self) -> None:
        """Waits until the pooler can't be reached while the database itself can."""
        await self._pooler_lost.wait()

    async def hanging(self) -> None:
        """Waits until an outage lasts so long that what was sent before it is taken as lost."""
        await self._hanging.wait()

    async def require(self) -> None:
        """Raises Unavailable where the last attempt to connect failed; waits for one that is under way first."""
        if not self.available:
            await self._probed.wait()
        if self.reason:
            raise Unavailable(self.reason)

    async def close(self) -> None:
        """Stops probing."""
        if self._probing is not None:
            await cancel_tasks(self._probing)

    async def _probe(self, broken: bool) -> None:
        """Tries to connect until that works."""
        lost_at = time.monotonic()
        remind_at = lost_at
        while reason := await self._attempt(broken):
            self._note(reason)
            now = time.monotonic()
            if now >= remind_at:
                remind_at = now + _REMIND
                self._report(reason, round(now - lost_at))
            if now - lost_at > _HANGS_FOR:
                self._hanging.set()
                self.in_use.end_waiting()
            await asyncio.sleep(_PROBE_AGAIN)
        if self.reason:
            self.generation += 1
            self._report_return(round(time.monotonic() - lost_at, 1))
        elif broken:
            self._report_renewal()
        self._note("")
        self._hanging.clear()
        self._available.set()

    async def _attempt(self, broken: bool) -> str | None:
        """Returns why an attempt to connect failed; None if it worked. A slow one fails for callers, but continues."""
        attempt = asyncio.create_task(self._probe_each())
        try:
            done, _ = await asyncio.wait({attempt}, timeout=_PROBE_WITHIN)
            if not done and broken:
                self._note(_NO_RESPONSE)
            reason = await attempt
            return None if reason and any(words in reason for words in _FULL) else reason
        finally:
            attempt.cancel()

    async def _probe_each(self) -> str | None:
        """Returns why the database or its pooler can't be used; None: both can."""
        if self._pooler is not None:
            if reason := await probe(self._pooler):
                if await probe(self._dsn) is None:
                    self._pooler_lost.set()
                return f"the pooler: {reason}"
            self._pooler_lost.clear()
        return await probe(self._dsn, then=self._on_connected)

    async def _on_connected(self, connection: psycopg.AsyncConnection[Any]) -> None:
        if self.reason and self.on_return is not None:
            await self.on_return(connection)
        if ended := await end_lost(self._dsn, connection):
            log.info("lost connections ended", connections=ended)

    def _report(self, reason: str, seconds: int) -> None:
        log.warning("database unavailable", reason=reason, seconds=seconds)

    def _report_return(self, seconds: float) -> None:
        log.warning("database available again", seconds=seconds)

    def _report_renewal(self) -> None:
        log.info("database connection lost, connecting again")

    def _note(self, reason: str) -> None:
        """Notes the reason why the database is unavailable; empty: it is available."""
        self.reason = reason
        self._probed.set()


async def probe(
    dsn: str, *, within: float = _CONNECT_WITHIN, then: OnReturn | None = None
) -> str | None:
    """Connects once; returns why the database can't be used, in one line, or None if it can.

    `within` (seconds) is for each address of the DSN: a silent one must not keep the next from being tried. If it can
    be used, `then` is called with the connection.
    """
    try:
        connection = await connect_async(dsn, connect_timeout=int(within))
        try:
            async with asyncio.timeout(within):
                row = await (await connection.execute(_SQL["is_read_only"])).fetchone()
                if row and row[0]:
                    return "it is read-only: a standby, or a server in recovery"
                if then is not None:
                    await then(connection)
        finally:
            await connection.close()
    except TimeoutError:
        return f"no response within {within:.0f} s"
    except Exception as error:  # noqa: BLE001 - whatever it is, the database can't be used
        return one_line(error)
    return None


async def connect_async(dsn: str, **options: Any) -> psycopg.AsyncConnection[Any]:
    """Connects, autocommitted. Cancelled half-way, psycopg would leave a session behind in authentication."""
    several = _addresses(dsn)
    if several:
        options = {**options, "connect_timeout": _CONNECT_WITHIN_OF_SEVERAL}
    opening = asyncio.ensure_future(
        psycopg.AsyncConnection.connect(
            last_address_first(dsn), autocommit=True, **{**KEEPALIVES, **options}
        )
    )
    try:
        connection = await asyncio.shield(opening)
        if several:
            _last_addresses[dsn] = connection.info.host, connection.info.port
        return connection
    except asyncio.CancelledError:
        with suppress(psycopg.Error, TimeoutError):
            await (await asyncio.wait_for(opening, 2.0)).close()
        raise


_last_addresses: dict[str, tuple[str, int]] = {}
"""By DSN, the address that accepted the last connection, of several."""


def last_address_first(dsn: str) -> str:
    """Returns the DSN with the address first that accepted the last connection: a dead one costs seconds each time."""
    addresses = _addresses(dsn)
    last = _last_addresses.get(dsn)
    if last not in addresses:
        return dsn
    addresses.sort(key=lambda address: address != last)
    hosts, ports = zip(*addresses, strict=True)
    return make_conninfo(dsn, host=",".join(hosts), port=",".join(map(str, ports)))


def _addresses(dsn: str) -> list[tuple[str, int]]:
    """Returns the hosts of a DSN with their ports; none where there is only one, or where hostaddr replaces them."""
    parts = conninfo_to_dict(dsn)
    hosts = str(parts.get("host") or "").split(",")
    ports = str(parts.get("port") or "").split(",")
    if len(hosts) == 1 or parts.get("hostaddr"):
        return []
    if len(ports) == 1:
        ports *= len(hosts)
    return [(host, int(port or 5432)) for host, port in zip(hosts, ports, strict=False)]


def one_line(error: BaseException) -> str:
    """Returns the message of an error, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


_MIGRATION_SQL = load("migration")
_OLDEST = 15
# Transactions that are held open to see whether a pooler gives one of them the session of another connection.
_HELD = 3

_UNRELEASED = (
    "The database was made by a version from before the first release and can't be migrated; nothing in it was "
    "changed. To start with an empty one: `make reset` if it is that of `make up`, "
    "else run `drop schema tocsin, tocsin_queue cascade` and then `tocsin migrate`."
)

SyncConnection = psycopg.Connection[Any]


def connect(dsn: str, *, autocommit: bool = False) -> SyncConnection:
    """Returns a connection with the settings that our statements rely on, whatever the database and the role set."""
    connection = psycopg.connect(dsn, autocommit=True, connect_timeout=3)
    try:
        connection.execute(_SQL["configure_session"], {"local": False})
        connection.execute(_SQL["configure_direct_session"])
        connection.autocommit = autocommit
    except BaseException:
        connection.close()
        raise
    return connection


def find_fault(dsn: str) -> str | None:
    """Returns in one line why Tocsin can't work on this database and what to do, or None. Raises psycopg.Error."""
    with psycopg.connect(dsn, autocommit=True, connect_timeout=3) as connection:
        version = connection.info.server_version // 10000
        if version < _OLDEST:
            return f"PostgreSQL {version} is too old: Tocsin needs {_OLDEST} or newer."
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":  # people's names, and their addresses, are in all scripts
            return f"The database's encoding is {encoding}: Tocsin needs UTF8, so create one with encoding 'UTF8'."
        if _value(connection, "is_read_only"):
            return (
                "TOCSIN_DATABASE_URL is a standby, which can't be written to: name the primary, "
                "or all hosts with target_session_attrs=read-write."
            )
        if _shares_sessions(connection, dsn):
            return (
                "TOCSIN_DATABASE_URL is a connection pooler in transaction mode, where LISTEN does not work: "
                "connect to PostgreSQL directly (TOCSIN_POOLER_URL is for the pooler), "
                "or set pool_mode=session for this database."
            )
        if _is_unreleased(connection):
            return _UNRELEASED
    return None


def _is_unreleased(connection: SyncConnection) -> bool:
    """Returns whether the tables are from before the first release, as far as this role may see them."""
    for name in ("find_migration", "is_unreleased"):
        row = connection.execute(_MIGRATION_SQL[name]).fetchone()
        if row != (True,):
            return False
    return True


def _shares_sessions(connection: SyncConnection, dsn: str) -> bool:
    """Returns whether a pooler gives a session to other connections while this one is open."""
    own = _value(connection, "backend_pid")
    if own == connection.info.backend_pid:
        return False  # PostgreSQL itself; a pooler has numbers of its own
    held: list[SyncConnection] = []
    try:
        for _ in range(_HELD):
            held.append(psycopg.connect(dsn, connect_timeout=3))
            if _value(held[-1], "backend_pid") == own or _value(connection, "backend_pid") != own:
                return True
    except psycopg.errors.ProtocolViolation:
        return True  # statement mode refuses transactions
    finally:
        for each in held:
            each.close()
    return False


def _value(connection: SyncConnection, name: str) -> Any:
    row = connection.execute(_SQL[name]).fetchone()
    return row[0] if row else None
