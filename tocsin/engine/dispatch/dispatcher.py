"""Who is elected: hears commits, moves badges, and makes jobs of what is due.

Every worker and HTTP process runs a dispatcher; the row tocsin.leader names the one that works
(sql/functions/leader.sql). Its listener (engine/dispatch/listener.py) notices what was committed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import psycopg
import structlog

from tocsin.engine.dispatch.event_queue import Lanes
from tocsin.engine.dispatch.listener import Listener, Told
from tocsin.engine.model import Unavailable
from tocsin.engine.store.connection import Availability
from tocsin.engine.store.dispatch import LeaderSession, Scan
from tocsin.engine.store.health import blocking_sessions

# Who read elsewhere: their devices are promised a silent push that corrects the badge.

# All that a person reads within this is one push for each device.
WINDOW = timedelta(seconds=5)
# The number is exact whenever it goes out, so an outage, or a phone that was off overnight, doesn't end it sooner.
LIFE = timedelta(days=1)
_ASK = 0.5
# People in one statement: a badge waits for no longer than that takes.
_MOST = 1000


class BadgePushes:
    """One leader's notes of who changed their inbox; not `wanted`, nothing comes of them."""

    def __init__(self, bell: LeaderSession, *, wanted: bool) -> None:
        self._bell = bell
        self._wanted = wanted
        self._readers: set[str] = set()
        self._asked_at = time.monotonic()

    async def resume(self) -> None:
        """Takes up what the leader before did not come to; the first scan of a term can't know it."""
        self._readers.update(await self._bell.changed_since_badge_pushes())

    def note(self, readers: Iterable[str]) -> None:
        """These changed their inbox."""
        self._readers.update(readers)

    @property
    def left(self) -> bool:
        """Whether somebody's devices have not been asked for yet."""
        return bool(self._readers)

    async def ask(self, snapshot: str, *, resting: bool) -> None:
        """Asks for the pushes, now and then and before a rest; `snapshot` saw all who were noted."""
        now = time.monotonic()
        if not self._readers or not (resting or now - self._asked_at > _ASK):
            return
        some = [self._readers.pop() for _ in range(min(_MOST, len(self._readers)))]
        await self._bell.queue_badge_pushes(
            some if self._wanted else [],
            window=WINDOW,
            life=LIFE,
            seen=None if self._readers else snapshot,
        )
        if not self._readers:
            self._asked_at = now


# Invitations and their claims, committed in either order: what then belongs to the claimant is handed over.

# Seconds between two looks: a claim that met an open transaction is rare, and nobody waits for it.
_LOOK = 0.1


class Claims:
    """What the listener has still to hand over."""

    def __init__(self, bell: LeaderSession) -> None:
        self._bell = bell
        self._snapshot: str | None = None
        self._busy: list[str] = []
        self._looked_at = 0.0

    @property
    def waiting(self) -> bool:
        """Whether an open transaction holds some of it."""
        return bool(self._busy)

    async def assign_invitations(self, *, resting: bool) -> bool:
        """Looks, now and then or before a rest; true where something came into an inbox."""
        if not resting and time.monotonic() - self._looked_at < _LOOK:
            return False
        found = await self._bell.assignable_since(self._snapshot)
        handed = 0
        if addresses := {*found.addresses, *self._busy}:
            done = await self._bell.assign_invitations(sorted(addresses))
            handed, self._busy = done.assigned, done.busy
        self._snapshot, self._looked_at = found.snapshot, time.monotonic()
        return handed > 0


# Between two turns of work: four times what one takes, within bounds. Nothing for this long: rest.
_PAUSE_LEAST = 0.001
_PAUSE_MOST = 0.01
_REST = 0.05
# The longest rest
_SLEEP = 30.0
# A listener that was silent for five of its beats hangs.
_SILENT = timedelta(seconds=15)
_ELECTION = 0.3
# Seconds before a new connection, after one was lost.
_AGAIN = 0.2
# Seconds between two lines of the log on sessions of others that are in the way.
_REMIND = 60.0

_FOLD = 0.25
_VACUUM = 2.0
_VACUUM_SHARE = 20  # times as long as one takes is between two
_TIDY = 60.0
_LOOK_DUE = 0.1

