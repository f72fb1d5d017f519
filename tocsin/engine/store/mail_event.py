"""Reports of mail servers and providers on mails after they were sent: stored once, then their effect is decided."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec
from msgspec import Struct
from psycopg.types.json import Jsonb

from tocsin.engine.store.database import Database, Queries
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
