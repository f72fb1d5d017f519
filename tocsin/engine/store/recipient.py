"""People: created, read, exported and erased, and their devices."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from msgspec import Struct
from psycopg.types.json import Jsonb

from tocsin.engine.model import Conflict, NotFound, Unavailable
from tocsin.engine.store.database import Database, Queries
from tocsin.engine.store.digest import DigestPreferences, get_digest_preferences
from tocsin.engine.store.group import InboxPreferences, get_inbox_preferences
from tocsin.engine.store.notification import Notification
from tocsin.engine.store.preference import QuietHours, get_quiet_hours
from tocsin.sql import load

_SQL = load("recipient")


class Device(Struct, frozen=True):
    """A person's device; of its token only the last six characters."""

    id: int
    token: str
    platform: str
    provider: str
    environment: str
    label: str | None  # the name that its person gave it
    created_at: datetime
    registered_at: datetime  # the last time: apps do so at each start
    disabled_at: datetime | None
    disabled_reason: str | None


class Registered(Device, frozen=True):
    """A device that was just registered; `known` if it was this person's before."""

    known: bool


async def list_devices(
    database: Queries, recipient_id: str, *, whole_tokens: bool = False
) -> list[Device]:
    """Returns a person's devices, the newest registration first."""
    return await database.rows(
        Device, _SQL["list_devices"], recipient_id=recipient_id, whole_tokens=whole_tokens
    )


async def register_device(
    database: Queries,
    recipient_id: str,
    *,
    token: str,
    platform: str,
    provider: str | None,
    environment: str,
    label: str | None = None,
    keys: Mapping[str, str] | None = None,
) -> Registered:
    """Registers a token for a person, who may be new; any other person loses it.

    Without a provider it is one of the platform's own. Raises Invalid.
    """
    return await database.one(
        Registered,
        _SQL["register_device"],
        recipient_id=recipient_id,
        token=token,
        platform=platform,
        provider=provider,
        environment=environment,
        label=label,
        keys=None if keys is None else Jsonb(dict(keys)),
    )


async def remove_device(database: Database, recipient_id: str, device_id: int) -> None:
    """Deletes a device; raises NotFound where it is not the person's."""
    if not await database.run(
        _SQL["remove_device"], recipient_id=recipient_id, device_id=device_id
    ):
        raise NotFound("There is no such device of yours.")


async def unregister_device(database: Database, recipient_id: str, token: str) -> None:
    """Deletes a device by its token; raises NotFound where it is not the person's."""
    if not await database.run(_SQL["unregister_device"], recipient_id=recipient_id, token=token):
        raise NotFound("There is no such device of yours.")


class Recipient(Struct, frozen=True):
    """One person, by the host app's own id."""

    id: str
    email: str | None
    name: str | None
    locale: str | None
    timezone: str | None
    avatar_url: str | None
    created_at: datetime
    updated_at: datetime


class ExportedNotification(Notification, frozen=True):
    """A notification with all that is recorded of it, addresses in clear: they are the person's own."""

    archived_at: datetime | None
    decisions: dict[str, list[str]]
    because: str | None  # why they were notified, for an event of a topic
    address: str | None  # the address, if it was notified before it was theirs
    idempotency_key: str | None  # of an event that was for them alone
    deliveries: list[dict[str, Any]]


class ExportedEvent(Struct, frozen=True):
    """An event that names the person as its initiator, or mentions them."""

    id: int
    event_type: str
    title: str
    created_at: datetime


class _ExportedContent(ExportedEvent, frozen=True):
    body: str
    body_html: str | None
    action_url: str | None
    metadata: dict[str, Any]
    initiator: str | None


class ExportedInvitation(_ExportedContent, frozen=True):
    """A notification of an address of the person that nobody has claimed."""

    event_id: int
    address: str
    deliveries: list[dict[str, Any]]


class ExportedScheduled(_ExportedContent, frozen=True):
    """A scheduled event for the person; `cancelled_at` is set if it was cancelled."""

    email: str | None  # that it is for, where it is not for the person by their id
    send_at: datetime | None
    cancelled_at: datetime | None


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
    """An address that an app assigned to the person."""

    address: str
    claimed_at: datetime


class ExportedSuppression(Struct, frozen=True):
    """The reason why an address of the person is suppressed."""

    address: str
    reason: str
    created_at: datetime


class ExportedDigest(Struct, frozen=True):
    """A digest that was made for the person."""

    id: int
    frequency: str
    due_at: datetime
    created_at: datetime
    notification_ids: list[int]
    deliveries: list[dict[str, Any]]


class ExportedRest(Struct, frozen=True):
    """All other data, most of it kept for a short time."""

    waiting_for_digest: list[int]  # ids of notifications
    badge_pushes: list[dict[str, Any]]  # deliveries that corrected the badge on a device
    webhook_messages: list[dict[str, Any]]  # what app webhooks are sent about the person
    inbox_changes: list[dict[str, Any]]
    opt_outs: list[dict[str, Any]]  # by links in mails: what an undo would restore
    stream_tickets: list[dict[str, Any]]
    targets: list[dict[str, Any]]  # webhooks and chats that are the person's, with their addresses
    seen_at: datetime | None  # when the mark of what they have seen last moved
    unread: int


