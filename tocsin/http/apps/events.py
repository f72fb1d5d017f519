"""Events: what apps send, and what administrators look up."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from litestar import Request, Response, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromQuery, HeaderParameter, QueryParameter
from msgspec import convert

from tocsin.engine.explain.why import explain
from tocsin.engine.model import Invalid
from tocsin.engine.store import event as store
from tocsin.engine.store import notification as notifications
from tocsin.engine.store.database import Database
from tocsin.engine.store.event import (
    Event,
    EventFilter,
    EventSummary,
    MissingRecipient,
    NewEvent,
    Previewed,
    check_filter,
)
from tocsin.http import examples
from tocsin.http.apps.event_shapes import (
    AUDIENCES,
    Accepted,
    Cancelled,
    Decision,
    EventListing,
    EventNotification,
    ListedEvent,
    NewRecipient,
    PostedEvent,
    Preview,
)
from tocsin.http.auth import App
from tocsin.http.errors import Forbidden
from tocsin.http.fields import (
    CursorText,
    EventTypeName,
    Limit,
    RowId,
    page_links,
    read_cursor,
    without_nulls,
)
from tocsin.http.offload import Offload
from tocsin.http.openapi import OtherResponse, body_read_by_handler, get, noted
from tocsin.http.requests import Services, count_containers, decode

PATH = "/api/events/"
TAG = "Events"
LARGEST_BODY = 16_000_000  # bytes: 100,000 recipients as objects
_LARGE_BODY = 16_000  # bytes; more is for the subprocess
_MANY_CONTAINERS = 500  # objects and lists of a body; more is too
_MANY = 100  # recipients of a dry run
_KEY = "Idempotency-Key"

AppRequest = Request[Any, App, State]


@post(
    PATH,
    summary="Send an event",
    description="For `recipients`, for those who follow a `topic`, or for whoever has an `email`, with an account or "
    "without; all or nothing. An object among the recipients creates a missing one and never overwrites. "
    "Calls with one Idempotency-Key send it once in 24 hours; `dry_run` stores nothing and returns what "
    "would be decided now.",
    tags=[TAG],
    status_code=202,
    responses={
        202: OtherResponse(
            "Accepted.",
            Accepted,
            {"event_id": 311, "notifications": 2},
            headers={"Idempotent-Replayed": "`true` where the key's first call had sent it."},
        ),
        200: OtherResponse("dry_run: the decisions.", Preview, examples.DRY_RUN),
    },
    dependencies=body_read_by_handler(PostedEvent),
    request_max_body_size=LARGEST_BODY,
    opt=noted(body=examples.POSTED_EVENT, fails=(409, 413)),
)
async def post_event(
    request: AppRequest,
    services: NamedDependency[Services],
    offload: NamedDependency[Offload],
    idempotency_key: Annotated[
        str | None,
        HeaderParameter(
            name=_KEY, description="1 to 255 characters; the same for each try of one call."
        ),
    ] = None,
) -> Response[Accepted | Preview]:
    """Creates an event, in the subprocess where it or its response is large."""
    app = request.auth
    body, start, size = request.stream(), [], 0
    async for chunk in body:
        start.append(chunk)
        size += len(chunk)
        if size > _LARGE_BODY:
            break
    else:
        raw = b"".join(start)
        if count_containers(raw) <= _MANY_CONTAINERS:
            posted = decode(raw, PostedEvent)
            if not _is_large(posted):
                return await create_event(services.database, app, idempotency_key, posted)
    arguments = {"app": app, "key": idempotency_key}
    return await offload.respond("create_event", arguments, start, body)


def _is_large(posted: PostedEvent) -> bool:
    """Whether the response is: a dry run's has a line for each recipient."""
    many = posted.topic is not None or len(posted.recipients or ()) > _MANY
    return posted.dry_run and many


async def create_encoded_event(
    database: Database, arguments: Mapping[str, Any], raw: bytes
) -> Response[Accepted | Preview]:
    """As `create_event`, in the subprocess."""
    app = convert(arguments["app"], App)
    return await create_event(database, app, arguments["key"], decode(raw, PostedEvent))


async def create_event(
    database: Database, app: App, key: str | None, posted: PostedEvent
) -> Response[Accepted | Preview]:
    """Creates an event of an app, once with that key; or returns what would be decided."""
    _check_audience(posted)
    app.check_event_type(posted.event_type)
    event, people = _event(posted), _people(posted)
    if posted.dry_run:
        previewed = await store.preview(database, app.caller, event, people=people)
        return Response(_preview(posted, previewed), status_code=200)
    try:
        stored = await store.tell(database, app.caller, event, people=people, idempotency_key=key)
    except Invalid as error:
        raise _in_http_terms(error) from error
    headers = {"Idempotent-Replayed": "true"} if stored.replayed else {}
    return Response(
        Accepted(stored.event_id, stored.notifications), status_code=202, headers=headers
    )


