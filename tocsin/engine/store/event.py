"""Events as apps create them and administrators look them up, and the catalogue of event types."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg
from msgspec import Struct, structs
from psycopg.types.json import Jsonb

from tocsin.engine.model import EventType, Invalid, NotFound
from tocsin.engine.store.database import Database, Queries, Session
from tocsin.engine.store.pagination import Cursor, Page
from tocsin.sql import load

_SQL = load("event")
_TRACEPARENT = 56  # characters: one more than it has, so that a longer one is not valid
_SUBJECT = re.compile(r"[A-Za-z0-9._:/-]{1,200}")


async def list_event_types(database: Database) -> list[EventType]:
    """Returns all that are not retired, in the catalogue's order."""
    return await database.rows(EventType, _SQL["list_event_types"])


async def get_event_type(database: Database, event_type: str) -> EventType:
    """Returns one, retired or not; raises NotFound."""
    found = await database.row(EventType, _SQL["get_event_type"], event_type=event_type)
    if found is None:
        raise NotFound("There is no such event type.")
    return found


async def check_filter(
    database: Queries, event_type: str | None, category: str | None, subject: str | None = None
) -> None:
    """Raises Invalid for names that can't be there: an empty list would hide the mistake."""
    if subject is not None and not _SUBJECT.fullmatch(subject):
        raise Invalid(
            "subject is not 1 to 200 characters of A-Z a-z 0-9 . _ : / -",
            ("subject", "Name the thing that it is about, such as forum.thread:42."),
        )
    wrong: list[tuple[str, str]] = []
    if event_type is not None:
        near = await database.value(_SQL["nearest_event_types"], event_type=event_type)
        if near is not None:
            wrong.append(("event_type", f"No such event type. The nearest known ones: {near}."))
    if category is not None:
        known = await database.value(_SQL["categories_without"], category=category)
        if known is not None:
            wrong.append(("category", f"No such category. There are: {known}."))
    if wrong:
        raise Invalid("the filter names what is not in the catalogue", *wrong)


class NewEvent(Struct, frozen=True, kw_only=True):
    """An event as an app reports it; see tocsin.notify."""

    event_type: str
    recipients: list[str] = []
    topic: str | None = None  # in place of recipients: its followers
    email: str | None = None  # in place of recipients: the person with this address
    title: str
    body: str = ""
    action_url: str | None = None
    metadata: dict[str, Any] = {}
    initiator: str | None = None
    body_html: str | None = None
    send_at: datetime | None = None
    subscribe_initiator: bool = False  # to the topic
    subject: str | None = None  # what it is about; of a topic's event its topic
    replaces: bool = False  # earlier unread ones of the same person, type and subject
    content: dict[str, Any] | None = None  # other texts for channels and languages
    actions: list[dict[str, Any]] | None = None  # one to three buttons
    unknown: str = "error"  # or create, or skip: what an unknown recipient means


class MissingRecipient(Struct, frozen=True, kw_only=True):
    """A person to create unless the id is known; `at` is the index in the caller's list, for errors."""

    at: int
    id: str
    email: str | None = None
    name: str | None = None
    locale: str | None = None
    timezone: str | None = None
    avatar_url: str | None = None


class CreatedEvent(Struct, frozen=True):
    """The result of creating an event."""

    event_id: int
    notifications: int
    replayed: bool


class Decided(Struct, frozen=True):
    """What was decided for one person: {channel: [decision, reason] or [decision, reason, scope]}.

    `recipient_id` is the address of a person without an account.
    """

    recipient_id: str
    decisions: dict[str, list[str]]


class Previewed(Struct, frozen=True):
    """What the creation of an event would result in; of a large fan-out, what is decided for the first people."""

    notifications: int
    initiator_skipped: bool
    decided: list[Decided]


class Event(Struct, frozen=True):
    """One event with the states of its deliveries."""

    id: int
    event_type: str
    title: str
    topic: str | None  # whose followers it was for
    subject: str | None
    initiator: str | None
    initiator_skipped: bool  # the initiator was a recipient, and was not notified
    unknown_skipped: int  # recipients of unknown ids that were left out
    caller: str  # role:… or key:…
    created_at: datetime
    send_at: datetime | None
    fanned_out_at: datetime | None
    cancelled_at: datetime | None
    notifications: int
    fanned_out: int  # how many people were notified so far
    total: int | None  # of how many; None: of a scheduled event it is known at its time
    deliveries: dict[str, dict[str, int]]  # {channel: {state: n}}
    mail_events: dict[str, int]  # {bounce or complaint: n}, of its mails


