"""Events of apps: created or previewed, listed, read, cancelled and withdrawn."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import FromQuery, HeaderParameter, JSONBody, QueryParameter
from msgspec import Meta, Struct, convert, structs

from tocsin.engine.explain.why import ExplainedChannel, explain
from tocsin.engine.model import Invalid
from tocsin.engine.store import event as store
from tocsin.engine.store import notification as notifications
from tocsin.engine.store.credential import EVENTS_READ, EVENTS_WRITE
from tocsin.engine.store.database import Database, Queries
from tocsin.engine.store.event import (
    Event,
    EventFilter,
    EventOfList,
    EventSummary,
    MissingRecipient,
    NewEvent,
    Previewed,
    check_filter,
)
from tocsin.engine.store.pagination import Page
from tocsin.http import fields
from tocsin.http.auth import SCOPE, App, AppRequest, apps_router
from tocsin.http.errors import Forbidden
from tocsin.http.offload import Offload
from tocsin.http.openapi import OtherResponse, body_read_by_handler, get, noted
from tocsin.http.positions import read_from
from tocsin.http.requests import Moment, Services, count_containers, decode

# for whom an event may be: exactly one of these
AUDIENCES = ("recipients", "topic", "email")
MOST_RECIPIENTS = 100_000


class NewRecipient(Struct, frozen=True, forbid_unknown_fields=True):
    """A recipient that is created if the id is unknown; a known one stays as it is."""

    id: fields.Id
    email: fields.Address | None = None
    name: fields.Name | None = None
    locale: fields.Locale | None = None
    timezone: fields.ZoneName | None = None
    avatar_url: fields.AvatarUrl | None = None


class PostedEvent(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happened."""

    event_type: fields.EventTypeName
    recipients: (
        Annotated[list[fields.Id | NewRecipient], Meta(max_length=MOST_RECIPIENTS)] | None
    ) = None
    topic: Annotated[
        fields.Topic | None, fields.Described(description="Its followers, in place of recipients.")
    ] = None
    email: Annotated[
        fields.Address | None, fields.Described(description="An address, in place of recipients.")
    ] = None
    title: fields.Title
    body: fields.Body = ""
    body_html: fields.BodyHtml | None = None
    action_url: fields.ActionUrl | None = None
    metadata: dict[str, Any] = {}
    initiator: fields.Id | None = None
    send_at: Moment | None = None
    subscribe_initiator: Annotated[
        bool, Meta(description="The initiator follows the topic from then on.")
    ] = False
    subject: Annotated[
        fields.Topic | None,
        fields.Described(
            description="What it is about; of a topic's event its topic, if none is given."
        ),
    ] = None
    replaces: Annotated[
        bool,
        Meta(description="Earlier unread ones of the same person, type and subject leave."),
    ] = False
    content: dict[str, Any] | None = None
    actions: list[dict[str, Any]] | None = None
    unknown: Annotated[
        Literal["error", "create", "skip"],
        Meta(description="What an unknown recipient means."),
    ] = "error"
    dry_run: bool = False


class Accepted(Struct, frozen=True):
    """The event, and how many people are notified of it."""

    event_id: int
    notifications: int


class ChannelDecision(Struct, frozen=True):
    """What is decided for one channel; `scope` is the preference's."""

    decision: str
    reason: str
    scope: str | None = None


class Preview(Struct, frozen=True):
    """What would be decided, by recipient and channel."""

    event_id: None
    notifications: int
    decisions: dict[str, dict[str, ChannelDecision]]


PATH = "/api/events/"
LARGEST_BODY = 16_000_000  # bytes: 100,000 recipients as objects
_LARGE_BODY = 16_000  # bytes; more is for the subprocess
_MANY_CONTAINERS = 500  # objects and lists of a body; more is too
_MANY = 100  # recipients of a dry run
_KEY = "Idempotency-Key"


@post(
    PATH,
    status_code=202,
    responses={
        202: OtherResponse(
            "Accepted.",
            Accepted,
            headers={"Idempotent-Replayed": "`true` where the key's first call had sent it."},
        ),
        200: OtherResponse("dry_run: the decisions.", Preview),
    },
    dependencies=body_read_by_handler(PostedEvent),
    request_max_body_size=LARGEST_BODY,
    opt={SCOPE: EVENTS_WRITE, **noted(fails=(409, 413))},
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
    traceparent: Annotated[
        str | None,
        HeaderParameter(
            name="traceparent",
            description="The span of the app, by W3C Trace Context; ignored where it is not as defined there.",
        ),
    ] = None,
) -> Response[Accepted | Preview]:
    """Send an event.

    The event is for `recipients`, for the followers of a `topic`, or for the person with the address `email`, who
    needs no account. Either all of it is stored, or nothing. An object among the recipients creates a person whose
    id is unknown, and changes no known one. Calls with one Idempotency-Key send the event once in 24 hours;
    `dry_run` stores nothing and returns what would be decided now.
    """
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
                return await create_event(
                    services.database, app, idempotency_key, posted, traceparent=traceparent
                )
    arguments = {"app": app, "key": idempotency_key, "traceparent": traceparent}
    return await offload.respond("create_event", arguments, start, body)


