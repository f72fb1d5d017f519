"""Whom the demo page shows."""

from __future__ import annotations

from msgspec import Struct

from tocsin.engine.store.database import Database
from tocsin.sql import load

_SQL = load("demo")


class DemoPerson(Struct, frozen=True):
    """One to sign in as."""

    id: str
    name: str | None
    email: str | None


async def list_people(database: Database, limit: int) -> list[DemoPerson]:
    """The first people who were made."""
    return await database.rows(DemoPerson, _SQL["list_people"], limit=limit)
