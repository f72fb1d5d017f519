"""Tocsin for Python apps: its SQL functions on the app's own connection, in the app's own transaction.

Nothing here commits. With a connection or session of psycopg, Django or SQLAlchemy a call returns its result; with an
asynchronous one of psycopg, SQLAlchemy or asyncpg it returns an awaitable.
"""

from tocsin.client.calls import (
    EventOptions,
    cancel,
    claim_email,
    erase_recipient,
    mark_read,
    notify,
    notify_email,
    notify_topic,
    register_push_token,
    subscribe,
    unread_count,
    unsubscribe,
    upsert_recipient,
    withdraw,
)
from tocsin.client.connections import (
    IdempotencyConflict,
    InvalidArgument,
    NotifyError,
    UnknownEventType,
    UnknownRecipient,
)

__all__ = [
    "EventOptions",
    "IdempotencyConflict",
    "InvalidArgument",
    "NotifyError",
    "UnknownEventType",
    "UnknownRecipient",
    "cancel",
    "claim_email",
    "erase_recipient",
    "mark_read",
    "notify",
    "notify_email",
    "notify_topic",
    "register_push_token",
    "subscribe",
    "unread_count",
    "unsubscribe",
    "upsert_recipient",
    "withdraw",
]
