"""One notification of a person: read, archived, explained, and its buttons."""

from __future__ import annotations

from litestar import delete, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import Struct

from tocsin.engine.explain.why import Explanation, explain
from tocsin.engine.model import NotFound
from tocsin.engine.store import archive as archive_store
from tocsin.engine.store import notification as store
from tocsin.engine.store.database import Queries
from tocsin.engine.store.notification import Notification
from tocsin.http.auth import PersonRequest, people_router
from tocsin.http.fields import RowId
from tocsin.http.openapi import get, noted
from tocsin.http.people.inbox import PATH
from tocsin.http.positions import read_from
from tocsin.http.requests import Services


class ReadState(Struct, frozen=True, forbid_unknown_fields=True):
    """Read, or put back to unread."""

    read: bool = True


class ArchiveState(Struct, frozen=True, forbid_unknown_fields=True):
    """Out of the inbox, or back in it."""

    archived: bool


@get(PATH + "{notification_id:int}/")
async def get_notification(
    request: PersonRequest, services: NamedDependency[Services], notification_id: RowId
) -> Notification:
    """Read one.

    Also one that never was in the inbox, or was removed from it.
    """
    found = await read_from(
        request,
        services,
        lambda source: store.get_notification(source, request.auth.recipient_id, notification_id),
    )
    return found.with_picture_of(services.settings.avatar_hosts)


@patch(PATH + "{notification_id:int}/", opt=noted(fails=(409,)))
async def set_archived(
    request: PersonRequest,
    services: NamedDependency[Services],
    notification_id: RowId,
    data: JSONBody[ArchiveState],
) -> Notification:
    """Archive one, or bring it back.

    It is back as it was, read or unread. A 409 where it can't be in the inbox: it was cancelled or replaced.
    """
    change = archive_store.archive if data.archived else archive_store.unarchive
    found = await change(services.database, request.auth.recipient_id, notification_id)
    return found.with_picture_of(services.settings.avatar_hosts)


@delete(PATH + "{notification_id:int}/")
async def archive(
    request: PersonRequest, services: NamedDependency[Services], notification_id: RowId
) -> None:
    """Remove one from the inbox.

    It leaves list and badge; by its id and in the list of archived ones it is still found.
    """
    await archive_store.archive(services.database, request.auth.recipient_id, notification_id)


@patch(PATH + "{notification_id:int}/read/")
async def mark_read(
    request: PersonRequest,
    services: NamedDependency[Services],
    notification_id: RowId,
    data: JSONBody[ReadState | None] = None,
) -> Notification:
    """Mark one read, or unread."""
    found = await store.mark_read(
        services.database,
        request.auth.recipient_id,
        notification_id,
        read=(data or ReadState()).read,
    )
    return found.with_picture_of(services.settings.avatar_hosts)


@get(PATH + "{notification_id:int}/why/")
async def why(
    request: PersonRequest, services: NamedDependency[Services], notification_id: RowId
) -> Explanation:
    """Why did (not) this reach me?"""

    async def read_decisions(source: Queries) -> store.Decisions:
        decided = await store.why(source, [notification_id], recipient_id=request.auth.recipient_id)
        if notification_id not in decided:
            raise NotFound
        return decided[notification_id]

    return explain(await read_from(request, services, read_decisions))


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


ROUTERS = (
    people_router("Inbox", press_action, get_notification, set_archived, archive, mark_read, why),
)
