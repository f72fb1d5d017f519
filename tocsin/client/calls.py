"""The calls: one for each SQL function that apps may execute, with the same names and defaults.

Each takes the connection on which the app's transaction is open. With an asynchronous one the result is awaited.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import wraps
from types import NoneType
from typing import (
    Any,
    Concatenate,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    overload,
)
from uuid import UUID

from tocsin.client.arguments import Metadata, RecipientId, Text, convert
from tocsin.client.connections import (
    AnyConnection,
    AsyncConnection,
    Connection,
    NotifyError,
    caller_for,
)


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
_TRACED = frozenset({"notify", "notify_topic", "notify_email"})


P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class SqlFunction(Protocol[P, T_co]):
    """Takes a connection, then its arguments; with an asynchronous connection the result is awaited."""

    @overload
    def __call__(self, conn: Connection, *args: P.args, **kwargs: P.kwargs) -> T_co: ...
    @overload
    def __call__(
        self, conn: AsyncConnection, *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[T_co]: ...


def _sql_function(function: Callable[Concatenate[Any, P], T]) -> SqlFunction[P, T]:
    """Declares that a function, which is annotated with its result, takes both kinds of connection.

    Where its arguments don't fit, the TypeError has a note with those that it takes.
    """

    @wraps(function)
    def call(conn: AnyConnection, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(conn, *args, **kwargs)
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is None:
                fault = _wrong_name(function, kwargs) or error
                fault.add_note(f"Call it as {_usage(function)}.")
                raise fault from None
            raise

    return cast("SqlFunction[P, T]", call)


def _wrong_name(function: Callable[..., Any], given: Mapping[str, Any]) -> TypeError | None:
    """Returns the error for an argument that a function does not have, with the name of the nearest one."""
    from difflib import get_close_matches
    from inspect import signature

    names = [name for name in signature(function).parameters if name != "conn"]
    if names[-1] == "options":
        names[-1:] = _DEFAULTS
    for name in sorted(given.keys() - names):
        near = get_close_matches(name, names, 1) or [", ".join(names)]
        return TypeError(f"{function.__name__}() has no argument {name!r}; there is: {near[0]}")
    return None


def _usage(function: Callable[..., Any]) -> str:
    """Returns how to call a function, such as `cancel(conn, event_id)`; further options are `…`."""
    from inspect import Parameter, signature

    marks = {Parameter.KEYWORD_ONLY: "{}=…", Parameter.VAR_KEYWORD: "…"}
    named = [
        marks[one.kind].format(one.name) if one.kind in marks else one.name
        for one in signature(function).parameters.values()
    ]
    return f"{function.__name__}({', '.join(named)})"


@_sql_function
def notify(
    conn: AnyConnection,
    *,
    recipient: RecipientId | Iterable[RecipientId],
    event_type: Text,
    title: Text,
    **options: Unpack[EventOptions],
) -> int:
    """Notifies one person or several of an event, if and when the transaction commits; returns the event's id.

    `recipient` is one id or several; `options` are those of EventOptions. Raises UnknownEventType, UnknownRecipient,
    IdempotencyConflict or InvalidArgument.
    """
    more = _with_defaults(notify, options)
    named = {"event_type": event_type, "recipients": recipient, "title": title}
    return _call(conn, "notify", int, **named, **more)


@_sql_function
def notify_topic(
    conn: AnyConnection,
    *,
    topic: Text,
    event_type: Text,
    title: Text,
    subscribe_initiator: bool = False,
    **options: Unpack[EventOptions],
) -> int:
    """Notifies the followers of a topic of an event, with the options of `notify`; returns the event's id.

    With `subscribe_initiator` the initiator follows the topic from then on, unless they have muted it.
    """
    more = _with_defaults(notify_topic, options) | {"subscribe_initiator": subscribe_initiator}
    return _call(conn, "notify_topic", int, topic=topic, event_type=event_type, title=title, **more)


@_sql_function
def notify_email(
    conn: AnyConnection,
    *,
    email: Text,
    event_type: Text,
    title: Text,
    **options: Unpack[EventOptions],
) -> int:
    """Notifies somebody known by an address of an event, with the options of `notify`; returns the event's id.

    A person without an account gets a mail; it is in their inbox after `claim_email` was called for them.
    """
    more = _with_defaults(notify_email, options)
    return _call(conn, "notify_email", int, email=email, event_type=event_type, title=title, **more)


@_sql_function
def claim_email(conn: AnyConnection, email: Text, recipient: RecipientId) -> int:
    """Ties an address to a person after sign-up; returns how many notifications came into their inbox.

    The caller has verified the address. Raises UnknownRecipient or InvalidArgument.
    """
    return _call(conn, "claim_email", int, email=email, recipient=recipient)


@_sql_function
def cancel(conn: AnyConnection, event_id: int) -> int:
    """Cancels an event; returns how many deliveries stopped. Raises InvalidArgument where there is no such event."""
    return _call(conn, "cancel", int, event_id=event_id)


@_sql_function
def withdraw(conn: AnyConnection, subject: Text, event_type: Text | None = None) -> int:
    """Cancels all events of a subject, or those of one type; returns how many. Raises InvalidArgument."""
    return _call(conn, "withdraw", int, subject=subject, event_type=event_type)


@_sql_function
def mark_read(conn: AnyConnection, recipient: RecipientId, subject: Text) -> int:
    """Marks what is about a subject as read, for an app that shows it; returns how many were unread.

    Raises UnknownRecipient or InvalidArgument.
    """
    return _call(conn, "mark_read", int, recipient=recipient, subject=subject)


@_sql_function
def subscribe(conn: AnyConnection, recipient: RecipientId, topic: Text, level: str = "all") -> bool:
    """Subscribes a person to a topic (`all`, `mentions` only, or `muted`); returns whether that changed something.

    Raises UnknownRecipient or InvalidArgument.
    """
    return _call(conn, "subscribe", bool, recipient=recipient, topic=topic, level=level)


@_sql_function
def unsubscribe(conn: AnyConnection, recipient: RecipientId, topic: Text) -> bool:
    """Ends a subscription of a person to a topic; returns whether that changed something."""
    return _call(conn, "unsubscribe", bool, recipient=recipient, topic=topic)


@_sql_function
def upsert_recipient(
    conn: AnyConnection,
    id: RecipientId,  # noqa: A002
    *,
    email: Text | None = None,
    name: Text | None = None,
    locale: Text | None = None,
    timezone: Text | None = None,
    avatar_url: Text | None = None,
) -> None:
    """Creates a person or changes what is not None. An empty `avatar_url` removes it. Raises InvalidArgument."""
    facts = {"email": email, "name": name, "locale": locale, "timezone": timezone}
    return _call(conn, "upsert_recipient", NoneType, id=id, **facts, avatar_url=avatar_url)


@_sql_function
def unread_count(conn: AnyConnection, recipient: RecipientId) -> int:
    """Returns a person's badge, with what this transaction did; 0 for somebody who is not known."""
    return _call(conn, "unread_count", int, recipient=recipient)


