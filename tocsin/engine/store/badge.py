"""What the badge hub reads: counts, and what is new since a snapshot."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from tocsin.engine.model import Notification
from tocsin.engine.store.database import Session
from tocsin.sql import load

_SQL = load("badge")


class Since(Struct, frozen=True):
    """Where a reader of an inbox stands: it has what `snapshot` saw, and of what `upto` saw the ids up to `seen`."""

    recipient_id: str
    snapshot: str
    upto: str | None = None
    seen: int = 0


class News(Struct, frozen=True):
    """One snapshot's answer for several people and readers."""

    snapshot: str
    counts: list[int]  # in the order of the people
    arrived: list[Arrived]
    changes: list[InboxChange]


class Arrived(Struct, frozen=True):
    """A notification that came; `position` (from 1) says for which reader."""

    position: int
    notification: Told


class Told(Notification, frozen=True):
    """As PostgreSQL wrote it: its metadata goes on to the reader untouched, whatever numbers they hold."""

    metadata: Raw  # type: ignore[assignment]


class InboxChange(Struct, frozen=True):
    """What a person did in their inbox; `notification_ids` None: to all of it."""

    position: int
    change: str
    notification_ids: list[int] | None


_read = msgspec.json.Decoder(News).decode


async def listen_badge(session: Session) -> None:
    """Hears whose inbox moved."""
    await session.run(_SQL["listen_badge"])


async def unread_counts(session: Session, recipient_ids: Sequence[str]) -> dict[str, int]:
    """Exact counts of several people in one read."""
    ids = [id_.replace("\\", "\\\\").replace('"', '\\"') for id_ in recipient_ids]
    found = await session.text(_SQL["unread_counts"], '{"' + '","'.join(ids) + '"}')
    return dict(zip(recipient_ids, map(int, found[1:-1].split(",")), strict=True))


async def read_news(
    session: Session, recipient_ids: Sequence[str], readers: Sequence[Since], *, limit: int
) -> News:
    """Counts of these people, and what is new for these readers (at most `limit` each), all in one snapshot."""
    found = await session.value(
        _SQL["news"],
        recipient_ids=list(recipient_ids),
        readers=[reader.recipient_id for reader in readers],
        snapshots=[reader.snapshot for reader in readers],
        uptos=[reader.upto for reader in readers],
        seens=[reader.seen for reader in readers],
        limit=limit,
    )
    return _read(found)
