"""Announces each changed unread count: to open streams, to phones, and to the counters.

The announcement names recipients, never a count: whoever shows the badge reads the count then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from datetime import timedelta

from tocsin.engine.store.dispatch import LeaderSession, Scan

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


class BadgeAnnouncer:
    """What one leader announces; `pushes` as the setting, `on_announced` of the badge hub of this process."""

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
        """Takes over the pushes that the leader before did not queue: the first scan of a leader can't see them."""
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
