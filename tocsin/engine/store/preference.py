"""A person's choices: topics, opt-outs by links in mails, quiet hours, and overrides of the catalogue's defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, time

import msgspec
from msgspec import Struct
from psycopg.types.json import Jsonb

from tocsin.engine.model import Conflict, Invalid, NotFound
from tocsin.engine.store.database import Database, Queries, Session
from tocsin.engine.store.digest import check_timezone
from tocsin.engine.store.pagination import Cursor, Page
from tocsin.engine.store.target import Unsubscribed, report_unsubscribed
from tocsin.engine.text import nearest
from tocsin.sql import load

_SQL = load("preference")

# Topics that a person follows or has muted.


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


async def subscribe(
    database: Database, recipient_id: str, topic: str, level: str
) -> tuple[Subscription, bool]:
    """Follows a topic, or changes the level; creates the person where it is a first write.

    Returns it, and whether it is new. Raises Invalid, or Conflict while an app's transaction changes it.
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
    """Ends a subscription; raises NotFound where the topic was neither followed nor muted."""
    if not await database.value(_SQL["unsubscribe"], recipient_id=recipient_id, topic=topic):
        raise NotFound("You neither follow that topic nor have muted it.")


async def list_subscriptions(
    database: Database,
    recipient_id: str,
    topic: str | None,
    *,
    cursor: Cursor | None,
    limit: int,
) -> Page[Subscription]:
    """Returns a page of them, newest first; with `topic`, of that one only. Raises Invalid."""
    if topic is not None:
        async with database.session() as session:
            await session.value(_SQL["check_topic"], topic=topic)
            found = await _find(session, recipient_id, topic)
        return Page([] if found is None else [found])
    return await database.page(
        Subscription, _SQL, "subscriptions", cursor, limit, recipient_id=recipient_id
    )


async def latest_of_topics(
    database: Database, recipient_id: str, topics: Sequence[str]
) -> dict[str, Latest]:
    """Returns them by topic, from the newest part of the inbox; other topics are left out."""
    return dict(
        await database.rows(
            lambda topic, **columns: (topic, Latest(**columns)),
            _SQL["latest_of_topics"],
            recipient_id=recipient_id,
            topics=list(topics),
        )
    )


async def _find(session: Session, recipient_id: str, topic: str) -> Subscription | None:
    return await session.row(
        Subscription, _SQL["get_subscription"], recipient_id=recipient_id, topic=topic
    )


# What a link in a mail turns off and is no preference: an address without an account, a digest, a topic.


class Kept(Struct, frozen=True):
    """What an opt-out changed: overrides of email by scope, before and after; the frequency of a digest that was on."""

    overrides: dict[str, tuple[bool | None, bool | None]] = {}
    frequency: str | None = None


async def save_for_undo(database: Database, recipient_id: str, key: str, kept: Kept) -> None:
    """Stores it by the link's and scope's `key`, unless something is stored there."""
    await database.run(
        _SQL["save_for_undo"],
        recipient_id=recipient_id,
        key=key,
        kept=Jsonb(msgspec.to_builtins(kept)),
    )


async def take_saved(database: Database, recipient_id: str, key: str) -> Kept | None:
    """Returns what was stored, and deletes it; None where that link turned nothing off."""
    kept = await database.value(_SQL["take_saved"], recipient_id=recipient_id, key=key)
    return None if kept is None else msgspec.convert(kept, Kept)


async def address_owner(database: Database, address: str) -> str | None:
    """Returns the recipient to whom an address belongs, if any."""
    owner: str | None = await database.value(_SQL["find_address_owner"], address=address)
    return owner


async def turn_digest_off(database: Database, recipient_id: str) -> str | None:
    """Returns its frequency before, `daily` or `weekly`; None where it was off."""
    frequency: str | None = await database.value(_SQL["turn_digest_off"], recipient_id=recipient_id)
    return frequency


async def turn_digest_on(database: Database, recipient_id: str, frequency: str) -> None:
    """Turns it on again, from the next hour of their choice on."""
    await database.value(_SQL["turn_digest_on"], recipient_id=recipient_id, frequency=frequency)


async def mute_topic(database: Database, recipient_id: str, topic: str) -> None:
    """Mutes a topic, by a link in a mail."""
    async with database.transaction() as session:
        await session.value(_SQL["mute_topic"], recipient_id=recipient_id, topic=topic)
        await report_unsubscribed(session, recipient_id, Unsubscribed("topic", (topic,)))


async def unmute_topic(database: Database, recipient_id: str, topic: str) -> None:
    """Undoes that: the topic is followed as before, or not at all."""
    await database.value(_SQL["unmute_topic"], recipient_id=recipient_id, topic=topic)


class QuietHours(Struct, frozen=True):
    """No mail and no push, in the time zone, `HH:MM`; `ends` before `starts` is over midnight. None: there are none."""

    starts: str | None
    ends: str | None
    timezone: str


async def get_quiet_hours(session: Queries, recipient_id: str) -> QuietHours:
    """Returns a person's quiet hours."""
    return await session.one(QuietHours, _SQL["get_quiet_hours"], recipient_id=recipient_id)


async def set_quiet_hours(
    database: Database,
    recipient_id: str,
    *,
    starts: time | None,
    ends: time | None,
    timezone: str | None,
) -> QuietHours:
    """Sets them, in the person's own zone where none is given; removes them where both are None. Raises Invalid."""
    if (starts is None) != (ends is None):
        missing = "starts" if starts is None else "ends"
        raise Invalid("incomplete", (missing, "Give both starts and ends, or null for both."))
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


_MOST_NAMED = 20  # faults in one error
_MOST_SUGGESTED = 3  # of them with the nearest known names, which take long to find

Overrides = Mapping[str, Mapping[str, bool | None]]
"""{'*', 'forum.*' or an event type: {channel: on, off, or None to inherit again}}"""


class Preferences(Struct, frozen=True):
    """The channels that are on for a person, what decides each, and their overrides."""

    event_types: dict[str, dict[str, bool]]
    sources: dict[str, dict[str, str]]  # default, *, forum.*, type or mandatory
    overrides: dict[str, dict[str, bool]]
    mandatory: dict[str, list[str]]
    complaints: list[str]  # overrides of email that a complaint turned off


class _Keys(Struct):
    scopes: list[str]
    channels: list[str]
    mandatory: dict[str, list[str]]


async def get_preferences(session: Queries, recipient_id: str) -> Preferences:
    """Returns them by the rules of tocsin.decide; for an unknown person the defaults."""
    return await session.one(Preferences, _SQL["get_preferences"], recipient_id=recipient_id)


async def set_overrides(
    database: Database,
    recipient_id: str,
    overrides: Overrides,
    unsubscribed: Unsubscribed | None = None,
) -> Preferences:
    """Merges overrides, all or nothing, and creates the person where it is a first write; raises Invalid.

    `unsubscribed`: by a link in a mail.
    """
    async with database.transaction() as session:
        await _check(session, overrides)
        await session.run(
            _SQL["set_overrides"],
            recipient_id=recipient_id,
            overrides=Jsonb({scope: dict(channels) for scope, channels in overrides.items()}),
        )
        if unsubscribed is not None:
            await report_unsubscribed(session, recipient_id, unsubscribed)
        return await get_preferences(session, recipient_id)


async def _check(session: Session, overrides: Overrides) -> None:
    keys = await session.one(_Keys, _SQL["preference_keys"])
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
