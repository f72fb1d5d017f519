"""What an operator looks up: a person, an event's people, a notification."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from tocsin.engine.store.database import Database
from tocsin.sql import load

_SQL = load("lookup")


class DeviceLine(Struct, frozen=True):
    """One device of a person; its token in clear."""

    platform: str
    provider: str
    token: str
    registered_at: datetime
    disabled_at: datetime | None
    disabled_reason: str | None


class PersonLine(Struct, frozen=True):
    """What decides what reaches a person; the address in clear."""

    id: str
    email: str | None
    locale: str | None
    timezone: str | None
    created_at: datetime
    unread: int
    suppressed: str | None  # why the address must not be mailed
    suppressed_at: datetime | None
    digest: str | None
    quiet_hours: bool
    devices: list[Any]


class ToldLine(Struct, frozen=True):
    """One notification of a list."""

    id: int
    event_id: int
    event_type: str
    title: str
    created_at: datetime
    in_inbox: bool
    read_at: datetime | None
    recipient_id: str | None


async def find_person(database: Database, recipient_id: str) -> PersonLine | None:
    """The person of this id, or None."""
    found = await database.row(PersonLine, _SQL["find_person"], recipient_id=recipient_id)
    if found is None:
        return None
    devices = msgspec.convert(found.devices, list[DeviceLine])
    return msgspec.structs.replace(found, devices=devices)


async def people_at(database: Database, address: str) -> list[str]:
    """The ids of those who have this address."""
    return list(await database.value(_SQL["people_at"], address=address))


async def told_to_person(database: Database, recipient_id: str, limit: int) -> list[ToldLine]:
    """What a person was told last."""
    return await database.rows(
        ToldLine, _SQL["told_to_person"], recipient_id=recipient_id, limit=limit
    )


async def told_of_event(database: Database, event_id: int, limit: int) -> list[ToldLine]:
    """Whom an event was told to, the first ones by their ids."""
    return await database.rows(ToldLine, _SQL["told_of_event"], event_id=event_id, limit=limit)


async def notification_exists(database: Database, notification_id: int) -> bool:
    """Whether there is a notification of this id."""
    return bool(await database.value(_SQL["notification_exists"], notification_id=notification_id))
