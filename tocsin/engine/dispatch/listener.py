"""The ear of the elected one: notices what was committed, within milliseconds, by looking or by being rung.

It DOZES while commits can afford to ring, each of which tells the streams itself; while they are too many it is AWAKE,
looks every few milliseconds and announces what it finds, so that nobody has to ring (sql/functions/wake.sql,
docs/adr/0004-wake-up-signal.md and 0026-wake-up-signal-names-recipients.md).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection

from tocsin.engine.dispatch.commit_rate import Traffic
from tocsin.engine.model import Unavailable
from tocsin.engine.store.dispatch import LeaderSession, Scan

# AWAKE: seconds between looks, four times what one takes, within bounds; and later on while nothing comes
_LOOK_LEAST = 0.001
_LOOK_MOST = 0.003
_SLOW_LOOK = 0.02
_SLOW_AFTER = 1.0
# Nothing for this long: doze. Commits are few again, as counted for so long: doze too.
_DROWSY = 0.05
_CALM_WITHIN = 0.25
# DOZING: a ring has told the streams itself, so what else it is for may wait for company: for longer while others come.
_GATHER = 0.005
_GATHER_MORE = 0.02
_OFTEN_WITHIN = 0.1
# Seconds between two beats, by which the leader proves itself alive; and the longest sleep.
_BEAT = 3.0


# Whose inbox moved, as announced by the backend with this process id.
Told = Callable[[int, Collection[str]], None]


class Listener:
    """On a connection of its own, where nothing else keeps it from listening; what it finds goes to `found`.

    What it announces to the HTTP processes it also says to `told`, for the one that it is in.
    """

    def __init__(
        self, bell: LeaderSession, found: Callable[[Scan], None], told: Told | None
    ) -> None:
        self._bell = bell
        self._found = found
        self._told = told
        self._traffic = Traffic(time.monotonic())
        self._beat_at = time.monotonic()  # it was elected a moment ago
        self._snapshot: str | None = None

    async def begin(self) -> None:
        """Finds all that is there; whoever led before may have died between a look and its announcement."""
        await self._bell.listen()
        await self._look(announce=False)
        await self._bell.announce_everyone()

    async def listen(self) -> None:
        """Until the connection is lost or it is cancelled."""
        worked_at = time.monotonic()
        while True:
            started = time.monotonic()
            await self._beat(started)
            count = await self._look(announce=True)
            now = time.monotonic()
            if count:
                self._traffic.count(count)
                # and not when it began: a look may take longer than what makes drowsy
                worked_at = now
            calm = self._traffic.counted_for(_CALM_WITHIN, now) and self._traffic.is_calm(now)
            if (calm or now - worked_at > _DROWSY) and await self._bell.arm():
                await self._doze()
                await self._bell.disarm()
                worked_at = time.monotonic()
                self._traffic.restart(worked_at)
                continue
            pause = min(_LOOK_MOST, max(_LOOK_LEAST, 4 * (now - started)))
            await asyncio.sleep(pause if now - worked_at < _SLOW_AFTER else _SLOW_LOOK)

    async def _doze(self) -> None:
        """Each commit rings and tells the streams itself, until too many do."""
        self._traffic.restart(time.monotonic())
        # what was committed before, and from then on what comes without a ring
        rang = 0
        while True:
            await self._look(announce=not rang)
            since = time.monotonic()
            await self._beat(since)
            if rang := await self._bell.rung(_BEAT):
                self._traffic.count(rang)
                alone = time.monotonic() - since > _GATHER
                await asyncio.sleep(_GATHER if alone else _GATHER_MORE)
                if await self._too_many_ring():
                    return

    async def _beat(self, now: float) -> None:
        """Raises Unavailable where another process was elected: this one was silent for too long."""
        if now - self._beat_at >= _BEAT:
            self._beat_at = now
            if not await self._bell.beat():
                raise Unavailable("another process leads")

    async def _too_many_ring(self) -> bool:
        now = time.monotonic()
        if not self._traffic.counted_for(_OFTEN_WITHIN, now) or self._traffic.is_light(now):
            return False
        return self._traffic.is_heavy(await self._bell.measure_commit_wait(), time.monotonic())

    async def _look(self, *, announce: bool) -> int:
        """Answers how many inboxes moved."""
        scan = await self._bell.scan(self._snapshot, announce=announce)
        self._snapshot = scan.snapshot
        if announce and self._told is not None:
            self._told(self._bell.pid, scan.recipients)
        self._found(scan)
        return len(scan.recipients)
