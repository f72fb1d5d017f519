"""What the badge hub reads: counts, and what is new since a snapshot, by libpq's own calls.

A cursor of psycopg costs more than these small reads take.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import psycopg
from msgspec import Raw, Struct
from psycopg.pq.abc import PGresult

from tocsin.engine.model import Acted, Badge
from tocsin.engine.store.database import Session, connect_directly, expected_failures, to_array
from tocsin.engine.store.notification import Notification
from tocsin.engine.store.pagination import Position
from tocsin.engine.store.raw_query import query_text, text_of
from tocsin.sql import load

_SQL = load("badge")
_PREPARATION = (
    "configure_stream_connection",
    "prepare_stream_updates",
    "prepare_probe",
    "listen_badge",
)
_PROBE_AFTER = 3.0  # seconds without any response
_RESPONSE_WITHIN = 10.0  # seconds

# A notice's payload, and the process id of the backend that sent it.
OnNotice = Callable[[str, int], None]
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


class ListenConnection:
    """A connection that listens for notices and runs one prepared query at a time.

    Each wait of a task costs more than a small read takes, and there are several in a statement. Here the event loop
    calls back once there is something to read. `on_notice` is called with each notice, and then `on_free` unless a
    query runs.
    """

    def __init__(
        self,
        connection: psycopg.AsyncConnection[Any],
        *,
        on_notice: OnNotice,
        on_free: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._socket = self._pgconn.socket
        self._watched = True
        self._encoding = connection.info.encoding
        self._on_notice = on_notice
        self._on_free = on_free
        self._loop = asyncio.get_running_loop()
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._on_result: Callable[[str], None] | None = None
        self._result: PGresult | None = None
        self._active_at = time.monotonic()

    @classmethod
    async def open(
        cls, dsn: str, *, on_notice: OnNotice, on_free: Callable[[], None]
    ) -> ListenConnection:
        """Opens it, ready for `request_stream_updates`; raises Unavailable."""
        connection = await connect_directly(dsn)
        try:
            with expected_failures():
                for name in _PREPARATION:
                    await connection.execute(_SQL[name])
        except BaseException:
            await connection.close()
            raise
        return cls(connection, on_notice=on_notice, on_free=on_free)

    @property
    def busy(self) -> bool:
        """Whether a query runs."""
        return self._on_result is not None

    def query(self, name: str, arguments: Sequence[str], on_result: Callable[[str], None]) -> None:
        """Runs a prepared query; a later call of `on_result` has its one text."""
        assert self._on_result is None
        self._on_result, self._result = on_result, None
        self._active_at = time.monotonic()
        try:
            self._pgconn.send_query_prepared(
                name.encode(), [each.encode(self._encoding) for each in arguments]
            )
            self._flush()
        except psycopg.Error as error:
            self._lose(error)

    async def hold(self) -> None:
        """Keeps it open until it is cancelled; raises once the connection is lost or returns nothing any more."""
        self._loop.add_reader(self._socket, self._readable)
        try:
            with expected_failures():
                self._readable()  # what came while it was being prepared
                while True:
                    await asyncio.wait([self._lost], timeout=_PROBE_AFTER)
                    if self._lost.done():
                        self._lost.result()
                    silent = time.monotonic() - self._active_at
                    if self.busy and silent > _RESPONSE_WITHIN:
                        raise TimeoutError
                    if not self.busy and silent > _PROBE_AFTER:
                        self.query("probe", [], lambda _: None)
        finally:
            self._stop_watching()
            self._lost.cancel()
            await self._connection.close()

    def _readable(self) -> None:
        try:
            self._read()
        except Exception as error:  # noqa: BLE001 - raised where it is held
            self._lose(error)

    def _read(self) -> None:
        pgconn = self._pgconn
        pgconn.consume_input()
        self._read_notices()
        while self._on_result is not None and not pgconn.is_busy():
            result = pgconn.get_result()
            if result is not None:
                self._result = result
            else:
                self._active_at = time.monotonic()
                on_result, self._on_result = self._on_result, None
                assert self._result is not None
                on_result(text_of(self._result, self._encoding))
        self._read_notices()  # those that came after the result
        if self._on_result is None:
            self._on_free()

    def _read_notices(self) -> None:
        while (notice := self._pgconn.notifies()) is not None:
            self._on_notice(notice.extra.decode(self._encoding), notice.be_pid)

    def _flush(self) -> None:
        """Sends what the socket takes now, and the rest once it has room."""
        self._loop.remove_writer(self._socket)
        if self._pgconn.flush():
            self._loop.add_writer(self._socket, self._flush_more)

    def _flush_more(self) -> None:
        try:
            self._flush()
        except psycopg.Error as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        self._stop_watching()
        with suppress(asyncio.InvalidStateError):
            self._lost.set_exception(error)

    def _stop_watching(self) -> None:
        """Stops watching a lost connection: libpq closes its socket, whose number the next socket gets."""
        if not self._watched:
            return
        self._watched = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
