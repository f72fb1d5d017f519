"""Tocsin: the notification engine for Python apps with a PostgreSQL."""

from tocsin.client import (
    IdempotencyConflict,
    InvalidArgument,
    NotifyError,
    UnknownEventType,
    UnknownRecipient,
    cancel,
    claim_email,
    notify,
    notify_email,
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
    "claim_email",
    "notify",
    "notify_email",
    "notify_topic",
    "subscribe",
    "unread_count",
    "unsubscribe",
    "upsert_recipient",
]
