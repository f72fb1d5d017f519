"""Reports of mail servers and providers on mails after they were sent, and the addresses that must not be mailed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec
from msgspec import Struct
from psycopg.types.json import Jsonb

from tocsin.engine.model import NotFound
from tocsin.engine.store.database import Database, Queries
from tocsin.engine.store.pagination import Cursor, Page
from tocsin.engine.store.target import Unsubscribed, report_unsubscribed
from tocsin.sql import load

_SQL = load("mail_event")

HOLD = timedelta(seconds=10)
"""How long a bounce is held before it suppresses an address: a mass rejection is noticed within that time."""


class NewMailEvent(Struct, frozen=True):
    """One report; `dead` where it shows that the address must not be mailed."""

    key: str  # what identifies it at its source
    kind: Literal["bounce", "complaint"]
    reason: str
    dead: bool
    occurred_at: datetime
    delivery_id: int | None = None
    # where the report has no tag of ours: the provider's id, and the address by which its delivery is searched
    provider_id: str | None = None
    address: str | None = None


class MailEventCounts(Struct, frozen=True):
    """How many mails were sent, and how many came back, within a time."""

    sent: int = 0
    bounces: int = 0
    dead: int = 0  # of the bounces, those of mailboxes that do not exist
    complaints: int = 0
    mass_rejection_at: datetime | None = None  # when bounces were last not believed


async def record_mail_events(
    database: Database, source: str, events: Sequence[NewMailEvent], *, hold: timedelta = HOLD
) -> list[str]:
    """Stores those that are new and decides what can be decided now; returns the kinds of those that are new."""
    async with database.transaction() as session:
        new: list[str] = await session.column(
            _SQL["record_mail_events"], source=source, events=Jsonb(msgspec.to_builtins(events))
        )
    if new:
        await apply_mail_events(database, hold=hold)
    return new


async def apply_mail_events(database: Database, *, hold: timedelta = HOLD) -> dict[str, int]:
    """Decides the effect of the reports that wait; returns how many, by effect."""
    effects: dict[str, int] = await database.value(_SQL["apply_mail_events"], hold=hold)
    return effects


async def mail_event_counts(database: Queries, since: datetime) -> MailEventCounts:
    """Returns what was sent and came back since then."""
    return await database.one(MailEventCounts, _SQL["mail_event_counts"], since=since)


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
    return await database.page(Suppression, _SQL, "suppressions", cursor, limit, reason=reason)


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
