"""Tocsin: the notification engine for Python apps with a PostgreSQL."""

from tocsin.client import (
    IdempotencyConflict,
    InvalidArgument,
    NotifyError,
    UnknownEventType,
    UnknownRecipient,
    cancel,
    claim_email,
    erase_recipient,
    notify,
    notify_email,
    notify_topic,
    register_push_token,
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
    "erase_recipient",
    "notify",
    "notify_email",
    "notify_topic",
    "register_push_token",
    "subscribe",
    "unread_count",
    "unsubscribe",
    "upsert_recipient",
]
