"""The badge hub of one HTTP process: one LISTEN, many waiting streams.

The listener names whose inbox moved; the hub reads those that have a stream open here in one batched query and puts
what is new into each stream's mailbox. A slow reader loses intermediate counts, never the last one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Collection, Iterable, Mapping
from contextlib import suppress

import msgspec
import psycopg
import structlog

from tocsin.engine.badge.open_stream import StreamEvent, Subscription, events_since
from tocsin.engine.badge.stream_position import Position, read_position
from tocsin.engine.model import Unavailable
from tocsin.engine.store.badge import (
    Since,
    StreamUpdates,
    open_line,
    request_stream_updates,
    unread_counts,
)
from tocsin.engine.store.database import Database
from tocsin.engine.store.dispatch import EVERYONE
from tocsin.engine.store.listen_connection import Line

# The unread count's hot path: concurrent questions share one read.

# A session that nobody needed for so long (seconds) goes back to the pool; to take one out costs more than a read.
_LINGER = 0.2

Answer = asyncio.Future[int]
Questions = dict[str, list[Answer]]  # by recipient


class UnreadCounts:
    """Batches look-ups: what is asked while a read is under way waits for the next one, so each answer is fresh.

    A batched look-up costs a twentieth of one of its own.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: Questions = {}
        self._reader: asyncio.Task[None] | None = None
        self._idle: asyncio.Future[None] | None = None  # while the reader waits for a question

    def read(self, recipient_id: str) -> Answer:
        """The count from a snapshot taken after this call; awaiting it raises Unavailable."""
        answer: Answer = asyncio.get_running_loop().create_future()
        self._ask(recipient_id, [answer])
        if self._idle is not None:
            _end(self._idle)
        elif self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        return answer

    def _ask(self, recipient_id: str, answers: list[Answer]) -> None:
        others = self._asked.get(recipient_id)
        if others is None:
            self._asked[recipient_id] = answers
        else:
            others += answers

    async def _read(self) -> None:
        while batch := self._take():
            kept = False
            try:
                async with self._database.session() as session:
                    while batch:
                        _answer(batch, await unread_counts(session, list(batch)))
                        batch, kept = {}, True
                        batch = await self._next()
            except Exception as error:  # noqa: BLE001 - told to those who asked
                if kept and isinstance(error, Unavailable):
                    # the session died since its last use, and the pool has others
                    for recipient_id, answers in batch.items():
                        self._ask(recipient_id, answers)
                else:
                    _fail(batch, error)
            except BaseException:
                _cancel(batch)
                raise

    def _take(self) -> Questions:
        batch, self._asked = self._asked, {}
        return batch

    async def _next(self) -> Questions:
        """What was asked meanwhile, or else within a while."""
        if not self._asked:
            loop = asyncio.get_running_loop()
            self._idle = loop.create_future()
            timer = loop.call_later(_LINGER, _end, self._idle)
            try:
                await self._idle
            finally:
                timer.cancel()
                self._idle = None
        return self._take()


def _answer(batch: Questions, counts: dict[str, int]) -> None:
    for recipient_id, answers in batch.items():
        count = counts[recipient_id]
        for answer in answers:
            if not answer.done():  # who asked may have hung up
                answer.set_result(count)


def _fail(batch: Questions, error: Exception) -> None:
    for answer in _waiting(batch):
        answer.set_exception(error)


def _cancel(batch: Questions) -> None:
    for answer in _waiting(batch):
        answer.cancel()


def _waiting(batch: Questions) -> Iterable[Answer]:
    return (answer for answers in batch.values() for answer in answers if not answer.done())


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


_RECONNECT = 0.2
# Readers in one batched query, and notifications that one of them can get in a row before it is told to resync.
_BATCH = 500
_REPLAY = 100
_STREAMS_PER_PERSON = 20

_recipients = msgspec.json.Decoder(list[str]).decode

log = structlog.get_logger("tocsin.badge")


class TooManyStreams(Exception):
    """This person has as many streams open as one may have: close one, or share one among the tabs."""


