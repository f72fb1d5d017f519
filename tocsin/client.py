"""Tocsin for Python apps: its SQL functions on the app's own psycopg connection, in the app's own transaction.

Nothing here commits. With a `psycopg.Connection` a call returns its result, with an `AsyncConnection` an awaitable.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from datetime import datetime
from typing import Any, NoReturn, TypedDict, Unpack, overload

import psycopg
from psycopg.rows import tuple_row
from psycopg.types.json import Jsonb

Connection = psycopg.Connection[Any]
AsyncConnection = psycopg.AsyncConnection[Any]
Metadata = Mapping[str, Any]


class EventOptions(TypedDict, total=False):
    """What `notify`, `notify_topic` and `notify_email` take besides, each with the default of the SQL function."""

    body: str  # plain text; ""
    action_url: str | None
    metadata: Metadata | None
    initiator: str | None  # the person who caused the event, and is not notified of it
    idempotency_key: str | None
    body_html: str | None
    send_at: datetime | None  # with a time zone; None: now


class NotifyError(psycopg.DatabaseError):
    """Tocsin refused a call; the transaction it was made in can only be rolled back, to a savepoint or as a whole.

    A subclass of psycopg's error, with the SQLSTATE of its class: handlers of psycopg's errors handle it too.
    """

    def __init__(self, message: str, hint: str = "", argument: str | None = None) -> None:
        super().__init__(f"{message}. {hint}" if hint else message)
        self.message = message
        self.hint = hint  # what to do about it
        self.argument = argument  # which one is at fault


class UnknownEventType(NotifyError):
    """The catalogue has no such event type; the hint names the nearest ones."""

    sqlstate = "TC001"


class UnknownRecipient(NotifyError):
    """There is no recipient of that id: call `upsert_recipient` first."""

    sqlstate = "TC002"


class IdempotencyConflict(NotifyError):
    """The key was used for other content."""

    sqlstate = "TC003"


class InvalidArgument(NotifyError):
    """An argument is wrong; the hint names the cure."""

    sqlstate = "TC004"


_ERRORS = {
    kind.sqlstate: kind
    for kind in (UnknownEventType, UnknownRecipient, IdempotencyConflict, InvalidArgument)
}


@overload
def notify(
    conn: Connection,
    *,
    recipient: str | Iterable[str],
    event_type: str,
    title: str,
    **options: Unpack[EventOptions],
) -> int: ...
@overload
def notify(
    conn: AsyncConnection,
    *,
    recipient: str | Iterable[str],
    event_type: str,
    title: str,
    **options: Unpack[EventOptions],
) -> Awaitable[int]: ...
def notify(
    conn: Connection | AsyncConnection,
    *,
    recipient: str | Iterable[str],
    event_type: str,
    title: str,
    **options: Unpack[EventOptions],
) -> int | Awaitable[int]:
    """Notifies one person or several of an event, if and when the transaction commits; returns the event's id.

    `recipient` is one id or several; `options` are those of EventOptions. Raises UnknownEventType, UnknownRecipient,
    IdempotencyConflict or InvalidArgument.
    """
    one = isinstance(recipient, str)
    event_id: int | Awaitable[int] = _call(
        conn,
        "notify_one" if one else "notify",
        event_type,
        recipient if one else list(recipient),
        title,
        *_arguments(**options),
    )
    return event_id


@overload
def notify_topic(
    conn: Connection,
    *,
    topic: str,
    event_type: str,
    title: str,
    subscribe_initiator: bool = False,
    **options: Unpack[EventOptions],
) -> int: ...
@overload
def notify_topic(
    conn: AsyncConnection,
    *,
    topic: str,
    event_type: str,
    title: str,
    subscribe_initiator: bool = False,
    **options: Unpack[EventOptions],
) -> Awaitable[int]: ...
def notify_topic(
    conn: Connection | AsyncConnection,
    *,
    topic: str,
    event_type: str,
    title: str,
    subscribe_initiator: bool = False,
    **options: Unpack[EventOptions],
) -> int | Awaitable[int]:
    """Notifies the followers of a topic of an event, with the options of `notify`; returns the event's id.

    With `subscribe_initiator` the initiator follows the topic from then on, unless they have muted it.
    """
    event_id: int | Awaitable[int] = _call(
        conn,
        "notify_topic",
        topic,
        event_type,
        title,
        *_arguments(**options),
        subscribe_initiator,
    )
    return event_id


@overload
def subscribe(conn: Connection, recipient: str, topic: str, level: str = "all") -> bool: ...
@overload
def subscribe(
    conn: AsyncConnection, recipient: str, topic: str, level: str = "all"
) -> Awaitable[bool]: ...
def subscribe(
    conn: Connection | AsyncConnection, recipient: str, topic: str, level: str = "all"
) -> bool | Awaitable[bool]:
    """Subscribes a person to a topic (`all`, `mentions` only, or `muted`); returns whether that changed something.

    Raises UnknownRecipient or InvalidArgument.
    """
    changed: bool | Awaitable[bool] = _call(conn, "subscribe", recipient, topic, level)
    return changed


@overload
def unsubscribe(conn: Connection, recipient: str, topic: str) -> bool: ...
@overload
def unsubscribe(conn: AsyncConnection, recipient: str, topic: str) -> Awaitable[bool]: ...
def unsubscribe(
    conn: Connection | AsyncConnection, recipient: str, topic: str
) -> bool | Awaitable[bool]:
    """Ends a subscription of a person to a topic; returns whether that changed something."""
    changed: bool | Awaitable[bool] = _call(conn, "unsubscribe", recipient, topic)
    return changed


@overload
def notify_email(
    conn: Connection,
    *,
    email: str,
    event_type: str,
    title: str,
    **options: Unpack[EventOptions],
) -> int: ...
@overload
def notify_email(
    conn: AsyncConnection,
    *,
    email: str,
    event_type: str,
    title: str,
    **options: Unpack[EventOptions],
) -> Awaitable[int]: ...
def notify_email(
    conn: Connection | AsyncConnection,
    *,
    email: str,
    event_type: str,
    title: str,
    **options: Unpack[EventOptions],
) -> int | Awaitable[int]:
    """Notifies somebody known by an address of an event, with the options of `notify`; returns the event's id.

    A person without an account gets a mail; it is in their inbox after `claim_email` was called for them.
    """
    event_id: int | Awaitable[int] = _call(
        conn,
        "notify_email",
        email,
        event_type,
        title,
        *_arguments(**options),
    )
    return event_id


@overload
def claim_email(conn: Connection, email: str, recipient: str) -> int: ...
@overload
def claim_email(conn: AsyncConnection, email: str, recipient: str) -> Awaitable[int]: ...
def claim_email(
    conn: Connection | AsyncConnection, email: str, recipient: str
) -> int | Awaitable[int]:
    """Ties an address to a person after sign-up; returns how many notifications came into their inbox.

    The caller has verified the address. Raises UnknownRecipient or InvalidArgument.
    """
    claimed: int | Awaitable[int] = _call(conn, "claim_email", email, recipient)
    return claimed


@overload
def cancel(conn: Connection, event_id: int) -> int: ...
@overload
def cancel(conn: AsyncConnection, event_id: int) -> Awaitable[int]: ...
def cancel(conn: Connection | AsyncConnection, event_id: int) -> int | Awaitable[int]:
    """Cancels an event; returns how many deliveries stopped. Raises InvalidArgument where there is no such event."""
    stopped: int | Awaitable[int] = _call(conn, "cancel", event_id)
    return stopped


@overload
def upsert_recipient(
    conn: Connection,
    id: str,
    *,
    email: str | None = None,
    name: str | None = None,
    locale: str | None = None,
    timezone: str | None = None,
) -> None: ...
@overload
def upsert_recipient(
    conn: AsyncConnection,
    id: str,
    *,
    email: str | None = None,
    name: str | None = None,
    locale: str | None = None,
    timezone: str | None = None,
) -> Awaitable[None]: ...
def upsert_recipient(
    conn: Connection | AsyncConnection,
    id: str,  # noqa: A002
    *,
    email: str | None = None,
    name: str | None = None,
    locale: str | None = None,
    timezone: str | None = None,
) -> Awaitable[None] | None:
    """Creates a person or changes what is not None. Raises InvalidArgument."""
    result: Awaitable[None] | None = _call(
        conn, "upsert_recipient", id, email, name, locale, timezone
    )
    return result if isinstance(conn, psycopg.AsyncConnection) else None


@overload
def unread_count(conn: Connection, recipient: str) -> int: ...
@overload
def unread_count(conn: AsyncConnection, recipient: str) -> Awaitable[int]: ...
def unread_count(conn: Connection | AsyncConnection, recipient: str) -> int | Awaitable[int]:
    """A person's badge, with what this transaction did; 0 for somebody who is not known."""
    count: int | Awaitable[int] = _call(conn, "unread_count", recipient)
    return count


