"""What the leader completes after the commit of a call: invitations, pending changes, and large fan-outs."""

from __future__ import annotations

import time

import structlog

from tocsin.engine.store.dispatch import LeaderSession

# Seconds between two checks: one that met an open transaction is rare, and nobody waits for it.
_CHECK = 0.1
# People in a slice of a fan-out: it takes some 20 ms, for which what else the leader does waits.
_SLICE = 500

log = structlog.get_logger("tocsin.dispatch")


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
