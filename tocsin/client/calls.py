"""The calls: one for each SQL function that apps may execute, with the same names and defaults.

Each takes the connection on which the app's transaction is open. With an asynchronous one the result is awaited.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict, Unpack, overload
from uuid import UUID

from tocsin.client.arguments import Metadata, RecipientId, Text, convert
from tocsin.client.connections import AsyncConnection, Connection, caller_for
from tocsin.client.notify_error import NotifyError


class EventOptions(TypedDict, total=False):
    """What `notify`, `notify_topic` and `notify_email` take besides, each with the default of the SQL function."""

    body: Text  # plain text; ""
    action_url: Text | None
    metadata: Metadata | None  # with what the host's JSON encoder knows
    initiator: RecipientId | None  # the person who caused the event, and is not notified of it
    idempotency_key: str | int | UUID | None
    body_html: Text | None
    send_at: datetime | None  # with a time zone; None: now
    subject: (
        Text | None
    )  # what it is about, such as "forum.thread:42"; of a topic's event its topic, if None
    replaces: bool  # earlier unread ones of the same person, type and subject leave; False
    content: Mapping[str, Any] | None  # other texts for a channel or a language
    actions: Sequence[Mapping[str, Any]] | None  # one to three buttons
    unknown: str  # what an unknown recipient means: "error", "create" or "skip"


_DEFAULTS: EventOptions = {
    "body": "",
    "action_url": None,
    "metadata": None,
    "initiator": None,
    "idempotency_key": None,
    "body_html": None,
    "send_at": None,
    "subject": None,
    "replaces": False,
    "content": None,
    "actions": None,
    "unknown": "error",
}
"""In the order of the SQL functions' parameters."""

_PLAIN = 10  # arguments of a call with none of the options that few calls use
_UNUSED = (None, False, None, None, "error")  # these options


@overload
def notify(
    conn: Connection,
    *,
    recipient: RecipientId | Iterable[RecipientId],
    event_type: Text,
    title: Text,
    **options: Unpack[EventOptions],
) -> int: ...
@overload
def notify(
    conn: AsyncConnection,
    *,
    recipient: RecipientId | Iterable[RecipientId],
    event_type: Text,
    title: Text,
    **options: Unpack[EventOptions],
) -> Awaitable[int]: ...
def notify(
    conn: Connection | AsyncConnection,
    *,
    recipient: RecipientId | Iterable[RecipientId],
    event_type: Text,
    title: Text,
    **options: Unpack[EventOptions],
) -> int | Awaitable[int]:
    """Notifies one person or several of an event, if and when the transaction commits; returns the event's id.

    `recipient` is one id or several; `options` are those of EventOptions. Raises UnknownEventType, UnknownRecipient,
    IdempotencyConflict or InvalidArgument.
    """
    result: int | Awaitable[int] = _call(
        conn,
        "notify",
        event_type=event_type,
        recipients=recipient,
        title=title,
        **_with_defaults("notify", options),
    )
    return result


@overload
def notify_topic(
    conn: Connection,
    *,
    topic: Text,
    event_type: Text,
    title: Text,
    subscribe_initiator: bool = False,
    **options: Unpack[EventOptions],
) -> int: ...
@overload
def notify_topic(
    conn: AsyncConnection,
    *,
    topic: Text,
    event_type: Text,
    title: Text,
    subscribe_initiator: bool = False,
    **options: Unpack[EventOptions],
) -> Awaitable[int]: ...
def notify_topic(
    conn: Connection | AsyncConnection,
    *,
    topic: Text,
    event_type: Text,
    title: Text,
    subscribe_initiator: bool = False,
    **options: Unpack[EventOptions],
) -> int | Awaitable[int]:
    """Notifies the followers of a topic of an event, with the options of `notify`; returns the event's id.

    With `subscribe_initiator` the initiator follows the topic from then on, unless they have muted it.
    """
    result: int | Awaitable[int] = _call(
        conn,
        "notify_topic",
        topic=topic,
        event_type=event_type,
        title=title,
        **_with_defaults("notify_topic", options),
        subscribe_initiator=subscribe_initiator,
    )
    return result


