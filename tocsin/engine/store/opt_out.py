"""What a reader of a mail may turn off that is no preference: an address without an account, a digest, a topic."""

from __future__ import annotations

import msgspec
from msgspec import Struct
from psycopg.types.json import Jsonb

from tocsin.engine.store.database import Database
from tocsin.sql import load

_SQL = load("opt_out")


class Kept(Struct, frozen=True):
    """What an opt-out changed: overrides of email by scope, as they were and as it made them; a digest that was on."""

    overrides: dict[str, tuple[bool | None, bool | None]] = {}
    frequency: str | None = None


async def keep_for_undo(database: Database, recipient_id: str, key: str, kept: Kept) -> None:
    """Keeps it by the link's and scope's `key`; what is kept there already stays."""
    await database.run(
        _SQL["keep_for_undo"],
        recipient_id=recipient_id,
        key=key,
        kept=Jsonb(msgspec.to_builtins(kept)),
    )


async def take_kept(database: Database, recipient_id: str, key: str) -> Kept | None:
    """What was kept, once; None where that link turned nothing off."""
    kept = await database.value(_SQL["take_kept"], recipient_id=recipient_id, key=key)
    return None if kept is None else msgspec.convert(kept, Kept)


async def address_owner(database: Database, address: str) -> str | None:
    """Whose an address is by now; None where it is nobody's."""
    owner: str | None = await database.value(_SQL["address_owner"], address=address)
    return owner


async def suppress_address(database: Database, address: str) -> None:
    """No more mail to it, for the reason `unsubscribed`."""
    await database.run(_SQL["suppress_address"], address=address)


async def lift_suppression(database: Database, address: str) -> bool:
    """Takes exactly that back; true where the address may be mailed now."""
    await database.run(_SQL["lift_suppression"], address=address)
    return not await database.value(_SQL["is_suppressed"], address=address)


async def turn_digest_off(database: Database, recipient_id: str) -> str | None:
    """Answers how often it came, `daily` or `weekly`; None where it was off."""
    frequency: str | None = await database.value(_SQL["turn_digest_off"], recipient_id=recipient_id)
    return frequency


async def turn_digest_on(database: Database, recipient_id: str, frequency: str) -> None:
    """On again, from the next hour of their choice on."""
    await database.value(_SQL["turn_digest_on"], recipient_id=recipient_id, frequency=frequency)


async def mute_topic(database: Database, recipient_id: str, topic: str) -> None:
    """They hear no more of it."""
    await database.value(_SQL["mute_topic"], recipient_id=recipient_id, topic=topic)


async def unmute_topic(database: Database, recipient_id: str, topic: str) -> None:
    """They follow it as before, or not at all."""
    await database.value(_SQL["unmute_topic"], recipient_id=recipient_id, topic=topic)