def _is_large(posted: PostedEvent) -> bool:
    """Returns whether the response may be large: that of a dry run has a line for each recipient."""
    many = posted.topic is not None or len(posted.recipients or ()) > _MANY
    return posted.dry_run and many


async def create_encoded_event(
    database: Database, arguments: Mapping[str, Any], raw: bytes
) -> Response[Accepted | Preview]:
    """Creates an event as `create_event` does, in the subprocess."""
    app = convert(arguments["app"], App)
    posted, traceparent = decode(raw, PostedEvent), arguments["traceparent"]
    return await create_event(database, app, arguments["key"], posted, traceparent=traceparent)


async def create_event(
    database: Database,
    app: App,
    key: str | None,
    posted: PostedEvent,
    *,
    traceparent: str | None = None,
) -> Response[Accepted | Preview]:
    """Creates an event of an app, once with that key; or returns what would be decided."""
    _check_audience(posted)
    app.check_event_type(posted.event_type)
    event, people = _event(posted), _people(posted)
    if posted.dry_run:
        previewed = await store.preview(database, app.caller, event, people=people)
        return Response(_preview(posted, previewed), status_code=200)
    try:
        stored = await store.create_event(
            database,
            app.caller,
            event,
            people=people,
            idempotency_key=key,
            traceparent=traceparent,
        )
    except Invalid as error:
        raise _in_http_terms(error) from error
    headers = {"Idempotent-Replayed": "true"} if stored.replayed else {}
    return Response(
        Accepted(stored.event_id, stored.notifications), status_code=202, headers=headers
    )


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
    fields = {name: getattr(posted, name) for name in NewEvent.__struct_fields__}
    ids = [each if isinstance(each, str) else each.id for each in posted.recipients or ()]
    return NewEvent(**fields | {"recipients": ids})


def _people(posted: PostedEvent) -> list[MissingRecipient]:
    return [
        MissingRecipient(at=at, **structs.asdict(each))
        for at, each in enumerate(posted.recipients or ())
        if isinstance(each, NewRecipient)
    ]


def _preview(posted: PostedEvent, previewed: Previewed) -> Preview:
    decisions = {
        person.recipient_id: {
            channel: ChannelDecision(*parts) for channel, parts in person.decisions.items()
        }
        for person in previewed.decided
    }
    if previewed.initiator_skipped:
        channels = next(iter(decisions.values()), {"in_app": None})
        initiator = dict.fromkeys(channels, ChannelDecision("off", "initiator"))
        decisions[str(posted.initiator)] = initiator
    return Preview(None, previewed.notifications, decisions)


def _in_http_terms(error: Invalid) -> Invalid:
    """Returns the error for HTTP, where the key is a header and no argument."""
    argument = "idempotency_key"
    if all(name != argument for name, _ in error.fields):
        return error
    fields = [(_KEY, text.replace(argument, _KEY)) for _, text in error.fields]
    return Invalid(str(error).replace(argument, _KEY), *fields)


class EventNotification(Struct, frozen=True):
    """What the recipient of the filter got of an event, and why."""

    id: int
    recipient: str | None
    channels: list[ExplainedChannel]


class ListedEvent(EventOfList, frozen=True):
    """One event of a list; `notification` only with the filter `recipient`."""

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
    if since is not None and not 1970 <= since.year < 3000:
        raise Invalid("since is out of range", ("since", "Give a time from 1970 to 2999."))
    wanted = EventFilter(recipient, event_type, since)

    async def read_page(source: Queries) -> tuple[Page[EventSummary], list[ListedEvent]]:
        await check_filter(source, event_type, None)
        page = await store.list_events(source, wanted, cursor=place, limit=limit)
        return page, await _explained(source, page.results, recipient)

    page, results = await read_from(request, services, read_page)
    kept = fields.without_nulls(
        limit=limit,
        recipient=recipient,
        event_type=event_type,
        since=since and since.astimezone(UTC).isoformat(),
    )
    older, newer = fields.page_links(services, PATH, page, kept)
    return EventListing(results, older, newer)


@get(PATH + "{event_id:int}/")
async def get_event(
    request: AppRequest, services: NamedDependency[Services], event_id: fields.RowId
) -> Event:
    """Read an event.

    The response has the number of its deliveries by channel and state.
    """
    event = await read_from(request, services, lambda source: store.get_event(source, event_id))
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

    For a thing that no longer exists: all events about it, or those of one type, are cancelled, also scheduled
    ones.
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
    source: Queries, events: list[EventSummary], recipient: str | None
) -> list[ListedEvent]:
    ids = [event.notification_id for event in events if event.notification_id is not None]
    decided = await notifications.why(source, ids) if ids else {}
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