@overload
def notify_email(
    conn: Connection, *, email: Text, event_type: Text, title: Text, **options: Unpack[EventOptions]
) -> int: ...
@overload
def notify_email(
    conn: AsyncConnection,
    *,
    email: Text,
    event_type: Text,
    title: Text,
    **options: Unpack[EventOptions],
) -> Awaitable[int]: ...
def notify_email(
    conn: Connection | AsyncConnection,
    *,
    email: Text,
    event_type: Text,
    title: Text,
    **options: Unpack[EventOptions],
) -> int | Awaitable[int]:
    """Notifies somebody known by an address of an event, with the options of `notify`; returns the event's id.

    A person without an account gets a mail; it is in their inbox after `claim_email` was called for them.
    """
    result: int | Awaitable[int] = _call(
        conn,
        "notify_email",
        email=email,
        event_type=event_type,
        title=title,
        **_with_defaults("notify_email", options),
    )
    return result


@overload
def claim_email(conn: Connection, email: Text, recipient: RecipientId) -> int: ...
@overload
def claim_email(conn: AsyncConnection, email: Text, recipient: RecipientId) -> Awaitable[int]: ...
def claim_email(
    conn: Connection | AsyncConnection, email: Text, recipient: RecipientId
) -> int | Awaitable[int]:
    """Ties an address to a person after sign-up; returns how many notifications came into their inbox.

    The caller has verified the address. Raises UnknownRecipient or InvalidArgument.
    """
    result: int | Awaitable[int] = _call(conn, "claim_email", email=email, recipient=recipient)
    return result


@overload
def cancel(conn: Connection, event_id: int) -> int: ...
@overload
def cancel(conn: AsyncConnection, event_id: int) -> Awaitable[int]: ...
def cancel(conn: Connection | AsyncConnection, event_id: int) -> int | Awaitable[int]:
    """Cancels an event; returns how many deliveries stopped. Raises InvalidArgument where there is no such event."""
    result: int | Awaitable[int] = _call(conn, "cancel", event_id=event_id)
    return result


@overload
def withdraw(conn: Connection, subject: Text, event_type: Text | None = None) -> int: ...
@overload
def withdraw(
    conn: AsyncConnection, subject: Text, event_type: Text | None = None
) -> Awaitable[int]: ...
def withdraw(
    conn: Connection | AsyncConnection, subject: Text, event_type: Text | None = None
) -> int | Awaitable[int]:
    """Cancels all events of a subject, or those of one type; returns how many. Raises InvalidArgument."""
    result: int | Awaitable[int] = _call(conn, "withdraw", subject=subject, event_type=event_type)
    return result


@overload
def mark_read(conn: Connection, recipient: RecipientId, subject: Text) -> int: ...
@overload
def mark_read(conn: AsyncConnection, recipient: RecipientId, subject: Text) -> Awaitable[int]: ...
def mark_read(
    conn: Connection | AsyncConnection, recipient: RecipientId, subject: Text
) -> int | Awaitable[int]:
    """Marks what is about a subject as read, for an app that shows it; returns how many were unread.

    Raises UnknownRecipient or InvalidArgument.
    """
    result: int | Awaitable[int] = _call(conn, "mark_read", recipient=recipient, subject=subject)
    return result


@overload
def subscribe(
    conn: Connection, recipient: RecipientId, topic: Text, level: str = "all"
) -> bool: ...
@overload
def subscribe(
    conn: AsyncConnection, recipient: RecipientId, topic: Text, level: str = "all"
) -> Awaitable[bool]: ...
def subscribe(
    conn: Connection | AsyncConnection, recipient: RecipientId, topic: Text, level: str = "all"
) -> bool | Awaitable[bool]:
    """Subscribes a person to a topic (`all`, `mentions` only, or `muted`); returns whether that changed something.

    Raises UnknownRecipient or InvalidArgument.
    """
    result: bool | Awaitable[bool] = _call(
        conn, "subscribe", recipient=recipient, topic=topic, level=level
    )
    return result


@overload
def unsubscribe(conn: Connection, recipient: RecipientId, topic: Text) -> bool: ...
@overload
def unsubscribe(conn: AsyncConnection, recipient: RecipientId, topic: Text) -> Awaitable[bool]: ...
def unsubscribe(
    conn: Connection | AsyncConnection, recipient: RecipientId, topic: Text
) -> bool | Awaitable[bool]:
    """Ends a subscription of a person to a topic; returns whether that changed something."""
    result: bool | Awaitable[bool] = _call(conn, "unsubscribe", recipient=recipient, topic=topic)
    return result