class BadgeHub:
    """Moves the streams of this process, and counts for it."""

    def __init__(
        self, database: Database, *, streams_per_person: int = _STREAMS_PER_PERSON
    ) -> None:
        self._database = database
        self._most = streams_per_person
        self._counts = UnreadCounts(database)
        self._streams: defaultdict[str, set[Subscription]] = defaultdict(set)
        self._moved: set[str] = set()
        self._line: Line | None = None  # while it is up
        self._listener = 0  # the backend of one in this process
        self._attending: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        """Starts to listen."""
        self._attending = asyncio.create_task(self._attend(), name="badge")

    def close_streams(self) -> None:
        """Ends every stream now, and opens no more: the server waits for them when it stops."""
        self._closed = True
        for streams in self._streams.values():
            for stream in streams:
                stream.close()

    async def stop(self) -> None:
        """Ends every stream, and the LISTEN connection."""
        self.close_streams()
        if self._attending is not None:
            self._attending.cancel()
            await asyncio.gather(self._attending, return_exceptions=True)

    def count(self, recipient_id: str) -> Awaitable[int]:
        """The exact number of unread notifications, from a snapshot taken after this call."""
        return self._counts.read(recipient_id)

    @property
    def open_streams(self) -> int:
        """How many streams are open in this process."""
        return sum(map(len, self._streams.values()))

    def subscribe(self, recipient_id: str, last_event_id: str | None) -> Subscription:
        """A stream for a person: first the badge and what came since `last_event_id`, then what comes.

        It lasts until its `leave`, or the end of a block. Raises TooManyStreams.
        """
        streams = self._streams.get(recipient_id, set())
        if len(streams) >= self._most:
            raise TooManyStreams
        position = read_position(last_event_id) if last_event_id else None
        lost = last_event_id is not None and position is None
        stream = Subscription(recipient_id, position, lost=lost, leave=self._forget)
        if self._closed:
            stream.close()
        self._streams[recipient_id].add(stream)
        self._mark({recipient_id})
        return stream

    def _forget(self, stream: Subscription) -> None:
        streams = self._streams[stream.recipient_id]
        streams.discard(stream)
        if not streams:
            del self._streams[stream.recipient_id]

    async def _attend(self) -> None:
        """Hears whose inbox moved, and reads it; whatever was missed while the line was away is read anew."""
        while True:
            try:
                line = await open_line(self._database.dsn, heard=self._hear, free=self._ask)
                self._line = line
                self._mark(set(self._streams))
                await line.hold()
            except (Unavailable, psycopg.Error, TimeoutError):
                self._database.availability.report_lost(broken=False)
                await self._database.availability.wait()
            except Exception:
                log.exception("streams not read")
            finally:
                self._line = None
            await asyncio.sleep(_RECONNECT)

    def told(self, pid: int, recipients: Collection[str]) -> None:
        """The listener is in this process: what it announces comes the short way, and need not be heard too."""
        self._listener = pid
        if recipients:
            self._mark(self._streams.keys() & set(recipients))

    def _hear(self, payload: str, pid: int) -> None:
        if payload == EVERYONE:
            self._moved |= self._streams.keys()
        elif pid != self._listener:
            with suppress(msgspec.DecodeError):  # any database user may send one
                moved = _recipients(payload)
                self._moved.update([each for each in moved if each in self._streams])

    def _mark(self, recipient_ids: set[str]) -> None:
        self._moved |= recipient_ids
        if self._line is not None and not self._line.busy:
            self._ask()

    def _ask(self) -> None:
        """One query for the streams of those who moved; streams of one person mostly stand at the same position."""
        people: list[str] = []
        while self._moved and len(people) < _BATCH:
            recipient_id = self._moved.pop()
            if recipient_id in self._streams:
                people.append(recipient_id)
        if people:
            assert self._line is not None
            streams = [(id_, stream) for id_ in people for stream in self._streams[id_]]
            readers: dict[Since, int] = {}
            for recipient_id, stream in streams:
                if stream.position is not None:
                    readers.setdefault(_since(recipient_id, stream), len(readers) + 1)

            def answered(news: StreamUpdates) -> None:
                counts = dict(zip(people, news.counts, strict=True))
                told = _told(readers, news)
                for recipient_id, stream in streams:
                    events = told[_since(recipient_id, stream)] if stream.position else []
                    known = recipient_id not in news.unknown
                    stream.put(news.snapshot, counts[recipient_id], events, known=known)

            request_stream_updates(
                self._line, people, list(readers), limit=_REPLAY + 1, answered=answered
            )


def _told(
    readers: Mapping[Since, int], news: StreamUpdates
) -> dict[Since, list[StreamEvent] | None]:
    """What readers at each of these positions are told; None: too much of it."""
    arrived, changes = defaultdict(list), defaultdict(list)
    for each in news.arrived:
        arrived[each.position].append(each.notification)
    for change in news.changes:
        changes[change.position].append(change)
    return {
        since: None
        if len(arrived[place]) > _REPLAY
        else events_since(
            Position(since.snapshot, since.upto, since.seen),
            news.snapshot,
            arrived[place],
            changes[place],
        )
        for since, place in readers.items()
    }


def _since(recipient_id: str, stream: Subscription) -> Since:
    position = stream.position
    assert position is not None
    return Since(recipient_id, position.snapshot, position.upto, position.seen)
