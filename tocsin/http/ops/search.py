"""Search by an id or an address, and the explanation of one notification."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from litestar.di import NamedDependency
from litestar.params import QueryParameter
from msgspec import Struct

from tocsin.engine.explain.why import ExplainedChannel, explain, mask
from tocsin.engine.model import NotFound
from tocsin.engine.store.database import Database
from tocsin.engine.store.event import Event, get_event
from tocsin.engine.store.notification import why
from tocsin.engine.store.operations import (
    PersonLine,
    ToldLine,
    find_person,
    notification_exists,
    notifications_of_event,
    notifications_of_person,
    recipients_with_address,
)
from tocsin.http.fields import RowId
from tocsin.http.openapi import get
from tocsin.http.requests import Services

TAG = "Operations"
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


class DeviceView(Struct, frozen=True):
    """One device; its token masked."""

    platform: str
    provider: str
    token: str
    registered_at: datetime
    disabled_at: datetime | None
    disabled_reason: str | None


class PersonView(Struct, frozen=True):
    """What decides what reaches a person; the address masked."""

    id: str
    email: str | None
    locale: str | None
    timezone: str | None
    created_at: datetime
    unread: int
    suppressed: str | None
    suppressed_at: datetime | None
    digest: str | None
    quiet_hours: bool
    devices: list[DeviceView]
    told: list[ToldLine]  # the newest first


class EventView(Struct, frozen=True):
    """An event, and the first people that were notified of it."""

    event: Event
    told: list[ToldLine]


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


@get(
    "/ops/api/search/",
    summary="Search",
    tags=[TAG],
    response_description="All matches.",
)
async def search(services: NamedDependency[Services], q: SearchText) -> Found:
    """People, an event, a notification."""
    text, database = q.strip(), services.database
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 0 < number <= _LAST_ID:
        number = 0
    ids = await recipients_with_address(database, text) if "@" in text else []
    people = [await _person(database, id_) for id_ in dict.fromkeys([text, *ids])]
    noted = number and await notification_exists(database, number)
    return Found(
        people=[each for each in people if each is not None],
        event=await _event(database, number) if number else None,
        notification_id=number if noted else None,
    )


@get(
    "/ops/api/notifications/{notification_id:int}/why/",
    summary="Explain a notification",
    tags=[TAG],
    response_description="Each channel's decision, and its deliveries.",
)
async def why_notification(notification_id: RowId, services: NamedDependency[Services]) -> WhyView:
    """Explains any notification to an operator."""
    told = (await why(services.database, [notification_id])).get(notification_id)
    if told is None:
        raise NotFound("There is no such notification.")
    return WhyView(
        id=notification_id,
        event_id=told.event_id,
        event_type=told.event_type,
        title=told.title,
        created_at=told.created_at,
        recipient_id=told.recipient_id,
        email=None if told.email is None else mask(told.email),
        channels=explain(told).channels,
    )


async def _person(database: Database, recipient_id: str) -> PersonView | None:
    found = await find_person(database, recipient_id)
    if found is None:
        return None
    return _person_view(found, await notifications_of_person(database, recipient_id, _LINES))


def _person_view(person: PersonLine, told: list[ToldLine]) -> PersonView:
    return PersonView(
        id=person.id,
        email=None if person.email is None else mask(person.email),
        locale=person.locale,
        timezone=person.timezone,
        created_at=person.created_at,
        unread=person.unread,
        suppressed=person.suppressed,
        suppressed_at=person.suppressed_at,
        digest=person.digest,
        quiet_hours=person.quiet_hours,
        devices=[
            DeviceView(
                each.platform,
                each.provider,
                mask(each.token),
                each.registered_at,
                each.disabled_at,
                each.disabled_reason,
            )
            for each in person.devices
        ],
        told=told,
    )


async def _event(database: Database, event_id: int) -> EventView | None:
    try:
        event = await get_event(database, event_id)
    except NotFound:
        return None
    return EventView(event, await notifications_of_event(database, event_id, _LINES))
