"""Devices that take push."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from tocsin.engine.model import NotFound
from tocsin.engine.store.database import Database, Session
from tocsin.sql import load

_SQL = load("device")


class Device(Struct, frozen=True):
    """A person's device; of its token only the last six characters."""

    id: int
    token: str
    platform: str
    provider: str
    environment: str
    label: str | None  # what its person calls it
    created_at: datetime
    registered_at: datetime  # the last time: apps do so at each start
    disabled_at: datetime | None
    disabled_reason: str | None


class Registered(Device, frozen=True):
    """A device just registered; `known` where it was this person's already."""

    known: bool


async def list_devices(database: Database | Session, recipient_id: str) -> list[Device]:
    """A person's devices, the newest registration first."""
    return await database.rows(Device, _SQL["list_devices"], recipient_id=recipient_id)


async def register_device(
    database: Database | Session,
    recipient_id: str,
    *,
    token: str,
    platform: str,
    provider: str,
    environment: str,
    label: str | None = None,
) -> Registered:
    """Registers a token for a person, who may be new; it moves from whoever had it."""
    found = await database.row(
        Registered,
        _SQL["register_device"],
        recipient_id=recipient_id,
        token=token,
        platform=platform,
        provider=provider,
        environment=environment,
        label=label,
    )
    if found is None:
        raise AssertionError("an upsert returns its row")
    return found


async def remove_device(database: Database, recipient_id: str, device_id: int) -> None:
    """Forgets a device; raises NotFound where it is not the person's."""
    if not await database.run(
        _SQL["remove_device"], recipient_id=recipient_id, device_id=device_id
    ):
        raise NotFound("There is no such device of yours.")


async def unregister_device(database: Database, recipient_id: str, token: str) -> None:
    """Forgets a device by its token; raises NotFound where it is not the person's."""
    if not await database.run(_SQL["unregister_device"], recipient_id=recipient_id, token=token):
        raise NotFound("There is no such device of yours.")