@overload
def upsert_recipient(
    conn: Connection,
    id: RecipientId,
    *,
    email: Text | None = None,
    name: Text | None = None,
    locale: Text | None = None,
    timezone: Text | None = None,
    avatar_url: Text | None = None,
) -> None: ...
@overload
def upsert_recipient(
    conn: AsyncConnection,
    id: RecipientId,
    *,
    email: Text | None = None,
    name: Text | None = None,
    locale: Text | None = None,
    timezone: Text | None = None,
    avatar_url: Text | None = None,
) -> Awaitable[None]: ...
def upsert_recipient(
    conn: Connection | AsyncConnection,
    id: RecipientId,  # noqa: A002
    *,
    email: Text | None = None,
    name: Text | None = None,
    locale: Text | None = None,
    timezone: Text | None = None,
    avatar_url: Text | None = None,
) -> Awaitable[None] | None:
    """Creates a person or changes what is not None. An empty `avatar_url` removes it. Raises InvalidArgument."""
    result: Awaitable[None] | None = _call(
        conn,
        "upsert_recipient",
        id=id,
        email=email,
        name=name,
        locale=locale,
        timezone=timezone,
        avatar_url=avatar_url,
    )
    return result


@overload
def unread_count(conn: Connection, recipient: RecipientId) -> int: ...
@overload
def unread_count(conn: AsyncConnection, recipient: RecipientId) -> Awaitable[int]: ...
def unread_count(
    conn: Connection | AsyncConnection, recipient: RecipientId
) -> int | Awaitable[int]:
    """Returns a person's badge, with what this transaction did; 0 for somebody who is not known."""
    result: int | Awaitable[int] = _call(conn, "unread_count", recipient=recipient)
    return result


@overload
def erase_recipient(conn: Connection, id: RecipientId) -> bool: ...
@overload
def erase_recipient(conn: AsyncConnection, id: RecipientId) -> Awaitable[bool]: ...
def erase_recipient(conn: Connection | AsyncConnection, id: RecipientId) -> bool | Awaitable[bool]:  # noqa: A002
    """Erases a person and all data about them; returns whether they were known."""
    result: bool | Awaitable[bool] = _call(conn, "erase_recipient", id=id)
    return result


@overload
def register_push_token(
    conn: Connection,
    recipient: RecipientId,
    token: Text,
    platform: Text,
    provider: Text | None = None,
    environment: Text = "production",
) -> int: ...
@overload
def register_push_token(
    conn: AsyncConnection,
    recipient: RecipientId,
    token: Text,
    platform: Text,
    provider: Text | None = None,
    environment: Text = "production",
) -> Awaitable[int]: ...
def register_push_token(
    conn: Connection | AsyncConnection,
    recipient: RecipientId,
    token: Text,
    platform: Text,
    provider: Text | None = None,
    environment: Text = "production",
) -> int | Awaitable[int]:
    """Registers a phone of a person, who is created where they are unknown; returns the device's id.

    `platform` is "ios" or "android"; `provider` is "apns" or "fcm", None: the platform's own; `environment` is
    "production" or "sandbox". A token of another person moves. Raises InvalidArgument.
    """
    result: int | Awaitable[int] = _call(
        conn,
        "register_push_token",
        recipient=recipient,
        token=token,
        platform=platform,
        provider=provider,
        environment=environment,
    )
    return result


def _with_defaults(function: str, options: EventOptions) -> dict[str, Any]:
    if wrong := options.keys() - _DEFAULTS.keys():
        from difflib import get_close_matches

        name = min(wrong)
        near = get_close_matches(name, _DEFAULTS, 1) or [", ".join(_DEFAULTS)]
        raise TypeError(f"{function}() has no argument {name!r}; there is: {near[0]}")
    return {**_DEFAULTS, **options}


def _call(conn: Any, function: str, /, **values: Any) -> Any:
    """Runs a SQL function with these arguments, in its order."""
    # not at the top: an app pays for reading the SQL file at its first call only
    from tocsin.sql import load

    caller = caller_for(conn)
    try:
        arguments = convert(values, caller.host_encoder)
    except NotifyError as error:
        raise caller.own(error) from error.__cause__
    if function == "notify" and isinstance(arguments[1], str):
        if arguments[_PLAIN:] == _UNUSED:
            function, arguments = "notify_one_plain", arguments[:_PLAIN]
        else:
            function = "notify_one"
    return caller.run(load("client")[function], arguments)
