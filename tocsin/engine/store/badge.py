"""What the badge hub reads: counts, and what is new since a snapshot, by libpq's own calls.

A cursor of psycopg costs more than these small reads take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec import Raw, Struct

from tocsin.engine.model import Acted, Badge
from tocsin.engine.store.database import Session, to_array
from tocsin.engine.store.libpq import ListenConnection, query_text
from tocsin.engine.store.notification import Notification
from tocsin.engine.store.pagination import Position
from tocsin.sql import load

_SQL = load("badge")
# What a ListenConnection of the hub is prepared with.
PREPARATION = tuple(
    _SQL[name]
    for name in (
        "configure_stream_connection",
        "prepare_stream_updates",
        "prepare_probe",
        "listen_badge",
    )
)
# A recipient's id, and what a stream of theirs has.
StreamReader = tuple[str, Position]


class StreamUpdates(Struct, frozen=True):
    """What one snapshot has for several people and readers."""

    snapshot: str
    counts: list[int]  # unread, in the order of the people
    unseen: list[int]  # in the same order
    unknown: set[str]  # those of them that are no recipients: never were, or were erased
    arrived: list[ArrivedNotification]
    changes: list[InboxChange]


class ArrivedNotification(Struct, frozen=True):
    """A new notification; `position` is that of the reader in the list, from 1."""

    position: int
    notification: StreamNotification


class StreamNotification(Notification, frozen=True):
    """Its metadata are passed on as PostgreSQL wrote them, whatever numbers they contain."""

    metadata: Raw  # type: ignore[assignment]


class InboxChange(Struct, frozen=True):
    """A change that a person made in their inbox; `notification_ids` None: to all of it."""

    position: int
    change: str
    notification_ids: list[int] | None
    acted: Acted | None = None  # of an action


_read = msgspec.json.Decoder(StreamUpdates).decode


async def badges(session: Session, recipient_ids: Sequence[str]) -> dict[str, Badge]:
    """Returns the exact badges of several people, from one query; raises Unavailable."""
    found = await query_text(session, _SQL["badges"], to_array(recipient_ids))
    counts = [int(count) for count in found[1:-1].split(",")]
    people = len(recipient_ids)
    return dict(zip(recipient_ids, map(Badge, counts[:people], counts[people:]), strict=True))


def request_stream_updates(
    connection: ListenConnection,
    recipient_ids: Sequence[str],
    readers: Sequence[StreamReader],
    *,
    limit: int,
    on_result: Callable[[StreamUpdates], None],
) -> None:
    """Reads counts of these people, and what is new for these readers (at most `limit` each), in one snapshot."""
    arguments = (
        to_array(recipient_ids),
        to_array(recipient_id for recipient_id, _ in readers),
        to_array(position.snapshot for _, position in readers),
        to_array(position.upto for _, position in readers),
        to_array(position.seen for _, position in readers),
        str(limit),
    )
    connection.query("stream_updates", arguments, lambda found: on_result(_read(found)))
