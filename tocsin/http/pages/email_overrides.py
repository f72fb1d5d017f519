"""Turning emails off and back by overrides: what was changed is kept, so that an undo brings back exactly that."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tocsin.engine.model import Channel
from tocsin.engine.store import preference as store
from tocsin.engine.store.database import Database
from tocsin.engine.store.preference import Preferences, get_preferences, set_overrides

Overrides = dict[str, dict[str, bool | None]]


async def turn_off(
    database: Database,
    person: str,
    key: str,
    off_from: Callable[[Preferences], Overrides],
    frequency: str | None = None,
) -> None:
    """Sets the overrides, and keeps what they were for an undo, where anything changes."""
    before = await get_preferences(database, person)
    off = off_from(before)
    changes = {
        name: (before.overrides.get(name, {}).get(Channel.EMAIL), channels[Channel.EMAIL])
        for name, channels in off.items()
    }
    changes = {name: (was, since) for name, (was, since) in changes.items() if was != since}
    if changes or frequency:
        await store.save_for_undo(database, person, key, store.Kept(changes, frequency))
    await set_overrides(database, person, off)


async def undo(database: Database, person: str, key: str) -> store.Kept | None:
    """Sets them as they were, but for what was chosen otherwise since; None where there is nothing to undo."""
    kept = await store.take_saved(database, person, key)
    if kept is None:
        return None
    now = (await get_preferences(database, person)).overrides
    back: Overrides = {
        name: {Channel.EMAIL: was}
        for name, (was, since) in kept.overrides.items()
        if now.get(name, {}).get(Channel.EMAIL) == since
    }
    await set_overrides(database, person, back)
    return kept


def all_off(keys: Sequence[str], before: Preferences) -> Overrides:
    """Off for whole categories or for all: that ends what was turned on inside, which would be stronger."""
    inside = tuple(key.removesuffix("*") for key in keys)
    stronger: Overrides = {
        name: {Channel.EMAIL: None}
        for name, channels in before.overrides.items()
        if name.startswith(inside) and channels.get(Channel.EMAIL)
    }
    return stronger | {key: {Channel.EMAIL: False} for key in keys}


def is_on(preferences: Preferences, event_type: str) -> bool:
    """Whether emails of that type come, all in all."""
    return preferences.event_types.get(event_type, {}).get(Channel.EMAIL, False)
