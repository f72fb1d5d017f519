"""The leader's listener: finds what was committed within milliseconds, and announces whose unread count changed.

It is IDLE while commits are few: each sends a wake-up signal and announces its recipients itself. While they are many,
it is ACTIVE: it scans every few milliseconds and announces what it finds, so that no commit has to send a signal
(wake.sql, docs/adr/0004 and 0026).

An announcement names recipients, never a count: the count is read for each open stream and each phone.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta

from tocsin.engine.model import Unavailable
from tocsin.engine.store.dispatch import LeaderSession, Scan

# ACTIVE: seconds between scans, four times what one takes, within bounds; and after a second without commits
_PAUSE_LEAST = 0.001
_PAUSE_MOST = 0.003
_SLOW_PAUSE = 0.02
_SLOW_AFTER = 1.0
# No commit for this long: idle. Commits are few again, as counted for this long: idle too.
_IDLE_AFTER = 0.05
_CALM_WITHIN = 0.25
# IDLE: a signal's commit has announced itself, so the scan may wait for further ones: longer while others come.
_GATHER = 0.005
_GATHER_MORE = 0.02
_OFTEN_WITHIN = 0.1
# Seconds between two heartbeats, which show that the leader is alive; and the longest wait for a signal.
_HEARTBEAT = 3.0

# A scan, and the process id of the backend that announced its recipients, if one did.
OnScan = Callable[[Scan, int | None], None]


class Listener:  # pragma: no mutate block
    """Scans on a connection of its own, where nothing else keeps it from listening."""

    def __init__(self, session: LeaderSession, on_scan: OnScan) -> None:
        self._session = session
        self._on_scan = on_scan
        self._commits = CommitRate(time.monotonic())
        self._heartbeat_at = time.monotonic()  # it was elected a moment ago
        self._snapshot: str | None = None

    async def begin(self) -> None:
        """Scans everything; the previous leader may have ended between a scan and its announcement."""
        await self._session.listen()
        await self._scan(announce=False)
        await self._session.announce_everyone()

    async def listen(self) -> None:
        """Listens until the connection is lost or it is cancelled."""
        worked_at = time.monotonic()
        while True:
            started = time.monotonic()
            await self._send_heartbeat(started)
            count = await self._scan(announce=True)
            now = time.monotonic()
            if count:
                self._commits.count(count)
                # and not when it began: a scan may take longer than _IDLE_AFTER
                worked_at = now
            calm = self._commits.counted_for(_CALM_WITHIN, now) and self._commits.is_calm(now)
            if (calm or now - worked_at > _IDLE_AFTER) and await self._session.start_idle():
                await self._idle()
                await self._session.stop_idle()
                worked_at = time.monotonic()
                self._commits.restart(worked_at)
                continue
            pause = min(_PAUSE_MOST, max(_PAUSE_LEAST, 4 * (now - started)))
            await asyncio.sleep(pause if now - worked_at < _SLOW_AFTER else _SLOW_PAUSE)

    async def _idle(self) -> None:
        """Waits for signals, until too many commits send one."""
        self._commits.restart(time.monotonic())
        # first what was committed before without a signal, and then what is still committed without one
        signals = 0
        while True:
            await self._scan(announce=not signals)
            since = time.monotonic()
            await self._send_heartbeat(since)
            if signals := await self._session.wait_for_wake(_HEARTBEAT):
                self._commits.count(signals)
                alone = time.monotonic() - since > _GATHER
                await asyncio.sleep(_GATHER if alone else _GATHER_MORE)
                if await self._too_many_signals():
                    return

    async def _send_heartbeat(self, now: float) -> None:
        """Raises Unavailable where another process was elected: this one was silent for too long."""
        if now - self._heartbeat_at >= _HEARTBEAT:
            self._heartbeat_at = now
            if not await self._session.record_heartbeat():
                raise Unavailable("another process leads")

    async def _too_many_signals(self) -> bool:
        now = time.monotonic()
        if not self._commits.counted_for(_OFTEN_WITHIN, now) or self._commits.is_light(now):
            return False
        return self._commits.is_heavy(await self._session.measure_commit_wait(), time.monotonic())

    async def _scan(self, *, announce: bool) -> int:
        """Returns how many recipients' inboxes changed."""
        scan = await self._session.scan(self._snapshot, announce=announce)
        self._snapshot = scan.snapshot
        self._on_scan(scan, self._session.pid if announce else None)
        return len(scan.recipients)


# So few a second may always send a signal, and so many never: each signal wakes each HTTP process.
_FEW = 100.0
_MANY = 2000.0
# PostgreSQL commits transactions that send a signal one after the other, each with a flush of its own. Where the median
# wait of the last ones is more than this many seconds, they are too many for the disk, or for the processors.
_WAIT = 0.001
_WAITS = 9
# This share of them may send a signal again; and twice as many every so many seconds, since a stall passes.
_FEWER = 0.6
_TWICE = 5.0


class CommitRate:
    """Counts commits, and learns how many may send a signal."""

    def __init__(self, now: float) -> None:
        self._waits: deque[float] = deque(maxlen=_WAITS)
        self._limit, self._limited_at = _MANY, now
        self.restart(now)

    def restart(self, now: float) -> None:
        """Starts to count from zero."""
        self._count, self._since = 0, now

    def count(self, commits: int) -> None:
        self._count += commits

    def counted_for(self, seconds: float, now: float) -> bool:
        """Returns whether it has counted for so long."""
        return now - self._since >= seconds

    def is_light(self, now: float) -> bool:
        """Returns whether so few sent a signal that nothing need be measured; if so, counts from zero."""
        if self._rate(now) >= _FEW:
            return False
        self._waits.clear()
        self.restart(now)
        return True

    def is_heavy(self, waits: Iterable[float], now: float) -> bool:
        """Returns whether too many send a signal; `waits` are seconds that some waited to commit. Counts from zero."""
        rate = self._rate(now)
        self.restart(now)
        self._waits.extend(waits)
        slow = len(self._waits) == _WAITS and statistics.median(self._waits) > _WAIT
        if rate > _MANY or slow:
            self._waits.clear()
            self._limit, self._limited_at = rate * _FEWER, now
            return True
        return False

    def is_calm(self, now: float) -> bool:
        """Returns whether so few come that each may send a signal; counts from zero."""
        rate = self._rate(now)
        self.restart(now)
        doublings = min(10.0, (now - self._limited_at) / _TWICE)
        return rate < max(_FEW, min(_MANY * _FEWER, self._limit * math.exp2(doublings)))

    def _rate(self, now: float) -> float:
        return self._count / max(now - self._since, 1e-6)


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
