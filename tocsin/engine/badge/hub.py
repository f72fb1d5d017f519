"""The badge hub of one HTTP process: one LISTEN connection, many open streams.

An announcement names the recipients whose inbox changed. The hub reads those that have a stream open here in one query,
and puts what is new into each stream. A slow reader loses intermediate counts, never the last one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress

import msgspec
import psycopg
import structlog

from tocsin.background import cancel_tasks
from tocsin.engine.badge.open_stream import OpenStream, StreamEvent, events_since
from tocsin.engine.model import Badge, Unavailable
from tocsin.engine.store.badge import (
    PREPARATION,
    StreamReader,
    StreamUpdates,
    badges,
    request_stream_updates,
)
from tocsin.engine.store.database import Database
from tocsin.engine.store.dispatch import EVERYONE
from tocsin.engine.store.libpq import ListenConnection
from tocsin.engine.store.pagination import read_position

# Seconds after which an unused session goes back to the pool; to take one out costs more than a read.
_LINGER = 0.2

PendingCount = asyncio.Future[Badge]
PendingCounts = dict[str, list[PendingCount]]  # by recipient


class UnreadCounts:
    """Reads counts in batches: one that is requested during a read waits for the next read, so that each is exact.

    A count in a batch costs a twentieth of a query of its own.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._requested: PendingCounts = {}
        self._reader: asyncio.Task[None] | None = None
        self._idle: asyncio.Future[None] | None = None  # while the reader waits for a request

    def read(self, recipient_id: str) -> PendingCount:
        """Returns the count from a snapshot taken after this call; awaiting it raises Unavailable."""
        count: PendingCount = asyncio.get_running_loop().create_future()
        self._request(recipient_id, [count])
        if self._idle is not None:
            _end(self._idle)
        elif self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        return count

    def _request(self, recipient_id: str, counts: list[PendingCount]) -> None:
        others = self._requested.get(recipient_id)
        if others is None:
            self._requested[recipient_id] = counts
        else:
            others += counts

    async def _read(self) -> None:
        while batch := self._take():
            kept = False
            try:
                async with self._database.session() as session:
                    while batch:
                        _resolve(batch, await badges(session, list(batch)))
                        batch, kept = {}, True
                        batch = await self._next()
            except Exception as error:  # noqa: BLE001 - raised by each count of the batch
                if kept and isinstance(error, Unavailable):
                    # the session was lost since its last use, and the pool has others
                    for recipient_id, counts in batch.items():
                        self._request(recipient_id, counts)
                else:
                    _fail(batch, error)
            except BaseException:
                _cancel(batch)
                raise

    def _take(self) -> PendingCounts:
        batch, self._requested = self._requested, {}
        return batch

    async def _next(self) -> PendingCounts:
        """Returns what was requested meanwhile, or else within `_LINGER`."""
        if not self._requested:
            loop = asyncio.get_running_loop()
            self._idle = loop.create_future()
            timer = loop.call_later(_LINGER, _end, self._idle)
            try:
                await self._idle
            finally:
                timer.cancel()
                self._idle = None
        return self._take()


def _resolve(batch: PendingCounts, found: dict[str, Badge]) -> None:
    for recipient_id, pending in batch.items():
        badge = found[recipient_id]
        for each in pending:
            if not each.done():  # the client may have disconnected
                each.set_result(badge)


def _fail(batch: PendingCounts, error: Exception) -> None:
    for each in _waiting(batch):
        each.set_exception(error)


def _cancel(batch: PendingCounts) -> None:
    for each in _waiting(batch):
        each.cancel()


def _waiting(batch: PendingCounts) -> Iterable[PendingCount]:
    return (each for pending in batch.values() for each in pending if not each.done())


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


_RECONNECT = 0.2
# Recipients in one query, and notifications that a stream gets in a row before it gets `resync`.
_BATCH = 500
_REPLAY = 100
_STREAMS_PER_PERSON = 20

# The recipients whose inbox changed; None: perhaps everybody's.
OnChanged = Callable[[Collection[str] | None], None]

_recipients = msgspec.json.Decoder(list[str]).decode

log = structlog.get_logger("tocsin.badge")


class TooManyStreams(Exception):
    """This person has the most streams open that are allowed: close one, or share one among the tabs."""


