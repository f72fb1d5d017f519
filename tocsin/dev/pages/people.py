"""The people of the demo page and their phones."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from tocsin.engine.store.database import Database
from tocsin.sql import load

_SQL = load("demo")


class DemoPerson(Struct, frozen=True):
    """One to sign in as."""

    id: str
    name: str | None
    email: str | None

    @property
    def first_name(self) -> str:
        """What friends call them."""
        return (self.name or self.id).split()[0] if (self.name or self.id).strip() else self.id


async def list_people(database: Database, limit: int) -> list[DemoPerson]:
    """The first people who were made."""
    return await database.rows(DemoPerson, _SQL["list_people"], limit=limit)


class DemoPhone(Struct, frozen=True):
    """A device with its whole token."""

    token: str
    platform: str
    provider: str
    recipient_id: str


async def list_phones(database: Database, recipient_id: str, limit: int) -> list[DemoPhone]:
    """A person's live devices, the first registered first."""
    return await database.rows(
        DemoPhone, _SQL["list_phones"], recipient_id=recipient_id, limit=limit
    )


async def devices_of_tokens(database: Database, tokens: Sequence[str]) -> list[DemoPhone]:
    """The devices of these tokens."""
    return await database.rows(DemoPhone, _SQL["devices_of_tokens"], tokens=list(tokens))


async def notification_of(database: Database, event_id: int, recipient_id: str) -> int | None:
    """What an event came to for one person; None where they were not told."""
    found: int | None = await database.value(
        _SQL["notification_of"], event_id=event_id, recipient_id=recipient_id
    )
    return found
