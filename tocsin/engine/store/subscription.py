"""Which topics a person follows, how closely, and since when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from tocsin.engine.model import Conflict, NotFound
from tocsin.engine.store.database import Database, Session
from tocsin.engine.store.page import Cursor, Page, page
from tocsin.sql import load

_SQL = load("subscription")


class Subscription(Struct, frozen=True):
    """A person following a topic, or having muted it."""

    id: int
    topic: str
    level: str  # all, mentions or muted
    because: str  # followed or replied
    created_at: datetime


class Latest(Struct, frozen=True):
    """What a person was last told of a topic."""

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
        _LatestOfTopic, _SQL["latest_of_topics"], recipient_id=recipient_id, topics=list(topics)
    )
    return {
        row.topic: Latest(row.notification_id, row.title, row.action_url, row.created_at)
        for row in rows
    }


async def _find(session: Session, recipient_id: str, topic: str) -> Subscription | None:
    return await session.row(
        Subscription, _SQL["get_subscription"], recipient_id=recipient_id, topic=topic
    )
