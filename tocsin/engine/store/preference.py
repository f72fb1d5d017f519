"""A person's preferences: overrides of the catalogue's defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, time

import msgspec
from msgspec import Struct
from psycopg.types.json import Jsonb

from tocsin.engine.model import Conflict, Invalid, NotFound, nearest
from tocsin.engine.store.database import Database, Session
from tocsin.engine.store.digest import check_timezone
from tocsin.engine.store.pagination import Cursor, Page, page
from tocsin.sql import load

_SQL = load("preference")

# Which topics a person follows, how closely, and since when.


class Subscription(Struct, frozen=True):
    """A person following a topic, or having muted it."""

    id: int
    topic: str
    level: str  # all, mentions or muted
    because: str  # followed or replied
    created_at: datetime


class Latest(Struct, frozen=True):
    """The newest notification of a topic that a person got."""

    notification_id: int
    title: str
    action_url: str | None
    created_at: datetime


class _LatestOfTopic(Latest, frozen=True):
    topic: str


async def subscribe(
    database: Database, recipient_id: str, topic: str, level: str
) -> tuple[Subscription, bool]:
    """Follows a topic, or changes how closely; creates the person where it is a first write.

    Answers it with whether it is new. Raises Invalid, or Conflict while an app's transaction has it.
    """
    async with database.transaction() as session:
        await session.run(_SQL["create_missing_recipient"], recipient_id=recipient_id)
        known = await _find(session, recipient_id, topic)
        await session.value(_SQL["subscribe"], recipient_id=recipient_id, topic=topic, level=level)
        found = await _find(session, recipient_id, topic)
    if found is None:
        raise Conflict("It is being changed elsewhere.")
    return found, known is None


async def unsubscribe(database: Database, recipient_id: str, topic: str) -> None:
    """Follows a topic no more; raises NotFound where it was neither followed nor muted."""
    if not await database.value(_SQL["unsubscribe"], recipient_id=recipient_id, topic=topic):
        raise NotFound("You neither follow that topic nor have muted it.")


async def mute(database: Database, recipient_id: str, topic: str) -> bool:
    """Mutes a topic for somebody who is known; false where it was muted already."""
    changed: bool = await database.value(
        _SQL["subscribe"], recipient_id=recipient_id, topic=topic, level="muted"
    )
    return changed


async def unmute(database: Database, recipient_id: str, topic: str) -> bool:
    """Takes a muting back: followed as before, or not at all. False where it was not muted."""
    changed: bool = await database.value(_SQL["unmute"], recipient_id=recipient_id, topic=topic)
    return changed


async def list_subscriptions(
    database: Database,
    recipient_id: str,
    topic: str | None,
    *,
    cursor: Cursor | None,
    limit: int,
) -> Page[Subscription]:
    """A page of them, newest first; of one topic only where it is named. Raises Invalid."""
    if topic is not None:
        async with database.session() as session:
            await session.value(_SQL["check_topic"], topic=topic)
            found = await _find(session, recipient_id, topic)
        return Page([] if found is None else [found])
    name = "list_newer_subscriptions" if cursor and cursor.newer else "list_older_subscriptions"
    rows = await database.rows(
        Subscription,
        _SQL[name],
        recipient_id=recipient_id,
        at=cursor and cursor.at,
        id=cursor and cursor.id,
        limit=limit + 1,
    )
    return page(rows, cursor, limit)


async def latest_of_topics(
    database: Database, recipient_id: str, topics: Sequence[str]
) -> dict[str, Latest]:
    """By topic, from the inbox; topics of which nothing is in its newest part are left out."""
    rows = await database.rows(
        _LatestOfTopic,
        _SQL["latest_of_topics"],
        recipient_id=recipient_id,
        topics=list(topics),
    )
    return {
        row.topic: Latest(row.notification_id, row.title, row.action_url, row.created_at)
        for row in rows
    }


async def _find(session: Session, recipient_id: str, topic: str) -> Subscription | None:
    return await session.row(
        Subscription, _SQL["get_subscription"], recipient_id=recipient_id, topic=topic
    )


# What a reader of a mail may turn off that is no preference: an address without an account, a digest, a topic.


class Kept(Struct, frozen=True):
    """What an opt-out changed: overrides of email by scope, as they were and as it made them; a digest that was on."""

    overrides: dict[str, tuple[bool | None, bool | None]] = {}
    frequency: str | None = None


async def save_for_undo(database: Database, recipient_id: str, key: str, kept: Kept) -> None:
    """Keeps it by the link's and scope's `key`; what is kept there already stays."""
    await database.run(
        _SQL["save_for_undo"],
        recipient_id=recipient_id,
        key=key,
        kept=Jsonb(msgspec.to_builtins(kept)),
    )


async def take_saved(database: Database, recipient_id: str, key: str) -> Kept | None:
    """What was kept, once; None where that link turned nothing off."""
    kept = await database.value(_SQL["take_saved"], recipient_id=recipient_id, key=key)
    return None if kept is None else msgspec.convert(kept, Kept)


async def address_owner(database: Database, address: str) -> str | None:
    """Whose an address is by now; None where it is nobody's."""
    owner: str | None = await database.value(_SQL["find_address_owner"], address=address)
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


# When a person wants no mail and no push.


class QuietHours(Struct, frozen=True):
    """By the clock of `timezone`, `HH:MM`; `ends` before `starts` is over midnight. None: there are none."""

    starts: str | None
    ends: str | None
    timezone: str


class _Row(Struct):
    starts: time
    ends: time
    timezone: str | None


async def get_quiet_hours(session: Database | Session, recipient_id: str) -> QuietHours:
    """A person's."""
    row = await session.row(_Row, _SQL["get_quiet_hours"], recipient_id=recipient_id)
    zone = row.timezone if row else None
    if zone is None:
        zone = await session.value(_SQL["recipient_timezone"], recipient_id=recipient_id)
    if row is None:
        return QuietHours(None, None, zone)
    return QuietHours(f"{row.starts:%H:%M}", f"{row.ends:%H:%M}", zone)


async def set_quiet_hours(
    database: Database,
    recipient_id: str,
    *,
    starts: time | None,
    ends: time | None,
    timezone: str | None,
) -> QuietHours:
    """Sets them, in the person's own zone where none is given; none at all where both are None. Raises Invalid."""
    if (starts is None) != (ends is None):
        missing = "starts" if starts is None else "ends"
        raise Invalid("half of it", (missing, "Give both starts and ends, or null for both."))
    if starts is not None and starts == ends:
        raise Invalid(
            "no time at all", ("ends", "Quiet hours end at another time than they start.")
        )
    async with database.transaction() as session:
        if timezone is not None:
            await check_timezone(session, timezone)
        if starts is None:
            await session.run(_SQL["end_quiet_hours"], recipient_id=recipient_id)
        else:
            await session.run(
                _SQL["set_quiet_hours"],
                recipient_id=recipient_id,
                starts=starts,
                ends=ends,
                timezone=timezone,
            )
        await session.value(_SQL["recheck_quiet_hours"], recipient_id=recipient_id)
        return await get_quiet_hours(session, recipient_id)


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
