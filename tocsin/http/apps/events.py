"""Events: what apps tell, and what administrators look up."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any

from litestar import Request, Response, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath
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
    NewEvent,
    Person,
    Previewed,
    check_filter,
)
from tocsin.http import examples
from tocsin.http.apps.event_shapes import (
    AUDIENCES,
    Accepted,
    Cancelled,
    Decision,
    EventQuery,
    ListedEvent,
    NewRecipient,
    PostedEvent,
    Preview,
    Told,
)
from tocsin.http.auth import App
from tocsin.http.errors import Forbidden
from tocsin.http.fields import Listing, beside, plain, read_cursor
from tocsin.http.offload import Offload
from tocsin.http.operation import Answer, Operation, documented, get
from tocsin.http.requests import Services, count_containers, decode, read_query, reply, row_id

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
    opt=documented(
        Operation(
            summary="Tell an event",
            description=(
                "For `recipients`, for those who follow a `topic`, or for whoever has an `email`, with an account or "
                "without; all or nothing. An object among the recipients creates a missing one and never overwrites. "
                "Calls with one Idempotency-Key tell it once in 24 hours; `dry_run` stores nothing and answers what "
                "would be decided now."
            ),
            tag=TAG,
            body=PostedEvent,
            body_example=examples.EVENT,
            headers={_KEY: "1 to 255 characters; the same for each try of one call."},
            answers={
                202: Answer(
                    "Told.",
                    Accepted,
                    {"event_id": 311, "notifications": 2},
                    headers={
                        "Idempotent-Replayed": "`true` where the key's first call had told it."
                    },
                ),
                200: Answer("dry_run: the decisions.", Preview, examples.DRY_RUN),
            },
            fails=(409, 413),
        )
    ),
    request_max_body_size=LARGEST_BODY,
    status_code=202,
)
async def post_event(
    request: AppRequest, services: NamedDependency[Services], offload: NamedDependency[Offload]
) -> Response[bytes]:
    """Tells an event, in the subprocess where it or its response is large."""
    app, key = request.auth, request.headers.get(_KEY)
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
                return await tell(services.database, app, key, posted)
    arguments = {"app": app, "key": key}
    return await offload.respond("tell_event", arguments, start, body)


def _is_large(posted: PostedEvent) -> bool:
    """Whether the response is: a dry run's has a line for each recipient."""
    many = posted.topic is not None or len(posted.recipients or ()) > _MANY
    return posted.dry_run and many


async def tell_encoded(
    database: Database, arguments: Mapping[str, Any], raw: bytes
) -> Response[bytes]:
    """As `tell`, in the subprocess."""
    app = convert(arguments["app"], App)
    return await tell(database, app, arguments["key"], decode(raw, PostedEvent))


async def tell(
    database: Database, app: App, key: str | None, posted: PostedEvent
) -> Response[bytes]:
    """Tells an event of an app, once with that key; or responds with what would be decided."""
    _check_audience(posted)
    app.check_event_type(posted.event_type)
    event, people = _event(posted), _people(posted)
    if posted.dry_run:
        previewed = await store.preview(database, app.caller, event, people=people)
        return reply(_preview(posted, previewed))
    try:
        told = await store.tell(database, app.caller, event, people=people, idempotency_key=key)
    except Invalid as error:
        raise _in_http_terms(error) from error
    headers = {"Idempotent-Replayed": "true"} if told.replayed else {}
    return reply(Accepted(told.event_id, told.notifications), 202, headers)


@get(
    PATH,
    opt=documented(
        Operation(
            summary="List events",
            description="Newest first; with `recipient`, what that person was told and why.",
            tag=TAG,
            query=EventQuery,
            answers={200: Answer("A page.", Listing[ListedEvent], examples.TOLD_LISTING)},
        )
    ),
)
async def list_events(request: AppRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """A page of events."""
    query = read_query(request, EventQuery)
    cursor = read_cursor(query.cursor)
    _check_filtered(request.auth, query.event_type)
    await check_filter(services.database, query.event_type, None)
    if query.since is not None and not 1970 <= query.since.year < 3000:
        raise Invalid("since is out of range", ("since", "Give a time from 1970 to 2999."))
    wanted = EventFilter(query.recipient, query.event_type, query.since)
    page = await store.list_events(services.database, wanted, cursor=cursor, limit=query.limit)
    kept = plain(
        limit=query.limit,
        recipient=query.recipient,
        event_type=query.event_type,
        since=query.since and query.since.astimezone(UTC).isoformat(),
    )
    older, newer = beside(services, PATH, page, kept)
    return reply(Listing(await _explained(services, page.results, query.recipient), older, newer))


@get(
    PATH + "{event_id:int}/",
    opt=documented(
        Operation(
            summary="Read an event",
            description="With the number of its deliveries by channel and state.",
            tag=TAG,
            answers={200: Answer("The event.", Event, examples.TOLD)},
        )
    ),
)
async def get_event(
    request: AppRequest, services: NamedDependency[Services], event_id: FromPath[int]
) -> Response[bytes]:
    """One event."""
    event = await store.get_event(services.database, row_id(event_id))
    request.auth.check_event_type(event.event_type)
    return reply(event)


@post(
    PATH + "{event_id:int}/cancel/",
    opt=documented(
        Operation(
            summary="Take an event back",
            description="What no provider has yet is stopped, and it leaves inboxes and badges. Again, it answers 0.",
            tag=TAG,
            answers={200: Answer("How many deliveries stopped.", Cancelled, {"cancelled": 2})},
            fails=(409,),
        )
    ),
    status_code=200,
)
async def cancel_event(
    request: AppRequest, services: NamedDependency[Services], event_id: FromPath[int]
) -> Response[bytes]:
    """Takes an event back."""
    if request.auth.event_types is not None:
        event = await store.get_event(services.database, row_id(event_id))
        request.auth.check_event_type(event.event_type)
    return reply(Cancelled(await store.cancel_event(services.database, row_id(event_id))))


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


def _people(posted: PostedEvent) -> list[Person]:
    return [
        Person(
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
    told = {
        id_: Told(id_, each.recipient_id, explain(each).channels) for id_, each in decided.items()
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
            told.get(event.notification_id or 0),
            "initiator" if recipient and event.notification_id is None else None,
        )
        for event in events
    ]


def _in_http_terms(error: Invalid) -> Invalid:
    """The key is an argument in SQL and a header here."""
    fields = [(_KEY if name == "idempotency_key" else name, text) for name, text in error.fields]
    return Invalid(str(error), *fields)
