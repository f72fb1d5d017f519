"""The buttons of a notification."""

from __future__ import annotations

from litestar import post
from litestar.di import NamedDependency
from litestar.params import FromPath

from tocsin.engine.model import Notification
from tocsin.engine.store import action as store
from tocsin.http.auth import people_router
from tocsin.http.fields import RowId
from tocsin.http.people.inbox import PATH, PersonRequest
from tocsin.http.requests import Services


@post(PATH + "{notification_id:int}/actions/{key:str}/", status_code=200)
async def press_action(
    request: PersonRequest,
    services: NamedDependency[Services],
    notification_id: RowId,
    key: FromPath[str],
) -> Notification:
    """Press a button.

    The first press counts, on whatever device, and marks the notification read. The same key again is a 200 too;
    another key, or a notification that was cancelled, replaced or has expired, is a 409.
    """
    found = await store.press(services.database, request.auth.recipient_id, notification_id, key)
    return found.with_picture_of(services.settings.avatar_hosts)


ROUTERS = (people_router("Inbox", press_action),)
