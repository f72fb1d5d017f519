"""What goes in and out of the events' calls."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct

from tocsin.engine.explain.why import ExplainedChannel
from tocsin.http.fields import (
    ActionUrl,
    Address,
    Body,
    BodyHtml,
    CursorText,
    EventTypeName,
    Id,
    Limit,
    Locale,
    Name,
    Title,
    Topic,
    Zone,
)

Moment = Annotated[datetime, Meta(tz=True)]


# whom an event may be told: exactly one of these
AUDIENCES = ("recipients", "topic", "email")
MOST_RECIPIENTS = 100_000


class NewRecipient(Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody to create where nobody is known by that id; a known one stays as it is."""

    id: Id
    email: Address | None = None
    name: Name | None = None
    locale: Locale | None = None
    timezone: Zone | None = None


class PostedEvent(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happened."""

    event_type: EventTypeName
    recipients: Annotated[list[Id | NewRecipient], Meta(max_length=MOST_RECIPIENTS)] | None = None
    topic: Annotated[Topic, Meta(description="Its followers, in place of recipients.")] | None = (
        None
    )
    email: Annotated[Address, Meta(description="An address, in place of recipients.")] | None = None
    title: Title
    body: Body = ""
    body_html: BodyHtml | None = None
    action_url: ActionUrl | None = None
    metadata: dict[str, Any] = {}
    initiator: Id | None = None
    send_at: Moment | None = None
    subscribe_initiator: Annotated[
        bool, Meta(description="The initiator follows the topic from then on.")
    ] = False
    dry_run: bool = False


class Accepted(Struct, frozen=True):
    """The event, and how many people it was told."""

    event_id: int
    notifications: int


class Decision(Struct, frozen=True):
    """What is decided for one channel; `scope` is the preference's."""

    decision: str
    reason: str
    scope: str | None = None


class Preview(Struct, frozen=True):
    """What would be decided, by recipient and channel."""

    event_id: None
    notifications: int
    decisions: dict[str, dict[str, Decision]]


class Told(Struct, frozen=True):
    """What the asked-for recipient got of an event, and why."""

    id: int
    recipient: str | None
    channels: list[ExplainedChannel]


class ListedEvent(Struct, frozen=True):
    """One event of a list; `notification` only where a recipient was asked for."""

    id: int
    event_type: str
    title: str
    initiator: str | None
    caller: str
    created_at: datetime
    send_at: datetime | None
    cancelled_at: datetime | None
    notifications: int
    notification: Told | None = None
    reason: str | None = None  # `initiator`: the recipient caused it, and was left out


class Cancelled(Struct, frozen=True):
    """How many deliveries stopped."""

    cancelled: int


class EventQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which events."""

    recipient: Annotated[Id, Meta(description="Only those told to this person.")] | None = None
    event_type: EventTypeName | None = None
    since: Moment | None = None
    limit: Limit = 20
    cursor: CursorText | None = None
