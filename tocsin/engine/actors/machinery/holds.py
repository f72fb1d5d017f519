"""For how long providers want no requests, as all workers know it: a Retry-After of one worker holds all of them."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable

from tocsin.engine.actors.machinery.envelope import Clock
from tocsin.engine.model import Conflict, SendHold, Unavailable

_SAME = 1.0  # seconds by which a hold must be longer than the known one to be shared again
_MOST = 10_000  # remembered

ShareHold = Callable[[SendHold], Awaitable[None]]


def target_key(kind: str, address: str) -> str:
    """Returns the key of one target; not its address, which may be a secret."""
    return f"{kind}/{hashlib.blake2b(address.encode(), digest_size=16).hexdigest()}"


class Holds:
    """The holds of one worker, by key: an actor's name, or a target of it.

    `share` stores a hold for the other workers; what they stored comes by `learn`.
    """

    def __init__(self, share: ShareHold | None = None, *, clock: Clock = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._until: dict[str, float] = {}
        self._shared: dict[str, float] = {}  # the longest that all workers know
        self._followers: dict[str, Callable[[str, float], None]] = {}
        self._sharing: set[asyncio.Task[None]] = set()

    def left(self, *keys: str) -> float:
        """Returns for how many seconds at least one of these is held; 0 if none is."""
        until = max((self._until.get(key, 0.0) for key in keys), default=0.0)
        return max(0.0, until - self._clock())

    def follow(self, key: str, on_hold: Callable[[str, float], None]) -> None:
        """Calls `on_hold` with reason and seconds of each hold of this key that is learnt."""
        self._followers[key] = on_hold

    def add(self, hold: SendHold) -> None:
        """Keeps a hold that a provider asked this worker for, and shares it."""
        if self._is_news(hold) and self._share is not None:
            task = asyncio.create_task(self._store(self._share, hold))
            self._sharing.add(task)
            task.add_done_callback(self._sharing.discard)

    def learn(self, holds: Iterable[SendHold]) -> None:
        """Keeps holds that any worker shared."""
        for hold in holds:
            if self._is_news(hold) and hold.key in self._followers:
                self._followers[hold.key](hold.reason, hold.seconds)

    def _is_news(self, hold: SendHold) -> bool:
        """Keeps a hold; returns whether it is longer than what all workers know."""
        now = self._clock()
        until, shared = now + hold.seconds, self._shared.get(hold.key, 0.0)
        if len(self._until) >= _MOST:
            self._until = {key: each for key, each in self._until.items() if each > now}
            self._shared = {key: each for key, each in self._shared.items() if each > now}
        self._until[hold.key] = max(until, self._until.get(hold.key, 0.0))
        news = shared <= now or until > shared + _SAME
        if news:
            self._shared[hold.key] = until
        return news

    async def _store(self, share: ShareHold, hold: SendHold) -> None:
        try:
            await share(hold)
        except (Unavailable, Conflict):
            self._shared.pop(hold.key, None)  # the next response shares it
