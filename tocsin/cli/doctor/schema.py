"""The checks of Tocsin's schema, of the roles, and of what else uses the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from importlib.metadata import version

from msgspec import Struct

from tocsin.cli.doctor.examination import Colour, Examination, Finding, finding
from tocsin.engine.store.connection import connect
from tocsin.engine.store.installation import processes
from tocsin.sql import load
from tocsin.sql.install import State, state

_SQL = load("doctor")

_OF_SERVE, _OF_WORKER = 12, 28  # connections
_REPLAYED_WITHIN = 5.0  # seconds
_ASK_AGAIN = 0.1


class _Right(Struct, frozen=True):
    level: Colour
    sentence: str
    cure: str


class _Named(Struct, frozen=True):
    name: str


class _Publication(Struct, frozen=True):
    name: str
    all_tables: bool
    refusing: list[str]


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
    rights = await examination.database.rows(_Right, _SQL["rights"])
    if rights:
        return [Finding(row.level, row.sentence, row.cure) for row in rights]
    logins = [row.name for row in await examination.database.rows(_Named, _SQL["app_logins"])]
    return [finding("rights.right", logins=", ".join(logins) or "no login besides the owner")]


async def check_publications(examination: Examination) -> Iterable[Finding]:
    """Checks whether logical replication keeps Tocsin's rows from being changed."""
    found = []
    for row in await examination.database.rows(_Publication, _SQL["publications"]):
        if row.refusing:
            tables, first = ", ".join(row.refusing), row.refusing[0]
            found.append(
                finding("publications.refusing", name=row.name, tables=tables, first=first)
            )
        else:
            found.append(finding("publications.sending", name=row.name))
    return found or [finding("publications.right")]


async def check_connections(examination: Examination) -> Iterable[Finding]:
    """Checks whether the server has room for the services."""
    row = await examination.database.row(FreeConnections, _SQL["connections"])
    assert row is not None
    running = (
        {each.kind for each in await processes(examination.database) if not each.silent}
        if examination.migrated
        else set()
    )
    return [judge_connections(row, running)]


def judge_connections(row: FreeConnections, running: set[str]) -> Finding:
    """Services that run have theirs; the others need them still."""
    needed = (0 if "serve" in running else _OF_SERVE) + (0 if "worker" in running else _OF_WORKER)
    limits = {"free": row.free, "of_serve": _OF_SERVE, "of_worker": _OF_WORKER}
    if row.free < max(1, needed):
        return finding("connections.too_few", needed=max(1, needed), **limits)
    if row.free < needed + _OF_WORKER:
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


async def _late_standbys(examination: Examination, row: _Replication) -> list[str]:
    """Asks again until there is none, or the time is over."""
    if not row.sees_standbys:
        return []
    give_up = time.monotonic() + _REPLAYED_WITHIN
    while True:
        rows = await examination.database.rows(_Named, _SQL["late_standbys"], position=row.position)
        late = [each.name for each in rows]
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
