"""Who read elsewhere: their devices are promised a silent push that corrects the badge."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta

from tocsin.engine.store.bell import Bell

# All that a person reads within this is one push for each device.
WINDOW = timedelta(seconds=5)
# The number is exact whenever it goes out, so an outage, or a phone that was off overnight, doesn't end it sooner.
LIFE = timedelta(days=1)
_ASK = 0.5
# People in one statement: a badge waits for no longer than that takes.
_MOST = 1000


class BadgePushes:
    """One leader's notes of who changed their inbox; not `wanted`, nothing comes of them."""

    def __init__(self, bell: Bell, *, wanted: bool) -> None:
        self._bell = bell
        self._wanted = wanted
        self._readers: set[str] = set()
        self._asked_at = time.monotonic()

    async def resume(self) -> None:
        """Takes up what the leader before did not come to; the first scan of a term can't know it."""
        self._readers.update(await self._bell.changed_since_mark())

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
        await self._bell.correct_badges(
            some if self._wanted else [],
            window=WINDOW,
            life=LIFE,
            seen=None if self._readers else snapshot,
        )
        if not self._readers:
            self._asked_at = now