@_sql_function
def erase_recipient(conn: AnyConnection, id: RecipientId) -> bool:  # noqa: A002
    """Erases a person and all data about them; returns whether they were known."""
    return _call(conn, "erase_recipient", bool, id=id)


@_sql_function
def register_push_token(
    conn: AnyConnection,
    recipient: RecipientId,
    token: Text,
    platform: Text,
    provider: Text | None = None,
    environment: Text = "production",
) -> int:
    """Registers a phone of a person, who is created where they are unknown; returns the device's id.

    `platform` is "ios" or "android"; `provider` is "apns" or "fcm", None: the platform's own; `environment` is
    "production" or "sandbox". A token of another person moves. Raises InvalidArgument.
    """
    device = {"token": token, "platform": platform, "provider": provider}
    return _call(
        conn, "register_push_token", int, recipient=recipient, **device, environment=environment
    )


def _with_defaults(function: SqlFunction[..., int], options: EventOptions) -> dict[str, Any]:
    wrong = options.keys() - _DEFAULTS.keys()
    if wrong and (fault := _wrong_name(function, options)):
        raise fault
    return {**_DEFAULTS, **options}


def _call(conn: Any, function: str, _result: type[T], /, **values: Any) -> T:
    """Runs a SQL function with these arguments, in its order; returns its result, or an awaitable of it."""
    # not at the top: an app pays for reading the SQL file at its first call only
    from tocsin.sql import load

    caller = caller_for(conn)
    try:
        arguments = convert(values, caller.host_encoder)
    except NotifyError as error:
        raise caller.own(error) from error.__cause__
    traceparent = current_traceparent() if function in _TRACED else None
    if traceparent is not None:
        if isinstance(arguments[1], str) and function == "notify":
            arguments = (arguments[0], [arguments[1]], *arguments[2:])
        function, arguments = f"{function}_traced", (traceparent, *arguments)
    elif function == "notify" and isinstance(arguments[1], str):
        if arguments[_PLAIN:] == _UNUSED:
            function, arguments = "notify_one_plain", arguments[:_PLAIN]
        else:
            function = "notify_one"
    returned: T = caller.run(load("client")[function], arguments)
    return returned


def current_traceparent() -> str | None:
    """Returns the current span by W3C Trace Context; None if there is none, or OpenTelemetry is not imported."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
