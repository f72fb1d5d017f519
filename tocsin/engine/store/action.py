"""The buttons of notifications."""

from __future__ import annotations

import re
from typing import Literal, NoReturn

from msgspec import Struct

from tocsin.engine.model import NotFound, Refused
from tocsin.engine.store.database import Database
from tocsin.engine.store.notification import Notification, get_notification
from tocsin.sql import load

Closed = Literal["cancelled", "replaced", "expired"]
"""Why no button of a notification can be pressed any more."""

_SQL = load("action")
_KEY = re.compile("[a-z0-9_-]{1,40}")
_NO_NOTIFICATION = "There is no such notification of yours."
_OVER: dict[str, str] = {
    "cancelled": "The event was cancelled, so there is nothing left to choose.",
    "replaced": "A newer notification has replaced this one: choose there.",
    "expired": "The time in which this could be chosen is over.",
}


class PressResult(Struct, frozen=True):
    """How a press ended, and the key that counts, if any.

    `outcome` is `acted`, also if that key was chosen before; `other`, if another one was; or one of `Closed`.
    """

    outcome: Literal["acted", "other"] | Closed
    chosen: str | None


class ActionsState(Struct, frozen=True):
    """Whether the buttons of a notification can still be pressed, and the language of its person."""

    closed: Closed | None
    locale: str | None


async def press(
    database: Database, recipient_id: str, notification_id: int, key: str
) -> Notification:
    """Presses a button and returns the notification; raises NotFound, Conflict, and Refused if it counts no more."""
    result = await try_press(database, recipient_id, notification_id, key)
    if result.outcome == "other":
        raise Refused(f"The first choice counts, which was {result.chosen}.", "chosen")
    if result.outcome != "acted":
        raise Refused(_OVER[result.outcome], result.outcome)
    async with database.session() as session:
        return await get_notification(session, recipient_id, notification_id)


async def try_press(
    database: Database, recipient_id: str, notification_id: int, key: str
) -> PressResult:
    """Presses a button and returns how that ended; raises NotFound and Conflict."""
    if not _KEY.fullmatch(key):
        _refuse_key()
    person = {"recipient_id": recipient_id, "notification_id": notification_id}
    # one statement, which commits by itself
    result = await database.one(PressResult, _SQL["press_action"], **person, key=key)
    found: str = result.outcome
    if found == "unknown":
        raise NotFound(_NO_NOTIFICATION)
    if found == "unknown_key":
        _refuse_key()
    return result


async def actions_state(
    database: Database, recipient_id: str, notification_id: int
) -> ActionsState:
    """Returns the state of a notification's buttons; raises NotFound."""
    found = await database.row(
        ActionsState,
        _SQL["actions_state"],
        recipient_id=recipient_id,
        notification_id=notification_id,
    )
    if found is None:
        raise NotFound(_NO_NOTIFICATION)
    return found


def _refuse_key() -> NoReturn:
    raise NotFound("This notification has no such action: `actions` has the keys.")
