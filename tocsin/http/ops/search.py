"""Search: whoever or whatever an id or an address stands for, and why it went as it did."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from litestar import Response
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Meta, Struct

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
from tocsin.http.errors import AnyRequest
from tocsin.http.operation import Answer, Operation, documented, get
from tocsin.http.requests import Services, read_query, reply, row_id

TAG = "Operations"
_LINES = 25
_LAST_ID = 2**63 - 1


class SearchQuery(Struct, frozen=True):
    """What to look for."""

    q: Annotated[
        str,
        Meta(
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
    """An event, and the first ones whom it was told to."""

    event: Event
    told: list[ToldLine]


class Found(Struct, frozen=True):
    """All that it may stand for."""

    people: list[PersonView]
    event: EventView | None
    notification_id: int | None


class WhyView(Struct, frozen=True):
    """Why one notification went as it did."""

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
    opt=documented(
        Operation(
            summary="Look something up",
            tag=TAG,
            query=SearchQuery,
            answers={200: Answer("All that it may stand for.", Found)},
        )
    ),
)
async def search(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """People, an event, a notification."""
    asked, database = read_query(request, SearchQuery).q.strip(), services.database
    number = int(asked) if asked.isascii() and asked.isdigit() else 0
    if not 0 < number <= _LAST_ID:
        number = 0
    ids = await recipients_with_address(database, asked) if "@" in asked else []
    people = [await _person(database, id_) for id_ in dict.fromkeys([asked, *ids])]
    noted = number and await notification_exists(database, number)
    return reply(
        Found(
            people=[each for each in people if each is not None],
            event=await _event(database, number) if number else None,
            notification_id=number if noted else None,
        )
    )


@get(
    "/ops/api/notifications/{notification_id:int}/why/",
    opt=documented(
        Operation(
            summary="Why did it go as it did?",
            tag=TAG,
            answers={200: Answer("Each channel's decision, and its deliveries.", WhyView)},
        )
    ),
)
async def why_notification(
    notification_id: FromPath[int], services: NamedDependency[Services]
) -> Response[bytes]:
    """Anybody's, for an operator."""
    id_ = row_id(notification_id)
    told = (await why(services.database, [id_])).get(id_)
    if told is None:
        raise NotFound("There is no such notification.")
    return reply(
        WhyView(
            id=id_,
            event_id=told.event_id,
            event_type=told.event_type,
            title=told.title,
            created_at=told.created_at,
            recipient_id=told.recipient_id,
            email=None if told.email is None else mask(told.email),
            channels=explain(told).channels,
        )
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
