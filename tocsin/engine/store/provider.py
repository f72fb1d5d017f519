"""Which providers the workers have: each speaks for its own, and its word lapses."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta

from tocsin.engine.model import Channel
from tocsin.engine.store.database import Database
from tocsin.sql import load

_SQL = load("provider")
# A worker says anew what it has; its word lapses when it was silent three times.
OFFER_AGAIN = timedelta(seconds=30)
_GOOD_FOR = 3 * OFFER_AGAIN


async def offer_providers(database: Database, offered: Mapping[Channel, Collection[str]]) -> None:
    """Says which providers of which channels this worker has, for the decisions of notify()."""
    pairs = [(channel.value, name) for channel, names in offered.items() for name in names]
    await database.run(
        _SQL["offer_providers"],
        channels=[channel for channel, _ in pairs],
        providers=[name for _, name in pairs],
        good_for=_GOOD_FOR,
    )


async def is_offered(database: Database, channel: Channel, provider: str) -> bool:
    """Whether some worker has this provider of the channel."""
    offered = await database.value(
        _SQL["is_offered"], channel=channel.value, provider=provider, good_for=_GOOD_FOR
    )
    return bool(offered)
