"""Whether the database answers."""

from __future__ import annotations

from tocsin.engine.store.database import Database
from tocsin.sql import load

_SQL = load("health")


async def is_migrated(database: Database) -> bool:
    """Whether the schema is there; raises Unavailable."""
    return bool(await database.value(_SQL["is_migrated"]))
