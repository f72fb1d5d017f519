"""What all workers share of how fast they send, so that a provider's limit holds for the whole installation."""

from __future__ import annotations

from tocsin.engine.model import Channel, SendHold
from tocsin.engine.store.database import Database
from tocsin.sql import load

_SQL = load("pacing")


async def take_slots(database: Database, channel: Channel, count: int, gap: float) -> float:
    """Takes slots that are `gap` seconds apart; returns in how many seconds the first one is."""
    return float(
        await database.value(_SQL["take_slots"], channel=channel.value, count=count, gap=gap)
    )


async def hold_sending(database: Database, hold: SendHold) -> None:
    """Stores a pause that a provider asked for; all workers have it at once."""
    await database.run(_SQL["hold_sending"], key=hold.key, reason=hold.reason, seconds=hold.seconds)