class Export(Struct, frozen=True):
    """All that is held of a person."""

    recipient: Recipient
    preferences: list[ExportedPreference]
    digest: DigestPreferences
    quiet_hours: QuietHours
    inbox: InboxPreferences
    notifications: list[ExportedNotification]
    invitations: list[ExportedInvitation]
    scheduled_events: list[ExportedScheduled]
    initiated_events: list[ExportedEvent]
    mentions: list[ExportedEvent]
    digests: list[ExportedDigest]
    devices: list[Device]  # each with its whole token
    subscriptions: list[ExportedSubscription]
    claims: list[ExportedClaim]
    suppression: str | None  # the reason why their address is suppressed
    suppressions: list[ExportedSuppression]  # the same of all addresses that are or were theirs
    others: ExportedRest


async def upsert_recipient(
    database: Queries,
    recipient_id: str,
    *,
    email: str | None = None,
    name: str | None = None,
    locale: str | None = None,
    timezone: str | None = None,
    avatar_url: str | None = None,
) -> bool:
    """Creates a person or changes what is not None; true where it was created. Raises Invalid."""
    created: bool = await database.value(
        _SQL["upsert_recipient"],
        recipient_id=recipient_id,
        email=email,
        name=name,
        locale=locale,
        timezone=timezone,
        avatar_url=avatar_url,
    )
    return created


async def get_recipient(database: Database, recipient_id: str) -> Recipient:
    """Returns one person; raises NotFound."""
    found = await database.row(Recipient, _SQL["get_recipient"], recipient_id=recipient_id)
    if found is None:
        raise NotFound("There is no such recipient.")
    return found


async def claim_email(database: Database, recipient_id: str, email: str) -> int:
    """Assigns an address to a person; returns how many notifications became theirs. Raises NotFound or Invalid."""
    await get_recipient(database, recipient_id)
    claimed: int = await database.value(_SQL["claim_email"], email=email, recipient_id=recipient_id)
    return claimed


async def mark_subject_read(database: Database, recipient_id: str, subject: str) -> int:
    """Marks what is about a subject as read; returns how many were unread. Raises NotFound or Invalid."""
    await get_recipient(database, recipient_id)
    return int(
        await database.value(_SQL["mark_subject_read"], recipient_id=recipient_id, subject=subject)
    )


async def erase_recipient(database: Database, recipient_id: str) -> None:
    """Erases a person and all that is held of them; raises NotFound where nobody was known by that id."""
    async with database.transaction() as session:
        if not await session.value(_SQL["erase_recipient"], recipient_id=recipient_id):
            raise NotFound("There is no such recipient.")
    await _finish(database)


async def erase_address(database: Database, email: str) -> None:
    """Erases what is held of an address without an account; raises NotFound where nothing was, or Invalid."""
    async with database.transaction() as session:
        if not await session.value(_SQL["erase_address"], email=email):
            raise NotFound("Nothing is held of this address.")
    await _finish(database)


async def _finish(database: Database) -> None:
    """Ends the erasure where no other transaction is open; else the leader does so later."""
    with suppress(Unavailable, Conflict):
        await database.value(_SQL["finish_erasures"])


async def export_recipient(database: Database, recipient_id: str) -> Export:
    """Returns all that is held of a person, from one snapshot; raises NotFound."""
    async with database.transaction(snapshot=True) as session:
        person = {"recipient_id": recipient_id}
        recipient = await session.row(Recipient, _SQL["get_recipient"], **person)
        rest = await session.row(ExportedRest, _SQL["export_rest"], **person)
        if recipient is None or rest is None:
            raise NotFound("There is no such recipient.")
        suppressions = await session.rows(
            ExportedSuppression, _SQL["export_suppressions"], **person
        )
        return Export(
            recipient,
            await session.rows(ExportedPreference, _SQL["export_preferences"], **person),
            await get_digest_preferences(session, recipient_id),
            await get_quiet_hours(session, recipient_id),
            await get_inbox_preferences(session, recipient_id),
            await session.rows(ExportedNotification, _SQL["export_notifications"], **person),
            await session.rows(ExportedInvitation, _SQL["export_invitations"], **person),
            await session.rows(ExportedScheduled, _SQL["export_scheduled"], **person),
            await session.rows(ExportedEvent, _SQL["export_initiated"], **person),
            await session.rows(ExportedEvent, _SQL["export_mentions"], **person),
            await session.rows(ExportedDigest, _SQL["export_digests"], **person),
            await list_devices(session, recipient_id, whole_tokens=True),
            await session.rows(ExportedSubscription, _SQL["export_subscriptions"], **person),
            await session.rows(ExportedClaim, _SQL["export_address_owners"], **person),
            await session.value(_SQL["export_suppression"], **person),
            suppressions,
            rest,
        )
