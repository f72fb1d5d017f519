"""The dispatcher: elects a leader, which makes jobs of deliveries that are due, in an order that is fair to all events.

Every worker and HTTP process runs a dispatcher; the row tocsin.leader names the one that leads
(sql/functions/leader.sql). Its listener (engine/dispatch/listener.py) finds what was committed, and announces it.
The leader also completes, after the commit of a call, invitations, pending changes, and large fan-outs.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import psycopg
import structlog
from msgspec import Struct

from tocsin.background import cancel_tasks
from tocsin.engine.dispatch.listener import BadgeAnnouncer, Listener, OnAnnounced
from tocsin.engine.model import Unavailable
from tocsin.engine.store.connection import Availability
from tocsin.engine.store.dispatch import DispatchedEvent, LeaderSession, Scan
from tocsin.engine.store.health import blocking_sessions

# Seconds between two rounds of work: four times what one takes, within bounds. Nothing for this long: idle.
_PAUSE_LEAST = 0.001
_PAUSE_MOST = 0.01
_IDLE_AFTER = 0.05
# The longest wait while idle.
_IDLE_MOST = 30.0
# A leader that missed five heartbeats is replaced.
_SILENT = timedelta(seconds=15)
_ELECTION = 0.3
# Seconds before a new connection, after one was lost.
_RECONNECT = 0.2
# Seconds between two log lines on sessions of others that block the service.
_REMIND = 60.0

_VACUUM = 2.0
_VACUUM_SHARE = 20  # times as long as one takes is between two
_CLEAN_UP = 60.0
_CHECK_DUE = 0.1
_LOOK_SHARE = 4  # times as long as a look for what is due takes is between two

# Jobs of one channel at a time: enough to keep all actors busy, few enough that a new event is soon dispatched.
_JOBS = 8
_JOBS_WITH_NEWCOMERS = 32
_BATCH = 500
# Retries are dispatched even while a huge fan-out takes all the capacity.
_DUE_AT_LEAST = 50
# Deliveries in one round: it must not delay badges for long.
_ROUND = 1000
# Leases that are ended in one statement.
_LEASES = 100
# A delivery whose job was lost is dispatched again after this long.
_DISPATCH_LEASE = timedelta(seconds=120)
# Jobs of a worker whose last heartbeat is older don't count.
_ALIVE = timedelta(seconds=15)

# Seconds between two checks of what is left after commits: few meet an open transaction, and nobody waits for it.
_CHECK = 0.1
# People in a slice of a fan-out: it takes some 20 ms, for which what else the leader does waits.
_SLICE = 500

log = structlog.get_logger("tocsin.dispatch")


class Dispatcher:  # pragma: no mutate block
    """Takes part in the election, and leads while elected; the options are those of BadgeAnnouncer."""

    def __init__(
        self,
        dsn: str,
        *,
        badge_pushes: bool = True,
        on_announced: OnAnnounced | None = None,
        availability: Availability | None = None,
    ) -> None:
        self._dsn = dsn
        self._availability = availability or Availability(dsn)
        self._on_announced = on_announced
        self._badge_pushes = badge_pushes
        self.leading = False

    async def run(self) -> None:
        """Runs until cancelled; reconnects where a connection was lost."""
        while True:
            try:
                async with _connected(self._dsn) as listening:
                    await self._win_election(listening)
                    async with _connected(self._dsn) as working:
                        self.leading = True
                        log.info("leading")
                        badges = BadgeAnnouncer(
                            working, pushes=self._badge_pushes, on_announced=self._on_announced
                        )
                        await self._lead(Leader(listening, working, badges))
            except Unavailable as error:
                if self.leading:
                    log.info("no longer leading", reason=str(error))
                self._availability.report_lost(broken=False)
                await self._availability.wait()
                await asyncio.sleep(_RECONNECT)
            except Exception:
                # a bug, or a schema in the middle of an upgrade: badges and mails depend on this task, so it runs again
                log.exception("dispatcher failed")
                await asyncio.sleep(1.0)
            finally:
                self.leading = False
                if self._on_announced is not None:
                    self._on_announced(0, ())  # another backend may get this one's process id

    async def _lead(self, leader: Leader) -> None:
        """Leads, until a pooler is lost: without it no worker writes an outcome, so no lease may end (ADR 0088)."""
        leading = asyncio.create_task(leader.lead())
        lost = asyncio.create_task(self._availability.pooler_lost())
        try:
            await asyncio.wait({leading, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not leading.done():
                raise Unavailable("the pooler can't be reached")
            leading.result()
        finally:
            await cancel_tasks(leading, lost)

    async def _win_election(self, session: LeaderSession) -> None:
        silent_at = time.monotonic() + _REMIND
        await self._availability.wait()
        while not await session.try_lead(_SILENT):
            await self._availability.wait()
            await asyncio.sleep(_ELECTION)
            if time.monotonic() > silent_at:
                silent_at += _REMIND
                if not await session.has_leader(_SILENT):
                    await log_blocking_sessions(session)


class DueLooks:
    """When to look again for what is due. Times are monotonic.

    A look passes over the dead rows that an old snapshot keeps, which can be all of an hour, so looks take a bounded
    share of the time: the pause after one is four times as long as it took.
    """

    def __init__(self) -> None:
        self.earliest = 0.0  # not before this, whatever happens
        self.next = 0.0  # while there is other work
        self.soonest = 0.0  # when something is due, as far as the last look saw

    def looked(self, due: Iterable[float], started: float, now: float) -> None:
        """Plans the next look after one that found these seconds until something is due; negative where it is late."""
        pause = min((_CHECK_DUE if each <= 0 else each for each in due), default=_IDLE_MOST)
        self.earliest = now + _LOOK_SHARE * (now - started)
        self.soonest = max(now + pause, self.earliest)
        self.next = max(now + min(pause, _CHECK_DUE), self.earliest)


class Leader:  # pragma: no mutate block
    """Leads: listens on one connection, and does the work that this finds on another."""

    def __init__(
        self, listening: LeaderSession, working: LeaderSession, badges: BadgeAnnouncer
    ) -> None:
        self._listener = Listener(listening, self._on_scan)
        self._session = working
        self._queue = EventQueue()
        self._badges = badges
        self._invitations = Invitations(working)
        self._pending = PendingChanges(working)
        self._fan_outs = FanOuts(working)
        self._scanned = asyncio.Event()
        self._vacuum_after = _VACUUM
        self._vacuumed_at = self._cleaned_at = time.monotonic()
        self._vacuum_needed = self._may_vacuum = True
        self._due = DueLooks()

    async def lead(self) -> None:
        """Works until a connection is lost or it is cancelled."""
        if await self._session.reset_foreign_xids():
            log.warning("transaction ids of another cluster were reset")
        self._may_vacuum = await self._session.may_vacuum()
        if not self._may_vacuum:  # PostgreSQL 15 and 16 let only a table's owner vacuum it
            cure = "autovacuum_naptime = 10s, or PostgreSQL 17"
            log.info("only autovacuum clears the small tables", cure=cure)
        await self._listener.begin()
        await self._badges.resume()
        both = [
            asyncio.create_task(self._listener.listen(), name="listen"),
            asyncio.create_task(self._work(), name="dispatch"),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            outcomes = await cancel_tasks(*both)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    def _on_scan(self, scan: Scan, announced_by: int | None) -> None:
        self._badges.announce(scan, announced_by)
        for event_id, channel, priority in zip(
            scan.event_ids, scan.channels, scan.priorities, strict=True
        ):
            self._queue.add(event_id, channel, priority)
        self._scanned.set()  # in any case: something may have become due, which no scan shows

    async def _work(self) -> None:
        while True:
            started = time.monotonic()
            self._scanned.clear()
            if not await self._work_once() and not await self._wait_for_scan(_IDLE_AFTER):
                if not await self._work_once(idle=True):
                    await self._idle()
                continue
            pause = 4 * (time.monotonic() - started)
            await asyncio.sleep(min(_PAUSE_MOST, max(_PAUSE_LEAST, pause)))

    async def _work_once(self, *, idle: bool = False) -> bool:
        """Completes calls, dispatches, updates badges; returns whether there is more to do at once."""
        assigned = await self._invitations.assign(idle=idle)
        await self._pending.apply(idle=idle)
        fanned_out = await self._fan_outs.advance(idle=idle)
        dispatched = await self._dispatch()
        await self._badges.queue_pushes(idle=idle)
        if await self._badges.fold(idle=idle):
            self._vacuum_needed = True
        await self._clean_up()
        more = dispatched or assigned or fanned_out or (idle and self._badges.pending)
        return bool(more)

    async def _wait_for_scan(self, timeout: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._scanned.wait()
        return self._scanned.is_set()

    async def _dispatch(self) -> int:
        """Makes jobs of what is due; returns of how many deliveries and events."""
        count = 0
        for channel in self._queue.channels:
            jobs = await self._session.jobs_at_work(channel, _ALIVE)
            room = min(_ROUND, (_JOBS - jobs) * _BATCH)
            newcomers_room = (_JOBS_WITH_NEWCOMERS - jobs) * _BATCH
            share = self._queue.next_share(channel, room, newcomers_room)
            if share is not None:
                results = await self._session.dispatch_event_queues(
                    channel, share.priority, share.events, each=share.each, lease=_DISPATCH_LEASE
                )
                count += self._queue.dispatched(share, results)
        if time.monotonic() >= self._due.next:
            count += await self._dispatch_due()
        return count

    async def _dispatch_due(self) -> int:
        count, started = 0, time.monotonic()
        due = await self._session.next_due()
        self._due.looked(due.values(), started, time.monotonic())
        if due.get("", 1.0) <= 0:
            count += await self._session.fan_out_due_events(5)
        if due.get("*", 1.0) <= 0:
            count += await self._session.end_leases(_LEASES)
        for channel, seconds in due.items():
            if channel not in ("", "*") and seconds <= 0:
                jobs = await self._session.jobs_at_work(channel, _ALIVE)
                room = (_JOBS - jobs) * _BATCH
                if room <= 0 and jobs < _JOBS_WITH_NEWCOMERS:
                    room = _DUE_AT_LEAST
                if room > 0:
                    count += await self._session.dispatch_due(channel, room, _DISPATCH_LEASE)
        return count

    async def _clean_up(self) -> None:
        now = time.monotonic()
        if (
            self._may_vacuum
            and self._vacuum_needed
            and now - self._vacuumed_at > self._vacuum_after
        ):
            await self._session.vacuum()
            self._vacuum_needed, self._vacuumed_at = False, time.monotonic()
            # an old snapshot may keep the dead rows: vacuums that take longer each time must not delay badges
            self._vacuum_after = max(_VACUUM, _VACUUM_SHARE * (self._vacuumed_at - now))
        if now - self._cleaned_at > _CLEAN_UP:
            await self._session.tidy()
            await log_blocking_sessions(self._session)
            self._cleaned_at = now

    async def _idle(self) -> None:
        """Waits until the listener finds something, or until something falls due."""
        until = self._due.earliest
        if time.monotonic() >= until:
            await self._dispatch_due()
            until = self._due.soonest
        # events that wait for capacity, and what is locked by a transaction, are tried again soon
        completing = (self._invitations, self._pending, self._fan_outs)
        waiting = self._queue or any(each.waiting for each in completing)
        remaining = _CHECK_DUE if waiting else max(0.0, until - time.monotonic())
        await self._wait_for_scan(min(_IDLE_MOST, remaining))
        self._due.next = self._due.earliest


async def log_blocking_sessions(session: LeaderSession) -> None:  # pragma: no mutate block
    """Logs the sessions of others that block the service, for an operator to end."""
    for blocking in await blocking_sessions(session):
        log.warning("a session blocks the service", session=str(blocking), pid=blocking.pid)


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[LeaderSession]:  # pragma: no mutate block
    session = await LeaderSession.connect(dsn)
    try:
        yield session
    finally:
        with suppress(psycopg.Error):
            await session.close()


class Share(Struct, frozen=True):
    """What to dispatch next: `each` deliveries of events of one channel and priority ({event id: last dispatched})."""

    channel: str
    priority: int
    events: dict[int, int]
    each: int


class EventQueue:
    """Round robin: an event that had its share goes to the end of the queue.

    A huge fan-out thus takes its share and no more: the one mail of another event is in the next share. What is
    kept here is only a hint of what the table tocsin.event_queue has.
    """

    MOST = 200  # events in a share
    NEWCOMER = 20  # deliveries that a new event may dispatch at once, however busy the channel

    def __init__(self) -> None:
        self._queues: dict[tuple[str, int], OrderedDict[int, int]] = {}

    def __bool__(self) -> bool:
        return any(self._queues.values())

    def add(self, event_id: int, channel: str, priority: int) -> None:
        """Adds an event; one that is queued already keeps its place."""
        self._queues.setdefault((channel, priority), OrderedDict()).setdefault(event_id, 0)

    @property
    def channels(self) -> list[str]:
        """Channels for which an event is queued."""
        return sorted({channel for (channel, _), queue in self._queues.items() if queue})

    def next_share(self, channel: str, room: int, newcomers_room: int) -> Share | None:
        """Returns the next share of a channel that has room for so many deliveries.

        Where it has none, events that never had a share still get a first small one, within `newcomers_room`.
        """
        for priority in sorted({p for c, p in self._queues if c == channel}, reverse=True):
            queue = self._queues[channel, priority]
            if room > 0 and queue:
                events = dict(list(queue.items())[: self.MOST])
                return Share(channel, priority, events, max(1, min(500, room // len(events))))
            new = [event_id for event_id, last in queue.items() if last == 0][: self.MOST]
            if newcomers_room > 0 and new:
                return Share(channel, priority, dict.fromkeys(new, 0), self.NEWCOMER)
        return None

    def dispatched(self, share: Share, results: Iterable[DispatchedEvent]) -> int:
        """Notes what was dispatched of a share; returns how many deliveries."""
        queue = self._queues[share.channel, share.priority]
        count = 0
        for result in results:
            count += result.taken
            if result.last is None:
                queue.pop(result.event_id, None)
            else:
                queue[result.event_id] = result.last
                queue.move_to_end(result.event_id)
        return count


class Invitations:  # pragma: no mutate block
    """Assigns invitations to the owners of their addresses: either may be committed first."""

    def __init__(self, session: LeaderSession) -> None:
        self._session = session
        self._snapshot: str | None = None
        self._busy: list[str] = []
        self._checked_at = 0.0

    @property
    def waiting(self) -> bool:
        """Whether an open transaction locks some of them."""
        return bool(self._busy)

    async def assign(self, *, idle: bool) -> bool:
        """Assigns what was committed, at intervals and before idling; returns whether an inbox changed."""
        if not idle and time.monotonic() - self._checked_at < _CHECK:
            return False
        found = await self._session.assignable_since(self._snapshot)
        assigned = 0
        if addresses := {*found.addresses, *self._busy}:
            done = await self._session.assign_invitations(sorted(addresses))
            assigned, self._busy = done.assigned, done.busy
        self._snapshot, self._checked_at = found.snapshot, time.monotonic()
        return assigned > 0


class PendingChanges:  # pragma: no mutate block
    """Applies what calls left for after their commit (sql/functions/subject.sql)."""

    def __init__(self, session: LeaderSession) -> None:
        self._session = session
        self._checked_at = 0.0
        self._left = 0

    @property
    def waiting(self) -> bool:
        """Whether some wait for open transactions to end."""
        return self._left > 0

    async def apply(self, *, idle: bool) -> None:
        """Applies those that were committed, at intervals and before idling."""
        if idle or time.monotonic() - self._checked_at >= _CHECK:
            self._left = await self._session.apply_pending_changes()
            self._checked_at = time.monotonic()


class FanOuts:  # pragma: no mutate block
    """Writes the fan-outs that are too large for one transaction (sql/functions/running_fan_out.sql)."""

    def __init__(self, session: LeaderSession) -> None:
        self._session = session
        self._next_at = 0.0
        self._running = False

    @property
    def waiting(self) -> bool:
        """Whether one is running: an open transaction may lock its event."""
        return self._running

    async def advance(self, *, idle: bool) -> bool:
        """Writes a slice, if there is one; returns whether it did."""
        started = time.monotonic()
        if not idle and started < self._next_at:
            return False
        step = await self._session.advance_fan_outs(_SLICE)
        self._running = step.running
        if step.failed is not None:
            log.error("fan-out failed", event_id=step.failed, error=step.error)
        now = time.monotonic()
        # half of the time is for what else the leader does, and for the database
        self._next_at = now + (now - started if step.people else _CHECK)
        return step.people > 0
