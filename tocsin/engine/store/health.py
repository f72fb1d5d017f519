"""Whether the database answers."""

from __future__ import annotations

from msgspec import Struct

from tocsin.engine.store.database import Database
from tocsin.sql import load

_SQL = load("health")


class Standing(Struct, frozen=True):
    """How many deliveries of a channel are in a state that is not an end, and how late the latest of them is."""

    channel: str
    state: str
    n: int
    late: float  # seconds


async def is_migrated(database: Database) -> bool:
    """Whether the schema is there; raises Unavailable."""
    return bool(await database.value(_SQL["is_migrated"]))


async def standing(database: Database) -> list[Standing]:
    """What the ledger has yet to bring to its end."""
    return await database.rows(Standing, _SQL["standing"])
