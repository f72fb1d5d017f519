"""People: made, read, exported and erased."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct

from tocsin.engine.model import NotFound
from tocsin.engine.store.database import Database, Session
from tocsin.engine.store.device import Device, list_devices
from tocsin.engine.store.digest import DigestPreferences, get_digest_preferences
from tocsin.engine.store.quiet_hours import QuietHours, get_quiet_hours
from tocsin.engine.store.stream_ticket import delete_tickets
from tocsin.sql import load

_SQL = load("recipient")


class Recipient(Struct, frozen=True):
    """One person, by the host app's own id."""

    id: str
    email: str | None
    name: str | None
    locale: str | None
    timezone: str | None
    created_at: datetime
    updated_at: datetime


class ExportedNotification(Struct, frozen=True):
    """A notification with all that is recorded of it, addresses in clear: they are the person's own."""

    id: int
    event_id: int
    event_type: str
    category: str
    title: str
    body: str
    body_html: str | None
    action_url: str | None
    metadata: dict[str, Any]
    initiator: str | None
    read: bool
    read_at: datetime | None
    created_at: datetime
    archived_at: datetime | None
    decisions: dict[str, list[str]]
    deliveries: list[dict[str, Any]]


class ExportedPreference(Struct, frozen=True):
    """A choice that the person made."""

    scope: str
    channel: str
    enabled: bool
    updated_at: datetime


class ExportedSubscription(Struct, frozen=True):
    """A topic that the person follows, or has muted."""

    topic: str
    level: str
    because: str
    created_at: datetime
    updated_at: datetime


class ExportedClaim(Struct, frozen=True):
    """An address that an app said is the person's."""

    address: str
    claimed_at: datetime


class ExportedEvent(Struct, frozen=True):
    """An event that names the person as the one who caused it."""

    id: int
    event_type: str
    title: str
    created_at: datetime


class Export(Struct, frozen=True):
    """All that is held of a person."""

    recipient: Recipient
    preferences: list[ExportedPreference]
    digest: DigestPreferences
    quiet_hours: QuietHours
    notifications: list[ExportedNotification]
    initiated_events: list[ExportedEvent]
    devices: list[Device]
    subscriptions: list[ExportedSubscription]
    claims: list[ExportedClaim]
    suppression: str | None  # why mail to their address is held back


async def upsert_recipient(
    database: Database | Session,
    recipient_id: str,
    *,
    email: str | None = None,
    name: str | None = None,
    locale: str | None = None,
    timezone: str | None = None,
) -> bool:
    """Creates a person or changes what is not None; true where it was created. Raises Invalid."""
    created: bool = await database.value(
        _SQL["upsert_recipient"],
        recipient_id=recipient_id,
        email=email,
        name=name,
        locale=locale,
        timezone=timezone,
    )
    return created


async def get_recipient(database: Database, recipient_id: str) -> Recipient:
    """One person; raises NotFound."""
    found = await database.row(Recipient, _SQL["get_recipient"], recipient_id=recipient_id)
    if found is None:
        raise NotFound("There is no such recipient.")
    return found


async def claim_email(database: Database, recipient_id: str, email: str) -> int:
    """Says whose an address is; answers how many notifications became theirs. Raises NotFound or Invalid."""
    await get_recipient(database, recipient_id)
    claimed: int = await database.value(_SQL["claim_email"], email=email, recipient_id=recipient_id)
    return claimed


async def erase_recipient(database: Database, recipient_id: str) -> None:
    """Erases a person and all that is held of them; raises NotFound where nobody was known by that id."""
    async with database.transaction() as session:
        await delete_tickets(session, recipient_id)
        if not await session.value(_SQL["erase_recipient"], recipient_id=recipient_id):
            raise NotFound("There is no such recipient.")


async def export_recipient(database: Database, recipient_id: str) -> Export:
    """All that is held of a person, from one snapshot; raises NotFound."""
    async with database.transaction(snapshot=True) as session:
        who = {"recipient_id": recipient_id}
        recipient = await session.row(Recipient, _SQL["get_recipient"], **who)
        if recipient is None:
            raise NotFound("There is no such recipient.")
        return Export(
            recipient,
            await session.rows(ExportedPreference, _SQL["export_preferences"], **who),
            await get_digest_preferences(session, recipient_id),
            await get_quiet_hours(session, recipient_id),
            await session.rows(ExportedNotification, _SQL["export_notifications"], **who),
            await session.rows(ExportedEvent, _SQL["export_initiated"], **who),
            await list_devices(session, recipient_id),
            await session.rows(ExportedSubscription, _SQL["export_subscriptions"], **who),
            await session.rows(ExportedClaim, _SQL["export_claims"], **who),
            await session.value(_SQL["export_suppression"], **who),
        )