# Jobs of one channel at work at a time: enough to keep every actor busy, few enough that a newcomer is soon served.
_JOBS = 8
_JOBS_WITH_NEWCOMERS = 32
_BATCH = 500
# Retries don't wait for the end of a huge fan-out, which takes all the room that there is.
_DUE_AT_LEAST = 50
# Deliveries in one turn: a badge waits for no longer than that takes.
_TURN = 1000
# So many leases that ran out are ended at once.
_LEASES = 100
# A dispatched delivery whose job vanished is looked for again after this long.
_DISPATCH_LEASE = timedelta(seconds=120)
# Jobs of a worker that didn't beat for longer don't count any more.
_ALIVE = timedelta(seconds=15)

log = structlog.get_logger("tocsin.dispatch")


class Dispatcher:
    """Stands for election, and leads while elected; `badge_pushes` as the setting says, `told` as the listener's."""

    def __init__(
        self,
        dsn: str,
        *,
        badge_pushes: bool = True,
        told: Told | None = None,
        availability: Availability | None = None,
    ) -> None:
        self._dsn = dsn
        self._availability = availability or Availability(dsn)
        self._told = told
        self._badge_pushes = badge_pushes
        self.leading = False

    async def run(self) -> None:
        """Runs until cancelled; a lost connection is opened anew."""
        while True:
            try:
                async with _connected(self._dsn) as bell:
                    await self._elected(bell)
                    async with _connected(self._dsn) as desk:
                        self.leading = True
                        log.info("leading")
                        pushes = self._badge_pushes
                        await Leader(bell, desk, badge_pushes=pushes, told=self._told).lead()
            except Unavailable as error:
                if self.leading:
                    log.info("no longer leading", reason=str(error))
                self._availability.report_lost(broken=False)
                await self._availability.wait()
                await asyncio.sleep(_AGAIN)
            except Exception:
                # a bug, or a schema in the middle of an upgrade: badges and mails hang on this task, so it goes on
                log.exception("dispatcher failed")
                await asyncio.sleep(1.0)
            finally:
                self.leading = False
                if self._told is not None:
                    self._told(0, ())  # another backend may get this one's process id

    async def _elected(self, bell: LeaderSession) -> None:
        silent_at = time.monotonic() + _REMIND
        while not await bell.try_lead(_SILENT):
            await asyncio.sleep(_ELECTION)
            if time.monotonic() > silent_at:
                silent_at += _REMIND
                if not await bell.has_leader(_SILENT):
                    await report_in_the_way(bell)


