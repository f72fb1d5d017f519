"""Search by an id or an address, and the explanation of one notification."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from litestar.di import NamedDependency
from litestar.params import QueryParameter
from msgspec import Struct, structs

from tocsin.engine.explain.why import ExplainedChannel, explain, mask
from tocsin.engine.model import NotFound
from tocsin.engine.store import operations as store
from tocsin.engine.store.database import Database
from tocsin.engine.store.event import Event, get_event
from tocsin.engine.store.notification import why
from tocsin.http.fields import RowId
from tocsin.http.openapi import get
from tocsin.http.ops.ops_page import ops_router
from tocsin.http.requests import Services

_LINES = 25
_LAST_ID = 2**63 - 1
SearchText = Annotated[
    str,
    QueryParameter(
        min_length=1,
        max_length=320,
        description="The id of a recipient, an event or a notification, or an email address.",
    ),
]


class PersonView(store.PersonLine, frozen=True):
    """What decides what reaches a person; the address and the tokens masked."""

    notifications: list[store.NotificationLine]  # the newest first


class EventView(Struct, frozen=True):
    """An event, and the first people that were notified of it."""

    event: Event
    notifications: list[store.NotificationLine]


class Found(Struct, frozen=True):
    """All matches."""

    people: list[PersonView]
    event: EventView | None
    notification_id: int | None


class WhyView(Struct, frozen=True):
    """The explanation of one notification."""

    id: int
    event_id: int
    event_type: str
    title: str
    created_at: datetime
    recipient_id: str | None  # null for an address without an account
    email: str | None  # that address, masked
    channels: list[ExplainedChannel]


@get("/ops/api/search/")
async def search(services: NamedDependency[Services], q: SearchText) -> Found:
    """Search."""
    text, database = q.strip(), services.database
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 0 < number <= _LAST_ID:
        number = 0
    ids = await store.recipients_with_address(database, text) if "@" in text else []
    people = [await _person(database, id_) for id_ in dict.fromkeys([text, *ids])]
    exists = number and await store.notification_exists(database, number)
    return Found(
        people=[each for each in people if each is not None],
        event=await _event(database, number) if number else None,
        notification_id=number if exists else None,
    )


@get("/ops/api/notifications/{notification_id:int}/why/")
async def why_notification(notification_id: RowId, services: NamedDependency[Services]) -> WhyView:
    """Explain a notification."""
    found = (await why(services.database, [notification_id])).get(notification_id)
    if found is None:
        raise NotFound("There is no such notification.")
    return WhyView(
        id=notification_id,
        event_id=found.event_id,
        event_type=found.event_type,
        title=found.title,
        created_at=found.created_at,
        recipient_id=found.recipient_id,
        email=found.email and mask(found.email),
        channels=explain(found).channels,
    )


async def _person(database: Database, recipient_id: str) -> PersonView | None:
    found = await store.find_person(database, recipient_id)
    if found is None:
        return None
    masked = structs.replace(
        found,
        email=found.email and mask(found.email),
        devices=[structs.replace(each, token=mask(each.token)) for each in found.devices],
    )
    lines = await store.notifications_of_person(database, recipient_id, _LINES)
    return PersonView(**structs.asdict(masked), notifications=lines)


async def _event(database: Database, event_id: int) -> EventView | None:
    try:
        event = await get_event(database, event_id)
    except NotFound:
        return None
    return EventView(event, await store.notifications_of_event(database, event_id, _LINES))


ROUTERS = (ops_router(search, why_notification),)