def _arguments(
    *,
    body: str = "",
    action_url: str | None = None,
    metadata: Metadata | None = None,
    initiator: str | None = None,
    idempotency_key: str | None = None,
    body_html: str | None = None,
    send_at: datetime | None = None,
) -> tuple[Any, ...]:
    """The options in the order of the SQL functions' parameters."""
    if send_at is not None and send_at.tzinfo is None:
        raise InvalidArgument(
            "send_at has no time zone",
            "Pass an aware datetime such as datetime.now(UTC).",
            "send_at",
        )
    metadata_json = Jsonb(dict(metadata or {}))
    return body, action_url, metadata_json, initiator, idempotency_key, body_html, send_at


def _call(conn: Connection | AsyncConnection, name: str, *arguments: Any) -> Any:
    # not at the top: an app pays for the reader of SQL files only at its first call
    from tocsin.sql import load

    statement = load("client")[name]
    if isinstance(conn, psycopg.AsyncConnection):
        return _call_async(conn, statement, arguments)
    # A new cursor: the connection's own row factory may return anything. Arguments by number, since converting named
    # ones takes as long as all the rest.
    try:
        return _first(
            psycopg.RawCursor(conn, row_factory=tuple_row).execute(statement, arguments).fetchone()
        )
    except psycopg.Error as error:
        _raise_typed(error)


async def _call_async(conn: AsyncConnection, statement: Any, arguments: tuple[Any, ...]) -> Any:
    try:
        cursor = psycopg.AsyncRawCursor(conn, row_factory=tuple_row)
        await cursor.execute(statement, arguments)
        return _first(await cursor.fetchone())
    except psycopg.Error as error:
        _raise_typed(error)


def _first(row: tuple[Any, ...] | None) -> Any:
    # void comes as an empty text
    return None if row is None or row[0] == "" else row[0]


def _raise_typed(error: psycopg.Error) -> NoReturn:
    """An SQLSTATE of class TC as its exception, chained to psycopg's; others as they are."""
    kind = _ERRORS.get(error.sqlstate or "")
    if kind is None:
        raise error
    diag = error.diag
    raise kind(diag.message_primary or "", diag.message_hint or "", diag.column_name) from error
