"""The badge hub of one HTTP process: one LISTEN, many waiting streams (interface; the body follows)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Struct

from tocsin.engine.store.database import Database


class StreamEvent(Struct, frozen=True):
    """One server-sent event; `data` is JSON text."""

    event: str  # badge, notification, read, archived, resync
    id: str
    data: bytes


class TooManyStreams(Exception):
    """This person has as many streams open as one may have: close one, or share one among the tabs."""


class Subscription:
    """One open stream's latest-value mailbox."""

    async def next(self, timeout: float) -> list[StreamEvent] | None:
        """What happened since the last call, in order; [] after `timeout` seconds without any; None at the end."""
        raise NotImplementedError


class BadgeHub:
    """Moves the streams of this process."""

    def __init__(self, database: Database) -> None:
        raise NotImplementedError

    async def start(self) -> None:
        """Starts to listen."""
        raise NotImplementedError

    def close_streams(self) -> None:
        """Ends every stream now (called from the signal handler, before the server waits for them)."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Ends every stream, and the LISTEN connection."""
        raise NotImplementedError

    async def count(self, recipient_id: str) -> int:
        """The exact number of unread notifications, from a snapshot taken after this call began."""
        raise NotImplementedError

    @asynccontextmanager
    async def subscribe(
        self, recipient_id: str, last_event_id: str | None
    ) -> AsyncIterator[Subscription]:
        """A stream for a person; its first events are the badge, and what came since `last_event_id`."""
        raise NotImplementedError
        yield

    @property
    def open_streams(self) -> int:
        """How many streams are open in this process."""
        raise NotImplementedError
