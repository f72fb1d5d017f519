"""The leader's listener: finds what was committed within milliseconds, and announces whose unread count changed.

While it is idle, each commit sends a wake-up signal and announces its recipients itself. While it is active, it scans
again and again and announces what it finds, so that no commit has to send a signal (wake.sql, docs/adr/0084).

An announcement names recipients, never a count: the count is read for each open stream and each phone.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection
from datetime import timedelta

from tocsin.engine.model import Unavailable
from tocsin.engine.store.dispatch import LeaderSession, Scan

# Seconds between two heartbeats, which show that the leader is alive; and the longest wait for a signal.
_HEARTBEAT = 3.0

# A scan, and the process id of the backend that announced its recipients, if one did.
OnScan = Callable[[Scan, int | None], None]


class Listener:  # pragma: no mutate block
    """Scans on a connection of its own, where nothing else keeps it from listening."""

    def __init__(self, session: LeaderSession, on_scan: OnScan) -> None:
        self._session = session
        self._on_scan = on_scan
        self._clock = asyncio.get_running_loop().time
        self._rule = AnnouncementRule(self._clock())
        self._heartbeat_at = self._clock()  # it was elected a moment ago
        self._snapshot: str | None = None

    async def begin(self) -> None:
        """Scans everything; the previous leader may have ended between a scan and its announcement."""
        await self._session.listen()
        await self._scan(announce=False)
        await self._session.announce_everyone()

    async def listen(self) -> None:
        """Listens until the connection is lost or it is cancelled."""
        while True:
            started = self._clock()
            await self._send_heartbeat(started)
            scan = await self._scan(announce=True, start_idle=self._rule.may_be_idle(started))
            if scan.idle:
                await self._idle()
            else:
                pause = self._rule.pause(started, self._clock(), found=bool(scan.recipients))
                await asyncio.sleep(pause)

    async def _idle(self) -> None:
        """Waits for signals, until too many commits send one."""
        # first what was committed before without a signal
        scan, signals, pause = await self._scan(announce=True), 0, 0.0
        while not self._rule.is_too_much(signals, scan.waiting or 0, self._clock()):
            await self._send_heartbeat(self._clock())
            signals = await self._session.wait_for_wake(_HEARTBEAT)
            if signals:
                await asyncio.sleep(max(pause, AnnouncementRule.GATHER))
            started = self._clock()
            scan = await self._scan(announce=not signals)
            pause = self._rule.pause(started, self._clock(), found=True)
        await self._session.stop_idle()

    async def _send_heartbeat(self, now: float) -> None:
        """Raises Unavailable where another process was elected: this one was silent for too long."""
        if now - self._heartbeat_at >= _HEARTBEAT:
            self._heartbeat_at = now
            if not await self._session.record_heartbeat():
                raise Unavailable("another process leads")

    async def _scan(self, *, announce: bool, start_idle: bool = False) -> Scan:
        scan = await self._session.scan(self._snapshot, announce=announce, start_idle=start_idle)
        self._snapshot = scan.snapshot
        self._on_scan(scan, self._session.pid if announce else None)
        return scan


class AnnouncementRule:
    """Decides whether commits announce their recipients themselves (the leader is idle), or the leader scans for them.

    PostgreSQL commits transactions that send a signal one by one. So commits send one while they seldom meet: the idle
    leader becomes active when SCANS scans in a row find commits that wait for each other, or too MANY signals. Active,
    it scans for a SHARE of the time, and every RETRY seconds becomes idle if no transaction is under way.
    """

    GATHER = 0.01  # seconds from a signal to an idle leader's scan: one scan for all commits of that time
    SCANS = 10
    MANY = 2000  # a second: each wakes each HTTP process
    SHARE = 0.2
    QUICKEST_OF = 100  # scans: on a busy machine most of them also wait for a processor
    RETRY = 1.0
    LONGEST = 0.02  # seconds between two scans while nothing is found

    def __init__(self, now: float) -> None:
        self._took: deque[float] = deque(maxlen=self.QUICKEST_OF)
        self._too_much = 0
        self._counted_at = self._found_at = self._retry_at = now

    def may_be_idle(self, now: float) -> bool:
        """Returns whether it is time to try to become idle: where a transaction is open, it is not possible."""
        if now < self._retry_at:
            return False
        self._retry_at = now + self.RETRY
        return True

    def is_too_much(self, signals: int, waiting: int, now: float) -> bool:
        """Returns whether commits should send no more signals; `signals` came since the last call, `waiting` wait."""
        many = signals > self.MANY * (now - self._counted_at)
        self._counted_at = now
        self._too_much = self._too_much + 1 if many or waiting else 0
        if self._too_much < self.SCANS:
            return False
        self._too_much = 0
        self._found_at = now
        self._retry_at = now + self.RETRY
        return True

    def pause(self, started: float, ended: float, *, found: bool) -> float:
        """Returns the seconds until the next scan, after one that took so long."""
        self._took.append(ended - started)
        if found:
            self._found_at = ended
        pause = max(min(self._took) * (1 / self.SHARE - 1), self.SHARE * (ended - self._found_at))
        return min(pause, self.LONGEST)


PUSH_WINDOW = timedelta(seconds=5)
"""A silent push is due after this: all that a person reads within it is one push for each device."""
PUSH_LIFE = timedelta(days=1)
"""A push that waited for an outage, or for a phone that was off, still has the count of the moment when it is sent."""
_QUEUE_EVERY = 0.5  # seconds
_FOLD_EVERY = 0.25
# Recipients in one statement: it must not delay announcements for long.
_RECIPIENTS = 1000

# The recipients whose count changed, as announced by the backend with this process id.
OnAnnounced = Callable[[int, Collection[str]], None]


class BadgeAnnouncer:  # pragma: no mutate block
    """Announces changed unread counts: to the streams of this process, to phones, and to the counters.

    `pushes` is the setting, `on_announced` that of the badge hub of this process.
    """

    def __init__(
        self, session: LeaderSession, *, pushes: bool, on_announced: OnAnnounced | None
    ) -> None:
        self._session = session
        self._pushes = pushes
        self._on_announced = on_announced
        self._changed: set[str] = set()  # recipients whose phones have no push yet
        self._snapshot: str | None = None  # of the last scan
        self._queued_at = self._folded_at = time.monotonic()
        self._unfolded = False
        self._folded: str | None = None  # the snapshot of the last fold

    async def resume(self) -> None:
        """Finds the pushes that the previous leader did not queue: the first scan of a leader can't see them."""
        self._changed.update(await self._session.changed_since_badge_pushes())

    def announce(self, scan: Scan, announced_by: int | None) -> None:
        """Announces what a scan found; `announced_by` is the backend that notified other processes, if one did."""
        if announced_by is not None and self._on_announced is not None:
            self._on_announced(announced_by, scan.recipients)
        if self._snapshot is not None:
            self._changed.update(scan.changed)
        self._snapshot = scan.snapshot
        self._unfolded = self._unfolded or bool(scan.recipients)

    @property
    def pending(self) -> bool:
        """Whether pushes are still to be queued."""
        return bool(self._changed)

    async def queue_pushes(self, *, idle: bool) -> None:
        """Queues silent pushes for the devices of recipients whose inbox changed, at intervals and before idling."""
        now = time.monotonic()
        if not self._changed or not (idle or now - self._queued_at > _QUEUE_EVERY):
            return
        some = [self._changed.pop() for _ in range(min(_RECIPIENTS, len(self._changed)))]
        await self._session.queue_badge_pushes(
            some if self._pushes else [],
            window=PUSH_WINDOW,
            life=PUSH_LIFE,
            seen=None if self._changed else self._snapshot,
        )
        if not self._changed:
            self._queued_at = now

    async def fold(self, *, idle: bool) -> int:
        """Folds announced changes into the counters, at intervals and before idling; returns how many."""
        now = time.monotonic()
        if not self._unfolded or not (idle or now - self._folded_at > _FOLD_EVERY):
            return 0
        assert self._snapshot is not None
        # the listener scans meanwhile: what it finds is for the next fold
        self._unfolded, announced = False, self._snapshot
        count = await self._session.fold_unread(announced, self._folded)
        self._folded, self._folded_at = announced, now
        return count
