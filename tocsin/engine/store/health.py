"""Whether a service can start and is ready, and which sessions block it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import psycopg
import structlog
from msgspec import Struct

from tocsin.background import in_thread
from tocsin.engine.model import Unavailable
from tocsin.engine.store.connection import connect, find_fault, probe
from tocsin.engine.store.database import Database, Queries
from tocsin.sql import load
from tocsin.sql.install import State, state

_SQL = load("health")
_IS_SUPERUSER = load("role")["is_superuser"]
_AGAIN = 0.25  # seconds
_HOLDS_FOR = 0.3  # seconds
_COUNTED = 100_000  # due deliveries of a channel: metrics are read every few seconds
_READY_WITHIN = 1.0  # seconds
# Seconds after which some process leads, also where the one before hangs.
_ELECTED_WITHIN = 20.0
_BEHIND = (
    "The database is of an earlier version: run `tocsin migrate` of this version first "
    "(TOCSIN_DATABASE_WAIT is how long services wait for it)."
)
_TOO_NEW = "The database is of a newer version, on which this one can't work: install that version."
_NOT_MIGRATED = "The database is not migrated: run `tocsin migrate` first."
# In PostgreSQL's refusals that may pass: it starts, recovers or stops, or has no room left on its disk or in memory.
_PASSING = (
    "starting up",
    "recovery",
    "shutting down",
    "not accepting connections",
    "too many",
    "terminating connection",
    "could not",
    "out of memory",
)

log = structlog.get_logger("tocsin.database")


class NotReady(Exception):
    """The reason why a service can't start, with its cure, in one line."""


class Readiness(Struct, frozen=True):
    """Whether the schema is there, and for how many seconds no process has led; None: none ever did."""

    migrated: bool
    unled_for: float | None


class BlockingSession(Struct, frozen=True):
    """A session of another client that blocks the service; `blocks` names what it holds."""

    pid: int
    role_name: str
    application_name: str
    client: str | None  # null where PostgreSQL hides it, or for a Unix socket
    since: datetime | None
    blocks: str

    def __str__(self) -> str:
        name = self.application_name or "without a name"
        client = f", from {self.client}" if self.client else ""
        since = f" since {self.since:%Y-%m-%d %H:%M:%S} UTC" if self.since else ""
        return f"session {self.pid} of role {self.role_name} ({name}{client}) holds {self.blocks}{since}"


class Unsettled(Struct, frozen=True):
    """How many deliveries of a channel are in a state that is not final, and how late the latest of them is."""

    channel: str
    state: str
    n: int
    late: float  # seconds


async def readiness(database: Database) -> Readiness:
    """Returns whether a service can work; raises Unavailable."""
    return await database.one(Readiness, _SQL["readiness"])


async def blocking_sessions(database: Queries) -> list[BlockingSession]:
    """Returns sessions of others that keep holding what the service needs; an operator may end them."""
    before = await database.rows(BlockingSession, _SQL["blocking_sessions"])
    if not before:
        return []
    await asyncio.sleep(_HOLDS_FOR)
    held = {(each.pid, each.blocks) for each in before}
    after = await database.rows(BlockingSession, _SQL["blocking_sessions"])
    return [each for each in after if (each.pid, each.blocks) in held]


def _read_exception(task: asyncio.Task[Any]) -> None:
    """Reads the exception of a check that is no longer awaited, which asyncio would log."""
    if not task.cancelled():
        task.exception()


class ReadinessCheck:
    """Finds out whether a service can work, for load balancers: within a second, also where the database hangs."""

    def __init__(self, database: Database, *, elected_within: float = _ELECTED_WITHIN) -> None:
        self._database = database
        self._elected_within = elected_within
        self._started_at = time.monotonic()
        self._check: asyncio.Task[str | None] | None = None

    async def why_not(self) -> str | None:
        """Returns why the service is not ready, in one sentence; None if it is."""
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._why_not())
            self._check.add_done_callback(_read_exception)
        # it is not cancelled: psycopg would wait for a server that hangs to cancel the query
        await asyncio.wait({self._check}, timeout=_READY_WITHIN)
        if not self._check.done():
            return "The database does not respond."
        try:
            return self._check.result()
        except Unavailable:
            return "The database is unavailable."

    async def _why_not(self) -> str | None:
        found = await readiness(self._database)
        if not found.migrated:
            return _NOT_MIGRATED
        runs_for = time.monotonic() - self._started_at
        unled_for = runs_for if found.unled_for is None else found.unled_for
        if min(unled_for, runs_for) < self._elected_within:
            return None
        blocking = "; ".join(map(str, await blocking_sessions(self._database)))
        return f"No process has led for {unled_for:.0f} s: badges and deliveries are not updated. {blocking}".strip()


