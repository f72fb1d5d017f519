"""Creating an event: what apps post, and what a dry run returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from litestar import Request, Response, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import HeaderParameter
from msgspec import Meta, Struct, convert, structs

from tocsin.engine.model import Invalid
from tocsin.engine.store import event as store
from tocsin.engine.store.credential import EVENTS_WRITE
from tocsin.engine.store.database import Database
from tocsin.engine.store.event import (
    MissingRecipient,
    NewEvent,
    Previewed,
)
from tocsin.http import fields
from tocsin.http.auth import SCOPE, App
from tocsin.http.offload import Offload
from tocsin.http.openapi import OtherResponse, body_read_by_handler, noted
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
    timezone: fields.Zone | None = None
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
AppRequest = Request[Any, App, State]


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
) -> Response[Accepted | Preview]:
    """Send an event.

    For `recipients`, for those who follow a `topic`, or for whoever has an `email`, with an account or without; all or
    nothing. An object among the recipients creates a missing one and never overwrites. Calls with one Idempotency-Key
    send it once in 24 hours; `dry_run` stores nothing and returns what would be decided now.
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
                return await create_event(services.database, app, idempotency_key, posted)
    arguments = {"app": app, "key": idempotency_key}
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
        stored = await store.create_event(
            database, app.caller, event, people=people, idempotency_key=key
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
    fields = [(_KEY if name == "idempotency_key" else name, text) for name, text in error.fields]
    return Invalid(str(error), *fields)
