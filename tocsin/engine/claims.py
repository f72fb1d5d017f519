"""Invitations and their claims, committed in either order: what then belongs to the claimant is handed over."""

from __future__ import annotations

import time

from tocsin.engine.store.bell import Bell

# Seconds between two looks: a claim that met an open transaction is rare, and nobody waits for it.
_LOOK = 0.1


class Claims:
    """What the listener has still to hand over."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._snapshot: str | None = None
        self._busy: list[str] = []
        self._looked_at = 0.0

    @property
    def waiting(self) -> bool:
        """Whether an open transaction holds some of it."""
        return bool(self._busy)

    async def hand_over(self, *, resting: bool) -> bool:
        """Looks, now and then or before a rest; true where something came into an inbox."""
        if not resting and time.monotonic() - self._looked_at < _LOOK:
            return False
        found = await self._bell.claimed_since(self._snapshot)
        handed = 0
        if addresses := {*found.addresses, *self._busy}:
            done = await self._bell.hand_over(sorted(addresses))
            handed, self._busy = done.handed, done.busy
        self._snapshot, self._looked_at = found.snapshot, time.monotonic()
        return handed > 0
