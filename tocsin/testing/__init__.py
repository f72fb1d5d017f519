"""What the tests of a host app use: an outbox to assert on, and the schema in a test database.

The modules `apns`, `fcm` and those beside them are local far ends of the providers, for tests of deliveries themselves;
they need `tocsin[up]`. Everything else needs psycopg alone.
"""

from tocsin.testing.outbox import (
    AsyncOutbox,
    Outbox,
    OutboxDecision,
    OutboxDelivery,
    OutboxError,
    OutboxEvent,
    OutboxNotification,
    install_schema,
)

__all__ = [
    "AsyncOutbox",
    "Outbox",
    "OutboxDecision",
    "OutboxDelivery",
    "OutboxError",
    "OutboxEvent",
    "OutboxNotification",
    "install_schema",
]
