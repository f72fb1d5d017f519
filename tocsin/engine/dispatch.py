"""The elected listener: hears commits, moves badges, and makes jobs of what is due.

Every worker and HTTP process runs one; an advisory lock elects the one that works. It DOZES while commits can afford to
ring, each of which tells the streams itself, and sleeps between rings; while they are too many it is AWAKE, and scans
every few milliseconds, so that nobody has to ring (sql/functions/bell.sql, docs/adr/0004-bell.md, 0026-ringing-tells.md).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import timedelta

import psycopg
import structlog

from tocsin.engine.badge_push import BadgePushes
from tocsin.engine.claims import Claims
from tocsin.engine.lanes import Lanes
from tocsin.engine.model import Unavailable
from tocsin.engine.store.bell import Bell
from tocsin.engine.traffic import Traffic

# AWAKE: seconds between scans, four times what one takes, within bounds; and later on while nothing comes
_SCAN_LEAST = 0.001
_SCAN_MOST = 0.01
_SLOW_SCAN = 0.02
_SLOW_AFTER = 1.0
# Nothing for this long: doze. Commits are few again, as counted for so long: doze too.
_DROWSY = 0.05
_CALM_WITHIN = 0.25
# DOZING: a ring has told the streams itself, so what else it is for may wait for company: for longer while others come.
_GATHER = 0.005
_GATHER_MORE = 0.02
_OFTEN_WITHIN = 0.1
# The longest sleep, and how often the connection proves itself alive meanwhile
_SLEEP = 30.0
_PULSE = 5.0
# A leader silent for three pulses hangs.
_SILENT = timedelta(seconds=15)
_ELECTION = 0.3

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
    """Stands for election, and leads while elected; `badge_pushes` as the setting says."""

    def __init__(self, dsn: str, *, badge_pushes: bool = True) -> None:
        self._dsn = dsn
        self._badge_pushes = badge_pushes
        self.leading = False

    async def run(self) -> None:
        """Runs until cancelled; a lost connection is opened anew."""
        while True:
            try:
                bell = await Bell.connect(self._dsn)
                try:
                    await self._elected(bell)
                    await Leader(bell, badge_pushes=self._badge_pushes).lead()
                finally:
                    self.leading = False
                    with suppress(psycopg.Error):
                        await bell.close()
            except Unavailable as error:
                log.warning("dispatcher lost its connection", error=str(error))
                await asyncio.sleep(1.0)
            except Exception:
                # a bug, or a schema in the middle of an upgrade: badges and mails hang on this task, so it goes on
                log.exception("dispatcher failed")
                await asyncio.sleep(1.0)

    async def _elected(self, bell: Bell) -> None:
        checked = time.monotonic()
        while not await bell.try_lead():
            await asyncio.sleep(_ELECTION)
            if time.monotonic() - checked > _PULSE:
                checked = time.monotonic()
                if await bell.depose_silent_leader(_SILENT):
                    log.warning("a silent leader was deposed")
        self.leading = True
        log.info("leading")


class Leader:
    """One term of office, on one connection."""

    def __init__(self, bell: Bell, *, badge_pushes: bool) -> None:
        self._bell = bell
        self._lanes = Lanes()
        self._badge_pushes = BadgePushes(bell, wanted=badge_pushes)
        self._claims = Claims(bell)
        self._snapshot: str | None = None
        self._traffic = Traffic(time.monotonic())
        self._unfolded = False
        self._folded: str | None = None  # the snapshot of the last fold
        self._vacuum_after = _VACUUM
        self._folded_at = self._vacuumed_at = self._tidied_at = time.monotonic()
        self._vacuum_needed = True
        self._due_at = 0.0  # when to ask what is due (monotonic)
        self._next_due = 0.0  # seconds until something is, as last asked

    async def lead(self) -> None:
        """Works until the connection is lost or it is cancelled."""
        if await self._bell.reset_foreign_xids():
            log.warning("transaction ids of another cluster were reset")
        await self._bell.listen()
        await self._round()
        # whoever led before may have died between a scan and its announcement
        await self._bell.announce_everyone()
        await self._badge_pushes.resume()
        worked_at = time.monotonic()
        while True:
            started = time.monotonic()
            if await self._round():
                worked_at = started
            now = time.monotonic()
            calm = self._traffic.counted_for(_CALM_WITHIN, now) and self._traffic.is_calm(now)
            if (calm or now - worked_at > _DROWSY) and await self._bell.arm():
                await self._doze()
                await self._bell.disarm()
                worked_at = time.monotonic()
                self._traffic.restart(worked_at)
                continue
            pause = min(_SCAN_MOST, max(_SCAN_LEAST, 4 * (now - started)))
            await asyncio.sleep(pause if now - worked_at < _SLOW_AFTER else _SLOW_SCAN)

    async def _doze(self) -> None:
        """Each commit rings and tells the streams itself, until too many do."""
        self._traffic.restart(time.monotonic())
        worked = await self._round()  # what was committed before
        while True:
            turns = worked and bool(self._lanes)  # a fan-out is being dispatched
            if await self._rung(_SCAN_MOST if turns else _DROWSY):
                if await self._too_many_ring():
                    return
            elif not turns and not await self._round(dozing=True, resting=True):
                await self._sleep()
            worked = await self._round(dozing=True)

    async def _too_many_ring(self) -> bool:
        now = time.monotonic()
        if not self._traffic.counted_for(_OFTEN_WITHIN, now) or self._traffic.is_light(now):
            return False
        return self._traffic.is_heavy(await self._bell.ring_turns(), time.monotonic())

    async def _rung(self, timeout: float) -> int:
        """Waits for rings, and then for those that come close behind."""
        since = time.monotonic()
        if came := await self._bell.rung(timeout):
            self._traffic.count(came)
            await asyncio.sleep(_GATHER if time.monotonic() - since > _GATHER else _GATHER_MORE)
        return came

    async def _round(self, *, dozing: bool = False, resting: bool = False) -> bool:
        """Scans, announces what nobody rang for, dispatches, folds; true if there was anything new."""
        scan = await self._bell.scan(self._snapshot, announce=not dozing)
        first, self._snapshot = self._snapshot is None, scan.snapshot
        if scan.recipients:
            self._unfolded = True
            if not dozing:
                self._traffic.count(len(scan.recipients))
            if not first:
                self._badge_pushes.note(scan.changed)
        for event_id, channel, priority in zip(
            scan.event_ids, scan.channels, scan.priorities, strict=True
        ):
            self._lanes.add(event_id, channel, priority)
        handed = await self._claims.hand_over(resting=resting)
        dispatched = await self._dispatch()
        await self._keep_house(resting=resting)
        unasked = resting and self._badge_pushes.left
        return bool(scan.recipients or scan.event_ids or dispatched or handed or unasked)

    async def _dispatch(self) -> int:
        """Makes jobs of what is due; answers of how many deliveries and events."""
        count = 0
        for channel in self._lanes.channels:
            jobs = await self._bell.jobs_at_work(channel, _ALIVE)
            room = min(_TURN, (_JOBS - jobs) * _BATCH)
            ask = self._lanes.ask(channel, room, (_JOBS_WITH_NEWCOMERS - jobs) * _BATCH)
            if ask is not None:
                turns = await self._bell.dispatch_lanes(
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
            count += await self._bell.tell_due_events(5)
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
            if await self._bell.fold_unread(self._snapshot, self._folded):
                self._vacuum_needed = True
            self._folded = self._snapshot
            self._unfolded, self._folded_at = False, now
        if self._vacuum_needed and now - self._vacuumed_at > self._vacuum_after:
            await self._bell.vacuum()
            self._vacuum_needed, self._vacuumed_at = False, time.monotonic()
            # somebody's old snapshot may keep the dead rows: badges don't wait for what gets longer each time
            self._vacuum_after = max(_VACUUM, _VACUUM_SHARE * (self._vacuumed_at - now))
        if now - self._tidied_at > _TIDY:
            await self._bell.tidy()
            self._tidied_at = now

    async def _sleep(self) -> None:
        """Until a ring, or until something falls due."""
        await self._dispatch_due()
        # lanes that wait for room, and claims for an open transaction, are tried again soon
        waiting = self._lanes or self._claims.waiting
        remaining = _LOOK_DUE if waiting else max(0.0, self._next_due)
        until = time.monotonic() + min(_SLEEP, remaining)
        while (left := until - time.monotonic()) > 0:
            if await self._rung(min(_PULSE, left)):
                break
            await self._bell.pulse()
        self._due_at = 0.0
