"""Targets of chats: channels, groups and persons to which an app sends, of a person or of a topic."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from tocsin.engine.model import NotFound
from tocsin.engine.store.database import Database, Queries
from tocsin.engine.store.pagination import Cursor, Page, page
from tocsin.sql import load

_SQL = load("chat_target")


class StoredChatTarget(Struct, frozen=True):
    """A target with its URL, which is a secret; `known`: it was there before."""

    id: int
    name: str
    kind: str
    url: str
    recipient: str | None
    topic: str | None
    created_at: datetime
    disabled_at: datetime | None
    disabled_reason: str | None
    known: bool


class DisabledChat(Struct, frozen=True):
    """A topic's target that its service refused."""

    name: str
    kind: str
    disabled_at: datetime
    disabled_reason: str


async def put_chat_target(
    database: Database,
    name: str,
    *,
    kind: str,
    url: str,
    recipient_id: str | None,
    topic: str | None,
) -> StoredChatTarget:
    """Makes a target, or changes it and enables it again. Raises Invalid for an unknown person or a wrong topic."""
    async with database.transaction() as session:
        if recipient_id is not None:
            await session.value(_SQL["check_recipient_known"], recipient_id=recipient_id)
        if topic is not None:
            await session.value(_SQL["check_topic"], topic=topic)
        return await session.one(
            StoredChatTarget,
            _SQL["put_chat_target"],
            name=name,
            chat_kind=kind,
            url=url,
            recipient_id=recipient_id,
            topic=topic,
        )


async def list_chat_targets(
    database: Database,
    *,
    recipient_id: str | None,
    topic: str | None,
    cursor: Cursor | None,
    limit: int,
) -> Page[StoredChatTarget]:
    """Returns a page of them, newest first; of one person or one topic, where given."""
    name = "list_newer_chat_targets" if cursor and cursor.newer else "list_older_chat_targets"
    rows = await database.rows(
        StoredChatTarget,
        _SQL[name],
        recipient_id=recipient_id,
        topic=topic,
        at=cursor and cursor.at,
        id=cursor and cursor.id,
        limit=limit + 1,
    )
    return page(rows, cursor, limit)


async def delete_chat_target(database: Database, name: str) -> None:
    """Deletes a target; raises NotFound."""
    if not await database.value(_SQL["delete_chat_target"], name=name):
        raise NotFound("There is no chat target of that name.")


async def disabled_chat_targets(database: Queries) -> list[DisabledChat]:
    """Returns the latest targets of topics that are disabled."""
    return await database.rows(DisabledChat, _SQL["disabled_chat_targets"])
