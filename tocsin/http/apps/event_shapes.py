"""Bodies and responses of the events' calls."""

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
    Described,
    EventTypeName,
    Id,
    Locale,
    Name,
    Title,
    Topic,
    Zone,
)
from tocsin.http.requests import Moment

# for whom an event may be: exactly one of these
AUDIENCES = ("recipients", "topic", "email")
MOST_RECIPIENTS = 100_000


class NewRecipient(Struct, frozen=True, forbid_unknown_fields=True):
    """A recipient that is created if the id is unknown; a known one stays as it is."""

    id: Id
    email: Address | None = None
    name: Name | None = None
    locale: Locale | None = None
    timezone: Zone | None = None


class PostedEvent(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happened."""

    event_type: EventTypeName
    recipients: Annotated[list[Id | NewRecipient], Meta(max_length=MOST_RECIPIENTS)] | None = None
    topic: Annotated[
        Topic | None, Described(description="Its followers, in place of recipients.")
    ] = None
    email: Annotated[
        Address | None, Described(description="An address, in place of recipients.")
    ] = None
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
    """The event, and how many people are notified of it."""

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


class EventListing(Struct, frozen=True):
    """One page; `next` is older, `previous` newer."""

    results: list[ListedEvent]
    next: str | None
    previous: str | None
