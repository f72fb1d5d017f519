"""Events of apps: lists, one event, cancelling and withdrawing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from litestar import post
from litestar.di import NamedDependency
from litestar.params import FromQuery, JSONBody, QueryParameter
from msgspec import Struct, convert, structs

from tocsin.engine.explain.why import ExplainedChannel, explain
from tocsin.engine.model import Invalid
from tocsin.engine.store import event as store
from tocsin.engine.store import notification as notifications
from tocsin.engine.store.credential import EVENTS_READ, EVENTS_WRITE
from tocsin.engine.store.event import (
    Event,
    EventFilter,
    EventSummary,
    check_filter,
)
from tocsin.http import fields
from tocsin.http.apps.post_event import PATH, AppRequest, post_event
from tocsin.http.auth import SCOPE, App, apps_router
from tocsin.http.errors import Forbidden
from tocsin.http.openapi import get, noted
from tocsin.http.requests import Services


class EventNotification(Struct, frozen=True):
    """What the recipient of the filter got of an event, and why."""

    id: int
    recipient: str | None
    channels: list[ExplainedChannel]


class ListedEvent(Struct, frozen=True):
    """One event of a list; `notification` only with the filter `recipient`."""

    id: int
    event_type: str
    title: str
    initiator: str | None
    caller: str
    created_at: datetime
    send_at: datetime | None
    cancelled_at: datetime | None
    notifications: int
    notification: EventNotification | None = None
    reason: str | None = None  # `initiator`: the recipient caused it, and was left out


class Cancelled(Struct, frozen=True):
    """How many deliveries stopped."""

    cancelled: int


class Withdrawal(Struct, frozen=True, forbid_unknown_fields=True):
    """What is gone."""

    subject: fields.Topic
    event_type: fields.EventTypeName | None = None


class Withdrawn(Struct, frozen=True):
    """How many events were cancelled."""

    withdrawn: int


class EventListing(Struct, frozen=True):
    """One page; `next` is older, `previous` newer."""

    results: list[ListedEvent]
    next: str | None
    previous: str | None


@get(PATH)
async def list_events(
    request: AppRequest,
    services: NamedDependency[Services],
    recipient: Annotated[
        str | None,
        QueryParameter(
            min_length=1,
            max_length=200,
            description="Only those of which this person was notified.",
        ),
    ] = None,
    event_type: FromQuery[fields.EventTypeName | None] = None,
    since: FromQuery[datetime | None] = None,
    limit: fields.Limit = 20,
    cursor: FromQuery[fields.CursorText | None] = None,
) -> EventListing:
    """List events.

    Newest first; with `recipient`, what that person was notified of and why.
    """
    place = fields.read_cursor(cursor)
    _check_filtered(request.auth, event_type)
    await check_filter(services.database, event_type, None)
    if since is not None and not 1970 <= since.year < 3000:
        raise Invalid("since is out of range", ("since", "Give a time from 1970 to 2999."))
    wanted = EventFilter(recipient, event_type, since)
    page = await store.list_events(services.database, wanted, cursor=place, limit=limit)
    kept = fields.without_nulls(
        limit=limit,
        recipient=recipient,
        event_type=event_type,
        since=since and since.astimezone(UTC).isoformat(),
    )
    older, newer = fields.page_links(services, PATH, page, kept)
    return EventListing(await _explained(services, page.results, recipient), older, newer)


@get(PATH + "{event_id:int}/")
async def get_event(
    request: AppRequest, services: NamedDependency[Services], event_id: fields.RowId
) -> Event:
    """Read an event.

    With the number of its deliveries by channel and state.
    """
    event = await store.get_event(services.database, event_id)
    request.auth.check_event_type(event.event_type)
    return event


@post(
    PATH + "{event_id:int}/cancel/",
    status_code=200,
    opt={SCOPE: EVENTS_WRITE, **noted(fails=(409,))},
)
async def cancel_event(
    request: AppRequest, services: NamedDependency[Services], event_id: fields.RowId
) -> Cancelled:
    """Cancel an event.

    What no provider has yet is stopped, and it leaves inboxes and badges. Repeated, it returns 0.
    """
    if request.auth.event_types is not None:
        event = await store.get_event(services.database, event_id)
        request.auth.check_event_type(event.event_type)
    return Cancelled(await store.cancel_event(services.database, event_id))


@post(
    PATH + "withdraw/",
    status_code=200,
    opt={SCOPE: EVENTS_WRITE},
)
async def withdraw_subject(
    request: AppRequest, services: NamedDependency[Services], data: JSONBody[Withdrawal]
) -> Withdrawn:
    """Withdraw a subject.

    The thing is gone: all events about it, or those of one type, are cancelled, also scheduled ones.
    """
    _check_filtered(request.auth, data.event_type)
    return Withdrawn(await store.withdraw(services.database, data.subject, data.event_type))


def _check_filtered(app: App, event_type: str | None) -> None:
    """Raises Forbidden where a key for some event types lists others: it has to name one of its own."""
    if event_type is not None:
        app.check_event_type(event_type)
    elif app.event_types is not None:
        allowed = ", ".join(app.event_types)
        raise Forbidden(f"The key is for event types like {allowed} only: give event_type.")


async def _explained(
    services: Services, events: list[EventSummary], recipient: str | None
) -> list[ListedEvent]:
    ids = [event.notification_id for event in events if event.notification_id is not None]
    decided = await notifications.why(services.database, ids) if ids else {}
    notified = {
        id_: EventNotification(id_, each.recipient_id, explain(each).channels)
        for id_, each in decided.items()
    }
    return [
        structs.replace(
            convert(event, ListedEvent, from_attributes=True),
            notification=notified.get(event.notification_id or 0),
            reason="initiator" if recipient and event.notification_id is None else None,
        )
        for event in events
    ]


ROUTERS = (
    apps_router(
        "Events",
        EVENTS_READ,
        post_event,
        list_events,
        get_event,
        cancel_event,
        withdraw_subject,
    ),
)
