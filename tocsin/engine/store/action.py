"""The buttons of notifications."""

from __future__ import annotations

import re
from typing import NoReturn

from tocsin.engine.model import NotFound, Notification, Refused
from tocsin.engine.store.database import Database
from tocsin.engine.store.notification import get_notification
from tocsin.sql import load

_SQL = load("action")
_KEY = re.compile("[a-z0-9_-]{1,40}")
_OVER = {
    "cancelled": "The event was cancelled, so there is nothing left to choose.",
    "replaced": "A newer notification has replaced this one: choose there.",
    "expired": "The time in which this could be chosen is over.",
}


async def press(
    database: Database, recipient_id: str, notification_id: int, key: str
) -> Notification:
    """Presses a button and returns the notification; raises NotFound, Conflict, and Refused if it counts no more."""
    if not _KEY.fullmatch(key):
        _refuse("unknown_key", None)
    person = {"recipient_id": recipient_id, "notification_id": notification_id}
    # one statement, which commits by itself
    outcome, chosen = await database.one(_to_pair, _SQL["press_action"], **person, key=key)
    if outcome != "acted":
        _refuse(outcome, chosen)
    async with database.session() as session:
        return await get_notification(session, recipient_id, notification_id)


def _to_pair(outcome: str, chosen: str | None) -> tuple[str, str | None]:
    return outcome, chosen


def _refuse(outcome: str, chosen: str | None) -> NoReturn:
    if outcome == "unknown":
        raise NotFound("There is no such notification of yours.")
    if outcome == "unknown_key":
        raise NotFound("This notification has no such action: `actions` has the keys.")
    if outcome == "other":
        raise Refused(f"The first choice counts, which was {chosen}.")
    raise Refused(_OVER[outcome])
