"""Whether the database answers."""

from __future__ import annotations

import psycopg
from msgspec import Struct

from tocsin.engine.store.database import Database
from tocsin.sql import load

_SQL = load("health")


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


async def check_start(dsn: str) -> None:
    """Raises NotReady, in one line, where a service can't start on this database."""
    try:
        async with await psycopg.AsyncConnection.connect(dsn, connect_timeout=5) as connection:
            await connection.execute(_SQL["is_migrated"])
    except psycopg.errors.UndefinedTable:
        raise NotReady("The database is not migrated: run `tocsin migrate` first.") from None
    except psycopg.errors.InsufficientPrivilege:
        raise NotReady("TOCSIN_DATABASE_URL is not the owner's, who migrated it.") from None
    except psycopg.Error as error:
        reason = " ".join(str(error).split())
        raise NotReady(f"TOCSIN_DATABASE_URL can't be reached: {reason}") from None


async def standing(database: Database) -> list[Standing]:
    """What the ledger has yet to bring to its end."""
    return await database.rows(Standing, _SQL["standing"])
