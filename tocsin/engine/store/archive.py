"""What a person took out of their inbox, and how a change of many notifications is undone."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime

from msgspec import Struct

from tocsin.engine.model import Invalid, Refused
from tocsin.engine.store.database import Database
from tocsin.engine.store.notification import (
    Filter,
    Notification,
    get_notification,
    undo_token,
)
from tocsin.engine.store.pagination import from_opaque, read_as_of
from tocsin.sql import load

_SQL = load("archive")
_XID = re.compile("[1-9][0-9]{0,17}")


class ArchivedAll(Struct, frozen=True):
    """How many were archived, and the token to undo it."""

    archived: int
    undo: str | None  # None: nothing was archived


async def archive(database: Database, recipient_id: str, notification_id: int) -> Notification:
    """Removes one from list and badge and returns it; raises NotFound."""
    async with database.session() as session:
        await session.value(
            _SQL["archive"], recipient_id=recipient_id, notification_id=notification_id
        )
        return await get_notification(session, recipient_id, notification_id)


async def archive_single(database: Database, recipient_id: str, notification_id: int) -> str | None:
    """Removes one from list and badge and returns what undoes it, None if it was not there; raises NotFound."""
    async with database.session() as session:
        person = {"recipient_id": recipient_id, "notification_id": notification_id}
        if await session.value(_SQL["archive"], **person):
            return undo_token("archived", await session.value(_SQL["archived_at"], **person))
        await get_notification(session, recipient_id, notification_id)
        return None


async def unarchive(database: Database, recipient_id: str, notification_id: int) -> Notification:
    """Brings one back as it was and returns it; raises NotFound, and Refused if it can't be in the inbox."""
    async with database.session() as session:
        back = await session.value(
            _SQL["unarchive"], recipient_id=recipient_id, notification_id=notification_id
        )
        found = await get_notification(session, recipient_id, notification_id)
        if not back:
            raise Refused(
                "It can't be in the inbox: it was cancelled or replaced, or never was in the inbox."
            )
        return found


async def archive_all(
    database: Database, recipient_id: str, wanted: Filter, *, as_of: str | None
) -> ArchivedAll:
    """Archives what a list can show; with `as_of`, what that list could show. Raises Invalid."""
    return await database.one(
        _to_archived_all,
        _SQL["archive_all"],
        recipient_id=recipient_id,
        read=wanted.read,
        category=wanted.category,
        event_type=wanted.event_type,
        subject=wanted.subject,
        as_of=None if as_of is None else read_as_of(as_of),
    )


def _to_archived_all(archived: int, archived_at: datetime) -> ArchivedAll:
    return ArchivedAll(archived, undo_token("archived", archived_at) if archived else None)


async def undo(database: Database, recipient_id: str, token: str) -> int:
    """Undoes a change of many, except for what was changed since; returns how many. Raises Invalid."""
    change, _, text = from_opaque(token).partition(" ")
    undone: int
    if change == "unread" and _XID.fullmatch(text):
        undone = await database.value(_SQL["undo_mark_unread"], recipient_id=recipient_id, xid=text)
    elif change == "read" and (at := _to_time(text)):
        undone = await database.value(
            _SQL["undo_mark_all_read"], recipient_id=recipient_id, read_at=at
        )
    elif change == "archived" and (at := _to_time(text)):
        undone = await database.value(
            _SQL["undo_archive_all"], recipient_id=recipient_id, archived_at=at
        )
    else:
        raise Invalid(
            "undo is not the token of a change",
            (
                "undo",
                "Pass the header Tocsin-Undo of the response to the change that is to be undone.",
            ),
        )
    return undone


def _to_time(text: str) -> datetime | None:
    with suppress(ValueError):
        at = datetime.fromisoformat(text)
        return at if at.tzinfo else None
    return None
