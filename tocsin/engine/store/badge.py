"""What the badge hub reads: counts, and what is new since a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec import Raw, Struct

from tocsin.engine.model import Notification
from tocsin.engine.store.database import Session, to_array
from tocsin.engine.store.listen_connection import ListenConnection, OnNotice
from tocsin.sql import load

_SQL = load("badge")


class ReaderPosition(Struct, frozen=True):
    """Where a reader of an inbox stands: it has what `snapshot` saw, and of what `upto` saw the ids up to `seen`."""

    recipient_id: str
    snapshot: str
    upto: str | None = None
    seen: int = 0


class StreamUpdates(Struct, frozen=True):
    """What one snapshot has for several people and readers."""

    snapshot: str
    counts: list[int]  # in the order of the people
    unknown: set[str]  # those of them who are no recipients: never were, or were erased
    arrived: list[ArrivedNotification]
    changes: list[InboxChange]


class ArrivedNotification(Struct, frozen=True):
    """A new notification; `position` (from 1) is the reader's."""

    position: int
    notification: StreamNotification


class StreamNotification(Notification, frozen=True):
    """As PostgreSQL wrote it: its metadata goes on to the reader untouched, whatever numbers they hold."""

    metadata: Raw  # type: ignore[assignment]


class InboxChange(Struct, frozen=True):
    """What a person did in their inbox; `notification_ids` None: to all of it."""

    position: int
    change: str
    notification_ids: list[int] | None


_read = msgspec.json.Decoder(StreamUpdates).decode


async def open_listen_connection(
    dsn: str, *, on_notice: OnNotice, on_free: Callable[[], None]
) -> ListenConnection:
    """Listens for announcements, and runs `request_stream_updates`; raises Unavailable."""
    prepared = (
        _SQL["configure_stream_connection"],
        _SQL["prepare_stream_updates"],
        _SQL["prepare_probe"],
        _SQL["listen_badge"],
    )
    return await ListenConnection.open(dsn, *prepared, on_notice=on_notice, on_free=on_free)


async def unread_counts(session: Session, recipient_ids: Sequence[str]) -> dict[str, int]:
    """Exact counts of several people in one read."""
    found = await session.text(_SQL["unread_counts"], to_array(recipient_ids))
    return dict(zip(recipient_ids, map(int, found[1:-1].split(",")), strict=True))


def request_stream_updates(
    connection: ListenConnection,
    recipient_ids: Sequence[str],
    readers: Sequence[ReaderPosition],
    *,
    limit: int,
    on_result: Callable[[StreamUpdates], None],
) -> None:
    """Counts of these people, and what is new for these readers (at most `limit` each), all in one snapshot."""
    arguments = (
        to_array(recipient_ids),
        to_array(reader.recipient_id for reader in readers),
        to_array(reader.snapshot for reader in readers),
        to_array(reader.upto for reader in readers),
        to_array(reader.seen for reader in readers),
        str(limit),
    )
    connection.ask("stream_updates", arguments, lambda found: on_result(_read(found)))
