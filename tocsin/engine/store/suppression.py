"""Addresses that must not be mailed, with the reason of each."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from tocsin.engine.model import NotFound
from tocsin.engine.store.database import Database, Queries
from tocsin.engine.store.pagination import Cursor, Page, page
from tocsin.engine.store.webhook import Unsubscribed, report_unsubscribed
from tocsin.sql import load

_SQL = load("suppression")


class Suppression(Struct, frozen=True):
    """An address that must not be mailed; the address is None once its person is erased."""

    id: int
    address: str | None
    reason: str
    created_at: datetime


async def list_suppressions(
    database: Queries, reason: str | None, *, cursor: Cursor | None, limit: int
) -> Page[Suppression]:
    """Returns a page of them, newest first; with `reason`, of that one only."""
    name = "list_newer_suppressions" if cursor and cursor.newer else "list_older_suppressions"
    rows = await database.rows(
        Suppression,
        _SQL[name],
        reason=reason,
        at=cursor and cursor.at,
        id=cursor and cursor.id,
        limit=limit + 1,
    )
    return page(rows, cursor, limit)


async def lift(database: Database, address: str) -> str:
    """Allows mail to an address again; returns why it was suppressed. Raises NotFound where it was not."""
    reason: str | None = await database.value(_SQL["lift_suppression"], address=address)
    if reason is None:
        raise NotFound("This address is not suppressed.")
    return reason


async def lift_by_id(database: Database, suppression_id: int) -> str:
    """Does the same for one of the list, whose address may have been erased."""
    reason: str | None = await database.value(
        _SQL["lift_suppression_by_id"], suppression_id=suppression_id
    )
    if reason is None:
        raise NotFound("There is no such suppression: it was lifted, or the address was claimed.")
    return reason


async def suppress_unsubscribed(database: Database, address: str) -> None:
    """Suppresses the address of a person without an account, with the reason `unsubscribed`."""
    async with database.transaction() as session:
        await session.run(_SQL["suppress_address"], address=address)
        await report_unsubscribed(session, None, Unsubscribed("all"))


async def undo_unsubscribed(database: Database, address: str) -> bool:
    """Undoes exactly that; returns whether the address may be mailed now."""
    await database.run(_SQL["undo_unsubscribed"], address=address)
    return not await database.value(_SQL["is_suppressed"], address=address)