class BadgeHub:
    """The open streams of this process, and its unread counts; pictures are shown of `avatar_hosts` only.

    `on_changed` is called with the recipients of each announcement, and with None where all may have changed.
    """

    def __init__(
        self,
        database: Database,
        *,
        streams_per_person: int = _STREAMS_PER_PERSON,
        avatar_hosts: Sequence[str] = (),
        on_changed: OnChanged | None = None,
    ) -> None:
        self._database = database
        self._most = streams_per_person
        self._avatar_hosts = avatar_hosts
        self._on_changed = on_changed
        self._counts = UnreadCounts(database)
        self._streams: defaultdict[str, set[OpenStream]] = defaultdict(set)
        self._changed: set[str] = set()
        self._connection: ListenConnection | None = None  # while it is up
        self._announcer = 0  # the backend of a leader in this process
        self._listening: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        """Starts to listen."""
        self._listening = asyncio.create_task(self._listen(), name="badge")

    def close_streams(self) -> None:
        """Ends every stream now, and opens no more: the server waits for them when it stops."""
        self._closed = True
        for streams in self._streams.values():
            for stream in streams:
                stream.close()

    async def stop(self) -> None:
        """Ends every stream, and the LISTEN connection."""
        self.close_streams()
        if self._listening is not None:
            await cancel_tasks(self._listening)

    def count(self, recipient_id: str) -> Awaitable[Badge]:
        """Returns the exact numbers of unread and unseen notifications, from a snapshot taken after this call."""
        return self._counts.read(recipient_id)

    @property
    def open_streams(self) -> int:
        """How many streams are open in this process."""
        return sum(map(len, self._streams.values()))

    def open_stream(self, recipient_id: str, last_event_id: str | None) -> OpenStream:
        """Opens a stream for a person: first the badge and what is new since `last_event_id`, then each change.

        It lasts until its `leave`, or the end of a block. Raises TooManyStreams.
        """
        streams = self._streams.get(recipient_id, set())
        if len(streams) >= self._most:
            raise TooManyStreams
        position = read_position(last_event_id) if last_event_id else None
        lost = last_event_id is not None and position is None
        stream = OpenStream(recipient_id, position, lost=lost, leave=self._forget)
        if self._closed:
            stream.close()
        self._streams[recipient_id].add(stream)
        self._mark({recipient_id})
        return stream

    def _forget(self, stream: OpenStream) -> None:
        streams = self._streams[stream.recipient_id]
        streams.discard(stream)
        if not streams:
            del self._streams[stream.recipient_id]

    async def _listen(self) -> None:
        """Listens for announcements; after a lost connection, reads again for all streams."""
        while True:
            try:
                connection = await ListenConnection.open(
                    self._database.dsn,
                    PREPARATION,
                    on_notice=self._on_notice,
                    on_free=self._update,
                )
                self._connection = connection
                self._mark(set(self._streams))
                self._report(None)  # changes may have been announced before
                await connection.hold()
            except (Unavailable, psycopg.Error, TimeoutError):
                self._database.availability.report_lost(broken=False)
                await self._database.availability.wait()
            except Exception:
                log.exception("streams not read")
            finally:
                self._connection = None
            await asyncio.sleep(_RECONNECT)

    def announced(self, pid: int, recipients: Collection[str]) -> None:
        """Updates these recipients' streams; called by the leader in this process, whose notices are then ignored."""
        self._announcer = pid
        self._report(recipients)
        if recipients:
            self._mark(self._streams.keys() & set(recipients))

    def _on_notice(self, payload: str, pid: int) -> None:
        if payload == EVERYONE:
            self._report(None)
            self._changed |= self._streams.keys()
        elif pid != self._announcer:
            with suppress(msgspec.DecodeError):  # any database user may send one
                changed = _recipients(payload)
                self._report(changed)
                self._changed.update([each for each in changed if each in self._streams])

    def _report(self, recipient_ids: Collection[str] | None) -> None:
        if self._on_changed is not None:
            self._on_changed(recipient_ids)

    def _mark(self, recipient_ids: set[str]) -> None:
        self._changed |= recipient_ids
        if self._connection is not None and not self._connection.busy:
            self._update()

    def _update(self) -> None:
        """Runs one query for the streams of changed recipients; those of one person mostly have the same position."""
        people: list[str] = []
        while self._changed and len(people) < _BATCH:
            recipient_id = self._changed.pop()
            if recipient_id in self._streams:
                people.append(recipient_id)
        if people:
            assert self._connection is not None
            streams = [stream for id_ in people for stream in self._streams[id_]]
            readers: dict[StreamReader, int] = {}
            for stream in streams:
                if stream.position is not None:
                    readers.setdefault((stream.recipient_id, stream.position), len(readers) + 1)

            def on_result(news: StreamUpdates) -> None:
                badge_of = dict(zip(people, map(Badge, news.counts, news.unseen), strict=True))
                events_of = _events_of(readers, news, self._avatar_hosts)
                for stream in streams:
                    id_, position = stream.recipient_id, stream.position
                    events = [] if position is None else events_of[id_, position]
                    stream.put(news.snapshot, badge_of[id_], events, known=id_ not in news.unknown)

            request_stream_updates(
                self._connection, people, list(readers), limit=_REPLAY + 1, on_result=on_result
            )


def _events_of(
    readers: Mapping[StreamReader, int], news: StreamUpdates, avatar_hosts: Sequence[str]
) -> dict[StreamReader, list[StreamEvent] | None]:
    """Returns the events for each of these readers; None where there are too many."""
    arrived, changes = defaultdict(list), defaultdict(list)
    for each in news.arrived:
        arrived[each.position].append(each.notification.with_picture_of(avatar_hosts))
    for change in news.changes:
        changes[change.position].append(change)
    return {
        reader: None
        if len(arrived[place]) > _REPLAY
        else events_since(reader[1], news.snapshot, arrived[place], changes[place])
        for reader, place in readers.items()
    }
