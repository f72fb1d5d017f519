"""The badge hub of one HTTP process: one LISTEN, many waiting streams.

The listener names whose inbox moved; the hub reads those that have a stream open here in one batched query and puts
what is new into each stream's mailbox. A slow reader loses intermediate counts, never the last one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Mapping
from contextlib import suppress

import msgspec
import psycopg
import structlog

from tocsin.engine.model import Unavailable
from tocsin.engine.store.badge import News, Since, listen_badge, read_news
from tocsin.engine.store.bell import EVERYONE
from tocsin.engine.store.database import Database, Session, connect_directly
from tocsin.engine.stream_position import Position, read_position
from tocsin.engine.subscription import StreamEvent, Subscription, events_since
from tocsin.engine.unread import UnreadCounts

# A LISTEN connection that doesn't answer for this long is opened anew.
_PULSE = 3.0
_RECONNECT = 0.5
_READ_WITHIN = 10.0
# Readers in one batched query, and notifications that one of them can get in a row before it is told to resync.
_BATCH = 500
_REPLAY = 100
_STREAMS_PER_PERSON = 20

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
        self._work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    async def start(self) -> None:
        """Starts to listen."""
        self._tasks = [
            asyncio.create_task(self._listen(), name="badge-listen"),
            asyncio.create_task(self._read(), name="badge-read"),
        ]

    def close_streams(self) -> None:
        """Ends every stream now, and opens no more: the server waits for them when it stops."""
        self._closed = True
        for streams in self._streams.values():
            for stream in streams:
                stream.close()

    async def stop(self) -> None:
        """Ends every stream, and the LISTEN connection."""
        self.close_streams()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

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

    def _mark(self, recipient_ids: set[str]) -> None:
        self._moved |= recipient_ids
        self._work.set()

    async def _listen(self) -> None:
        """Hears whose inbox moved; whatever was missed while the connection was away is read anew."""
        while True:
            try:
                connection = await connect_directly(self._database.dsn)
                async with connection:
                    await listen_badge(Session(connection))
                    self._mark(set(self._streams))
                    while True:
                        async for notice in connection.notifies(timeout=_PULSE):
                            self._hear(notice.payload)
                        async with asyncio.timeout(_PULSE):
                            await connection.execute("select")
            except (Unavailable, psycopg.Error, TimeoutError) as error:
                log.warning("badge listener lost its connection", error=type(error).__name__)
                await asyncio.sleep(_RECONNECT)

    def _hear(self, payload: str) -> None:
        if payload == EVERYONE:
            self._mark(set(self._streams))
            return
        with suppress(msgspec.DecodeError):  # any database user may send one
            moved = msgspec.json.decode(payload, type=set[str])
            if here := moved & self._streams.keys():
                self._mark(here)

    async def _read(self) -> None:
        """On a connection of its own: a pool looks at each one that it gives out, which is a round trip more."""
        while True:
            await self._work.wait()
            try:
                async with await connect_directly(self._database.dsn) as connection:
                    while True:
                        await self._work.wait()
                        await self._read_some(Session(connection))
            except (Unavailable, psycopg.Error, TimeoutError) as error:
                log.warning("streams not read", error=type(error).__name__)
            except Exception:
                log.exception("streams not read")
            await asyncio.sleep(_RECONNECT)

    async def _read_some(self, session: Session) -> None:
        batch = [self._moved.pop() for _ in range(min(_BATCH, len(self._moved)))]
        if not self._moved:
            self._work.clear()
        try:
            async with asyncio.timeout(_READ_WITHIN):
                await self._read_batch(session, batch)
        except BaseException:
            self._mark(set(batch))
            raise

    async def _read_batch(self, session: Session, recipient_ids: list[str]) -> None:
        """One query for the streams of these people; streams of one person mostly stand at the same position."""
        people = [id_ for id_ in recipient_ids if id_ in self._streams]
        if not people:
            return
        streams = [(id_, stream) for id_ in people for stream in self._streams[id_]]
        readers: dict[Since, int] = {}
        for recipient_id, stream in streams:
            if stream.position is not None:
                readers.setdefault(_since(recipient_id, stream), len(readers) + 1)
        news = await read_news(session, people, list(readers), limit=_REPLAY + 1)
        counts = dict(zip(people, news.counts, strict=True))
        told = _told(readers, news)
        for recipient_id, stream in streams:
            events = told[_since(recipient_id, stream)] if stream.position else []
            stream.put(news.snapshot, counts[recipient_id], events)


def _told(readers: Mapping[Since, int], news: News) -> dict[Since, list[StreamEvent] | None]:
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
