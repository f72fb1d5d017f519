"""The leader's listener: finds what was committed within milliseconds, by polling or by a wake-up signal.

It is IDLE while commits are few: each sends a wake-up signal and announces its recipients itself. While they are many,
it is POLLING: it scans every few milliseconds and announces what it finds, so that no commit has to send a signal
(wake.sql, docs/adr/0004 and 0026).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tocsin.engine.dispatch.commit_rate import CommitRate
from tocsin.engine.model import Unavailable
from tocsin.engine.store.dispatch import LeaderSession, Scan

# POLLING: seconds between scans, four times what one takes, within bounds; and after a second without commits
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
# Seconds between two heartbeats, by which the leader proves itself alive; and the longest wait for a signal.
_HEARTBEAT = 3.0

# A scan, and the process id of the backend that announced its recipients, if one did.
OnScan = Callable[[Scan, int | None], None]


class Listener:
    """Scans on a connection of its own, where nothing else keeps it from listening."""

    def __init__(self, session: LeaderSession, on_scan: OnScan) -> None:
        self._session = session
        self._on_scan = on_scan
        self._commits = CommitRate(time.monotonic())
        self._heartbeat_at = time.monotonic()  # it was elected a moment ago
        self._snapshot: str | None = None

    async def begin(self) -> None:
        """Scans all that is there; the leader before may have died between a scan and its announcement."""
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
        # first what was committed before without a signal, and then what still comes without one
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
