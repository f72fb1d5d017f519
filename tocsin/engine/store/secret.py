"""What one installation keeps for itself."""

from __future__ import annotations

from tocsin.engine.store.database import Database
from tocsin.sql import load

_SQL = load("secret")


async def get_secret(database: Database, name: str) -> bytes:
    """The secret of that name, which the migrations made."""
    value: bytes | None = await database.value(_SQL["get_secret"], name=name)
    if value is None:
        raise AssertionError(f"the migrations make the secret {name}")
    return value