@get(
    PATH,
    summary="List events",
    description="Newest first; with `recipient`, what that person was notified of and why.",
    tags=[TAG],
    response_description="A page.",
    opt=noted(example=examples.EVENT_LISTING),
)
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
    event_type: FromQuery[EventTypeName | None] = None,
    since: FromQuery[datetime | None] = None,
    limit: Limit = 20,
    cursor: FromQuery[CursorText | None] = None,
) -> EventListing:
    """A page of events."""
    place = read_cursor(cursor)
    _check_filtered(request.auth, event_type)
    await check_filter(services.database, event_type, None)
    if since is not None and not 1970 <= since.year < 3000:
        raise Invalid("since is out of range", ("since", "Give a time from 1970 to 2999."))
    wanted = EventFilter(recipient, event_type, since)
    page = await store.list_events(services.database, wanted, cursor=place, limit=limit)
    kept = without_nulls(
        limit=limit,
        recipient=recipient,
        event_type=event_type,
        since=since and since.astimezone(UTC).isoformat(),
    )
    older, newer = page_links(services, PATH, page, kept)
    return EventListing(await _explained(services, page.results, recipient), older, newer)


@get(
    PATH + "{event_id:int}/",
    summary="Read an event",
    description="With the number of its deliveries by channel and state.",
    tags=[TAG],
    response_description="The event.",
    opt=noted(example=examples.EVENT),
)
async def get_event(
    request: AppRequest, services: NamedDependency[Services], event_id: RowId
) -> Event:
    """One event."""
    event = await store.get_event(services.database, event_id)
    request.auth.check_event_type(event.event_type)
    return event


@post(
    PATH + "{event_id:int}/cancel/",
    summary="Cancel an event",
    description="What no provider has yet is stopped, and it leaves inboxes and badges. Repeated, it returns 0.",
    tags=[TAG],
    response_description="How many deliveries stopped.",
    status_code=200,
    opt=noted(example={"cancelled": 2}, fails=(409,)),
)
async def cancel_event(
    request: AppRequest, services: NamedDependency[Services], event_id: RowId
) -> Cancelled:
    """Cancels an event."""
    if request.auth.event_types is not None:
        event = await store.get_event(services.database, event_id)
        request.auth.check_event_type(event.event_type)
    return Cancelled(await store.cancel_event(services.database, event_id))


def _check_filtered(app: App, event_type: str | None) -> None:
    """Raises Forbidden where a key for some event types lists others: it has to name one of its own."""
    if event_type is not None:
        app.check_event_type(event_type)
    elif app.event_types is not None:
        allowed = ", ".join(app.event_types)
        raise Forbidden(f"The key is for event types like {allowed} only: give event_type.")


def _check_audience(posted: PostedEvent) -> None:
    """Raises Invalid unless it is for exactly one of recipients, a topic and an address."""
    given = [name for name in AUDIENCES if getattr(posted, name, None) is not None]
    if len(given) != 1:
        cure = "Give exactly one of recipients, topic and email."
        raise Invalid(
            f"it is for {' and '.join(given) or 'nobody'}",
            *((name, cure) for name in given or AUDIENCES[:1]),
        )
    if posted.subscribe_initiator and posted.topic is None:
        raise Invalid(
            "there is no topic to subscribe to",
            ("subscribe_initiator", "It goes with a topic: give one, or leave it out."),
        )


def _event(posted: PostedEvent) -> NewEvent:
    return NewEvent(
        event_type=posted.event_type,
        recipients=[each if isinstance(each, str) else each.id for each in posted.recipients or ()],
        topic=posted.topic,
        email=posted.email,
        title=posted.title,
        body=posted.body,
        action_url=posted.action_url,
        metadata=posted.metadata,
        initiator=posted.initiator,
        body_html=posted.body_html,
        send_at=posted.send_at,
        subscribe_initiator=posted.subscribe_initiator,
    )


def _people(posted: PostedEvent) -> list[MissingRecipient]:
    return [
        MissingRecipient(
            at=at,
            id=each.id,
            email=each.email,
            name=each.name,
            locale=each.locale,
            timezone=each.timezone,
        )
        for at, each in enumerate(posted.recipients or ())
        if isinstance(each, NewRecipient)
    ]


def _preview(posted: PostedEvent, previewed: Previewed) -> Preview:
    decisions = {
        person.recipient_id: {
            channel: Decision(*parts) for channel, parts in person.decisions.items()
        }
        for person in previewed.decided
    }
    if previewed.initiator_skipped:
        channels = next(iter(decisions.values()), {"in_app": None})
        initiator = dict.fromkeys(channels, Decision("off", "initiator"))
        decisions[str(posted.initiator)] = initiator
    return Preview(None, previewed.notifications, decisions)


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
        ListedEvent(
            event.id,
            event.event_type,
            event.title,
            event.initiator,
            event.caller,
            event.created_at,
            event.send_at,
            event.cancelled_at,
            event.notifications,
            notified.get(event.notification_id or 0),
            "initiator" if recipient and event.notification_id is None else None,
        )
        for event in events
    ]


def _in_http_terms(error: Invalid) -> Invalid:
    """The key is an argument in SQL and a header here."""
    fields = [(_KEY if name == "idempotency_key" else name, text) for name, text in error.fields]
    return Invalid(str(error), *fields)
