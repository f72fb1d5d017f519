"""Tocsin: the notification engine for Python apps with a PostgreSQL."""

from tocsin.client import (
    IdempotencyConflict,
    InvalidArgument,
    NotifyError,
    UnknownEventType,
    UnknownRecipient,
    cancel,
    notify,
    notify_topic,
    subscribe,
    unread_count,
    unsubscribe,
    upsert_recipient,
)

__all__ = [
    "IdempotencyConflict",
    "InvalidArgument",
    "NotifyError",
    "UnknownEventType",
    "UnknownRecipient",
    "cancel",
    "notify",
    "notify_topic",
    "subscribe",
    "unread_count",
    "unsubscribe",
    "upsert_recipient",
]