class TracedEvent(Struct, frozen=True):
    """An event that is part of a trace."""

    event_id: int
    event_type: str
    traceparent: str
    created_at: datetime
    fanned_out_at: datetime
    first_delivery_id: int | None


class EventOfList(Struct, frozen=True):
    """What a list has of each event."""

    id: int
    event_type: str
    title: str
    initiator: str | None
    caller: str
    created_at: datetime
    send_at: datetime | None
    cancelled_at: datetime | None
    notifications: int


class EventSummary(EventOfList, frozen=True):
    """One event of a list; `notification_id` is that of the recipient in the filter."""

    notification_id: int | None


class EventFilter(Struct, frozen=True):
    """Which events; None is all."""

    recipient_id: str | None = None
    event_type: str | None = None
    since: datetime | None = None


async def create_event(
    database: Database,
    caller: str,
    event: NewEvent,
    *,
    people: Sequence[MissingRecipient] = (),
    idempotency_key: str | None = None,
    traceparent: str | None = None,
) -> CreatedEvent:
    """Creates the missing ones of `people` and the event, once per caller and key; `traceparent` is the app's span.

    Raises Invalid, or Conflict while another call has the key or an app's transaction one of the new people.
    """
    async with database.transaction() as session:
        if traceparent is not None:
            await session.value(_SQL["set_traceparent"], traceparent=traceparent[:_TRACEPARENT])
        created = await _create_event(session, caller, event, people, idempotency_key)
        if created.replayed:
            raise psycopg.Rollback  # a person who was erased since is not created again
    return created


async def preview(
    database: Database, caller: str, event: NewEvent, *, people: Sequence[MissingRecipient] = ()
) -> Previewed:
    """Returns what would be decided if it were created now; stores nothing. Raises Invalid."""
    now = structs.replace(event, send_at=None)
    async with database.session() as session, session.transaction(force_rollback=True):
        created = await _create_event(session, caller, now, people, None)
        event_id = created.event_id
        total = await session.value(_SQL["preview_slice"], event_id=event_id)
        return Previewed(
            created.notifications if total is None else total,
            await session.value(_SQL["initiator_skipped"], event_id=event_id),
            await session.rows(Decided, _SQL["decisions"], event_id=event_id),
        )


async def _create_event(
    session: Session,
    caller: str,
    event: NewEvent,
    people: Sequence[MissingRecipient],
    idempotency_key: str | None,
) -> CreatedEvent:
    if people:
        rows = [structs.asdict(person) for person in people]
        await session.run(_SQL["create_missing_recipients"], people=Jsonb(rows))
    return await session.one(
        CreatedEvent,
        _SQL["create_event"],
        caller=caller,
        idempotency_key=idempotency_key,
        **(
            structs.asdict(event)
            | {
                "metadata": Jsonb(event.metadata),
                "content": None if event.content is None else Jsonb(event.content),
                "actions": None if event.actions is None else Jsonb(event.actions),
            }
        ),
    )


async def traced_events(database: Database, event_ids: Sequence[int]) -> dict[int, TracedEvent]:
    """Returns those of these events that are part of a trace, by their ids."""
    rows = await database.rows(TracedEvent, _SQL["traced_events"], event_ids=list(event_ids))
    return {row.event_id: row for row in rows}


async def get_event(database: Queries, event_id: int) -> Event:
    """Returns one event; raises NotFound."""
    found = await database.row(Event, _SQL["get_event"], event_id=event_id)
    if found is None:
        raise NotFound("There is no such event.")
    return found


async def list_events(
    database: Queries, wanted: EventFilter, *, cursor: Cursor | None, limit: int
) -> Page[EventSummary]:
    """Returns a page of events, newest first."""
    filters = structs.asdict(wanted)
    return await database.page(EventSummary, _SQL, "events", cursor, limit, **filters)


async def cancel_event(database: Database, event_id: int) -> int:
    """Cancels an event; returns how many deliveries stopped. Raises NotFound."""
    stopped: int | None = await database.value(_SQL["cancel_event"], event_id=event_id)
    if stopped is None:
        raise NotFound("There is no such event.")
    return stopped


async def withdraw(database: Database, subject: str, event_type: str | None) -> int:
    """Cancels the events of a subject, or those of one type; returns how many. Raises Invalid."""
    return int(await database.value(_SQL["withdraw"], subject=subject, event_type=event_type))
