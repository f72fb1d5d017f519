"""Tocsin: the notification engine for Python apps with a PostgreSQL."""

from tocsin.client import (
    IdempotencyConflict,
    InvalidArgument,
    NotifyError,
    UnknownEventType,
    UnknownRecipient,
    cancel,
    notify,
    unread_count,
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
    "unread_count",
    "upsert_recipient",
]