class Leader:
    """One term of office: a listener, and beside it, on a connection of its own, the work that it finds."""

    def __init__(
        self, bell: LeaderSession, desk: LeaderSession, *, badge_pushes: bool, told: Told | None
    ) -> None:
        self._listener = Listener(bell, self._note, told)
        self._bell = desk
        self._lanes = Lanes()
        self._badge_pushes = BadgePushes(desk, wanted=badge_pushes)
        self._claims = Claims(desk)
        self._news = asyncio.Event()
        self._snapshot: str | None = None  # what the listener saw last
        self._unfolded = False
        self._folded: str | None = None  # the snapshot of the last fold
        self._vacuum_after = _VACUUM
        self._folded_at = self._vacuumed_at = self._tidied_at = time.monotonic()
        self._vacuum_needed = self._may_vacuum = True
        self._due_at = 0.0  # when to ask what is due (monotonic)
        self._next_due = 0.0  # seconds until something is, as last asked

    async def lead(self) -> None:
        """Works until a connection is lost or it is cancelled."""
        if await self._bell.reset_foreign_xids():
            log.warning("transaction ids of another cluster were reset")
        self._may_vacuum = await self._bell.may_vacuum()
        if not self._may_vacuum:  # PostgreSQL 15 and 16 let only a table's owner vacuum it
            cure = "autovacuum_naptime = 10s, or PostgreSQL 17"
            log.info("only autovacuum clears the small tables", cure=cure)
        await self._listener.begin()
        await self._badge_pushes.resume()
        both = [
            asyncio.create_task(self._listener.listen(), name="listen"),
            asyncio.create_task(self._work(), name="dispatch"),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            outcomes = await asyncio.gather(*both, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    def _note(self, scan: Scan) -> None:
        """What the listener found."""
        first, self._snapshot = self._snapshot is None, scan.snapshot
        self._unfolded = self._unfolded or bool(scan.recipients)
        if not first:
            self._badge_pushes.note(scan.changed)
        for event_id, channel, priority in zip(
            scan.event_ids, scan.channels, scan.priorities, strict=True
        ):
            self._lanes.add(event_id, channel, priority)
        self._news.set()  # in any case: it may be that something fell due, which no scan shows

    async def _work(self) -> None:
        while True:
            started = time.monotonic()
            self._news.clear()
            if not await self._turn() and not await self._woken(_REST):
                if not await self._turn(resting=True):
                    await self._sleep()
                continue
            pause = 4 * (time.monotonic() - started)
            await asyncio.sleep(min(_PAUSE_MOST, max(_PAUSE_LEAST, pause)))

    async def _turn(self, *, resting: bool = False) -> bool:
        """Hands over, dispatches, folds; true if there is more to do at once."""
        handed = await self._claims.assign_invitations(resting=resting)
        dispatched = await self._dispatch()
        await self._keep_house(resting=resting)
        unasked = resting and self._badge_pushes.left
        return bool(dispatched or handed or unasked)

    async def _woken(self, timeout: float) -> bool:
        """Waits for what the listener finds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._news.wait()
        return self._news.is_set()

    async def _dispatch(self) -> int:
        """Makes jobs of what is due; answers of how many deliveries and events."""
        count = 0
        for channel in self._lanes.channels:
            jobs = await self._bell.jobs_at_work(channel, _ALIVE)
            room = min(_TURN, (_JOBS - jobs) * _BATCH)
            ask = self._lanes.ask(channel, room, (_JOBS_WITH_NEWCOMERS - jobs) * _BATCH)
            if ask is not None:
                turns = await self._bell.dispatch_event_queues(
                    channel, ask.priority, ask.lanes, each=ask.each, lease=_DISPATCH_LEASE
                )
                count += self._lanes.took(ask, turns)
        if time.monotonic() >= self._due_at:
            count += await self._dispatch_due()
        return count

    async def _dispatch_due(self) -> int:
        count = 0
        due = await self._bell.next_due()
        if due.get("", 1.0) <= 0:
            count += await self._bell.fan_out_due_events(5)
        if due.get("*", 1.0) <= 0:
            count += await self._bell.end_leases(_LEASES)
        for channel, seconds in due.items():
            if channel not in ("", "*") and seconds <= 0:
                jobs = await self._bell.jobs_at_work(channel, _ALIVE)
                room = (_JOBS - jobs) * _BATCH
                if room <= 0 and jobs < _JOBS_WITH_NEWCOMERS:
                    room = _DUE_AT_LEAST
                if room > 0:
                    count += await self._bell.dispatch_due(channel, room, _DISPATCH_LEASE)
        soonest = min((seconds for seconds in due.values() if seconds > 0), default=_SLEEP)
        late = any(seconds <= 0 for seconds in due.values())
        self._due_at = time.monotonic() + (_LOOK_DUE if late else min(soonest, _LOOK_DUE))
        self._next_due = min(soonest, _LOOK_DUE) if late else soonest
        return count

    async def _keep_house(self, *, resting: bool) -> None:
        now = time.monotonic()
        assert self._snapshot is not None
        await self._badge_pushes.ask(self._snapshot, resting=resting)
        if self._unfolded and (resting or now - self._folded_at > _FOLD):
            # the listener goes on meanwhile, and notes what is for the next time
            self._unfolded, announced = False, self._snapshot
            if await self._bell.fold_unread(announced, self._folded):
                self._vacuum_needed = True
            self._folded, self._folded_at = announced, now
        if (
            self._may_vacuum
            and self._vacuum_needed
            and now - self._vacuumed_at > self._vacuum_after
        ):
            await self._bell.vacuum()
            self._vacuum_needed, self._vacuumed_at = False, time.monotonic()
            # somebody's old snapshot may keep the dead rows: badges don't wait for what gets longer each time
            self._vacuum_after = max(_VACUUM, _VACUUM_SHARE * (self._vacuumed_at - now))
        if now - self._tidied_at > _TIDY:
            await self._bell.tidy()
            await report_in_the_way(self._bell)
            self._tidied_at = now

    async def _sleep(self) -> None:
        """Until the listener finds something, or until something falls due."""
        await self._dispatch_due()
        # lanes that wait for room, and claims for an open transaction, are tried again soon
        waiting = self._lanes or self._claims.waiting
        remaining = _LOOK_DUE if waiting else max(0.0, self._next_due)
        await self._woken(min(_SLEEP, remaining))
        self._due_at = 0.0


async def report_in_the_way(bell: LeaderSession) -> None:
    """Logs the sessions of others that block the service, for an operator to end."""
    for session in await blocking_sessions(bell):
        log.warning("a session is in the way", session=str(session), pid=session.pid)


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[LeaderSession]:
    bell = await LeaderSession.connect(dsn)
    try:
        yield bell
    finally:
        with suppress(psycopg.Error):
            await bell.close()
