"""Whether the database answers."""

from __future__ import annotations

import asyncio
import time

import psycopg
import structlog
from msgspec import Struct

from tocsin.engine.store.availability import probe
from tocsin.engine.store.database import Database
from tocsin.sql import load

_SQL = load("health")
_AGAIN = 0.25  # seconds
_NOT_MIGRATED = "The database is not migrated: run `tocsin migrate` first."
# Of PostgreSQL's messages to who connects: it starts, recovers, or ends.
_PASSING = ("starting up", "recovery", "shutting down", "not accepting connections", "too many")

log = structlog.get_logger("tocsin.database")


class NotReady(Exception):
    """One line that says why a service can't start, and what to do."""


class Standing(Struct, frozen=True):
    """How many deliveries of a channel are in a state that is not an end, and how late the latest of them is."""

    channel: str
    state: str
    n: int
    late: float  # seconds


async def is_migrated(database: Database) -> bool:
    """Whether the schema is there; raises Unavailable."""
    return bool(await database.value(_SQL["is_migrated"]))


async def check_start(dsn: str, *, wait: float) -> None:
    """Raises NotReady, in one line, where a service can't start on this database.

    Waits up to `wait` seconds for one that can't be reached yet, that is starting or recovering.
    """
    deadline = time.monotonic() + wait
    waiting = False
    while (reason := await probe(dsn)) and _may_come(reason):
        if time.monotonic() >= deadline:
            raise NotReady(f"TOCSIN_DATABASE_URL can't be reached: {reason}")
        if not waiting:
            log.warning("waiting for the database", reason=reason, at_most=f"{wait:.0f} s")
            waiting = True
        await asyncio.sleep(_AGAIN)
    try:
        async with await psycopg.AsyncConnection.connect(dsn, connect_timeout=5) as connection:
            row = await (await connection.execute(_SQL["is_migrated"])).fetchone()
        if row != (True,):
            raise NotReady(_NOT_MIGRATED)
    except psycopg.errors.UndefinedTable:
        raise NotReady(_NOT_MIGRATED) from None
    except psycopg.errors.InsufficientPrivilege:
        raise NotReady("TOCSIN_DATABASE_URL is not the owner's, who migrated it.") from None
    except psycopg.Error as error:
        reason = " ".join(str(error).split())
        raise NotReady(f"TOCSIN_DATABASE_URL can't be reached: {reason}") from None


def _may_come(reason: str) -> bool:
    """Whether a database that can't be used may be usable later: not where it refuses the role or the name."""
    return "FATAL" not in reason or any(words in reason for words in _PASSING)


async def standing(database: Database) -> list[Standing]:
    """What the ledger has yet to bring to its end."""
    return await database.rows(Standing, _SQL["standing"])