async def check_start(dsn: str, pooler: str | None = None, *, wait: float) -> None:
    """Raises NotReady, in one line, where a service can't start on this database, or through this pooler.

    Waits up to `wait` seconds for one that can't be reached yet, that is starting or recovering.
    """
    deadline = time.monotonic() + wait
    while True:
        await _wait_for_database(dsn, wait, deadline)
        try:
            await _check_start(dsn, deadline)
            return await check_pooler(dsn, pooler, deadline)
        except psycopg.Error as error:
            reason = " ".join(str(error).split())
            lost_again = isinstance(error, psycopg.OperationalError) and _may_come(reason)
            if not lost_again or time.monotonic() >= deadline:
                raise NotReady(f"TOCSIN_DATABASE_URL can't be reached: {reason}") from None
            await asyncio.sleep(_AGAIN)


async def _check_start(dsn: str, deadline: float) -> None:
    try:
        if fault := await in_thread(find_fault, dsn):
            raise NotReady(fault)
        await _check_version(dsn, deadline)
        async with await psycopg.AsyncConnection.connect(dsn, connect_timeout=5) as connection:
            row = await (await connection.execute(_SQL["is_migrated"])).fetchone()
            found = await (await connection.execute(_IS_SUPERUSER)).fetchone()
            role = connection.info.user
        if row != (True,):
            raise NotReady(_NOT_MIGRATED)
    except psycopg.errors.UndefinedTable:
        raise NotReady(_NOT_MIGRATED) from None
    except psycopg.errors.InsufficientPrivilege:
        raise NotReady(
            "The role of TOCSIN_DATABASE_URL may not use Tocsin's tables: grant it tocsin_service, or use the owner's."
        ) from None
    if found == (True,):
        cure = "use a login that is granted tocsin_service"
        log.warning("connected to the database as a superuser", role=role, cure=cure)


async def _check_version(dsn: str, deadline: float) -> None:
    """Raises NotReady where the schema is older than this version by the deadline, or too new to work on."""
    waiting = False
    while (found := await in_thread(_read_state, dsn)) == "behind":
        if time.monotonic() >= deadline:
            raise NotReady(_BEHIND)
        if not waiting:
            log.warning("waiting for the migration")
            waiting = True
        await asyncio.sleep(_AGAIN)
    if found == "incompatible":
        raise NotReady(_TOO_NEW)
    if found == "newer":
        log.warning("database is newer", cure="restart this process in the newer version")


def _read_state(dsn: str) -> State:
    with connect(dsn) as connection:
        return state(connection)


async def check_pooler(dsn: str, pooler: str | None, deadline: float) -> None:
    """Raises NotReady where the pooler can't be reached by the deadline, or leads to another database."""
    if pooler is None:
        return
    while reason := await probe(pooler):
        if not _may_come(reason) or time.monotonic() >= deadline:
            raise NotReady(f"TOCSIN_POOLER_URL can't be reached: {reason}")
        await asyncio.sleep(_AGAIN)
    found = []
    for address in (dsn, pooler):
        connection = await psycopg.AsyncConnection.connect(address, prepare_threshold=None)
        async with connection:
            found.append(await (await connection.execute(_SQL["which_database"])).fetchone())
    if found[0] != found[1]:
        raise NotReady(
            "TOCSIN_POOLER_URL leads to another database, or another role, than TOCSIN_DATABASE_URL."
        )


async def run_service(run: Callable[[], Awaitable[None]], *, wait: float) -> None:
    """Runs a service; starts it again where the database becomes unavailable before it has started.

    `wait` seconds after the first start, it raises Unavailable instead. A service that has started outlasts outages.
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            return await run()
        except Unavailable as error:
            if time.monotonic() >= deadline:
                raise
            log.warning("database unavailable during the start, starting again", reason=str(error))
            await asyncio.sleep(_AGAIN)


async def _wait_for_database(dsn: str, wait: float, deadline: float) -> None:
    waiting = False
    while (reason := await probe(dsn)) and _may_come(reason):
        if time.monotonic() >= deadline:
            raise NotReady(f"TOCSIN_DATABASE_URL can't be reached: {reason}")
        if not waiting:
            log.warning("waiting for the database", reason=reason, at_most=f"{wait:.0f} s")
            waiting = True
        await asyncio.sleep(_AGAIN)


def _may_come(reason: str) -> bool:
    """Returns whether the database may be usable later: not where it refuses the role or the name."""
    return "FATAL" not in reason or any(words in reason for words in _PASSING)


async def unsettled(database: Database) -> list[Unsettled]:
    """Returns how many deliveries are not in a final state, counted up to a limit."""
    return await database.rows(Unsettled, _SQL["unsettled"], most=_COUNTED)
