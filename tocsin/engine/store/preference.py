"""A person's preferences: overrides of the catalogue's defaults."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct
from psycopg.types.json import Jsonb

from tocsin.engine.model import Invalid, nearest
from tocsin.engine.store.database import Database, Session
from tocsin.sql import load

_SQL = load("preference")
_MOST_NAMED = 20  # faults in one answer
_MOST_SUGGESTED = 3  # of them with the nearest known names, which take a while to find

Overrides = Mapping[str, Mapping[str, bool | None]]
"""{'*', 'forum.*' or an event type: {channel: on, off, or None to inherit again}}"""


class Preferences(Struct, frozen=True):
    """What reaches a person, where each answer comes from, and what they chose."""

    event_types: dict[str, dict[str, bool]]
    sources: dict[str, dict[str, str]]  # default, *, forum.*, type or mandatory
    overrides: dict[str, dict[str, bool]]
    mandatory: dict[str, list[str]]


class _Keys(Struct):
    scopes: list[str]
    channels: list[str]
    mandatory: dict[str, list[str]]


async def get_preferences(session: Database | Session, recipient_id: str) -> Preferences:
    """By the rules of tocsin.decide; for a person that is not known, the defaults."""
    found = await session.row(Preferences, _SQL["get_preferences"], recipient_id=recipient_id)
    if found is None:
        raise AssertionError("an aggregate has one row")
    return found


async def set_overrides(database: Database, recipient_id: str, overrides: Overrides) -> Preferences:
    """Merges overrides, all or nothing, and creates the person where it is a first write; raises Invalid."""
    async with database.transaction() as session:
        await _check(session, overrides)
        await session.run(
            _SQL["set_overrides"],
            recipient_id=recipient_id,
            overrides=Jsonb({scope: dict(channels) for scope, channels in overrides.items()}),
        )
        return await get_preferences(session, recipient_id)


async def _check(session: Session, overrides: Overrides) -> None:
    keys = await session.row(_Keys, _SQL["preference_keys"])
    if keys is None:
        raise AssertionError("a statement without from has one row")
    scopes = frozenset(keys.scopes)
    wrong: list[tuple[str, str]] = []
    for scope, channels in overrides.items():
        if len(wrong) >= _MOST_NAMED:
            break
        field = f"overrides.{scope[:100]}"
        if scope not in scopes:
            suggested = len(wrong) < _MOST_SUGGESTED
            near = nearest(scope, keys.scopes, 3, cutoff=0.0) if suggested else []
            hint = f" The nearest known ones: {', '.join(near)}." if near else ""
            wrong.append((field, f"No such key.{hint}"))
        wrong += [
            (f"{field}.{channel[:100]}", f"No such channel. There are: {', '.join(keys.channels)}.")
            for channel in channels
            if channel not in keys.channels
        ]
        wrong += [
            (f"{field}.{channel}", f"{channel} is mandatory for {scope}: nobody can turn it off.")
            for channel, enabled in channels.items()
            if enabled is False and channel in keys.mandatory.get(scope, ())
        ]
    if wrong:
        raise Invalid("overrides names what is not there", *wrong[:_MOST_NAMED])
