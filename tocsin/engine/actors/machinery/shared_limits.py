"""How fast providers are sent to, as all workers know it: holds and send rates.

A hold is a time in which a provider wants no requests: a Retry-After of one worker holds all of them.

A rate is how many messages a second are sent on a channel: all workers take slots from one sequence. A worker takes a
block of slots at a time: a quarter of a second of the rate, or as many as messages wait. So a message costs no
statement, the workers' slots are disjoint, and nothing has to be given back: a slot that was not used expires. In any
time t at most rate * (t + EXPIRES) + 1 messages are begun, however many workers there are.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import TypeVar

from tocsin.engine.actors.machinery.envelope import Clock
from tocsin.engine.model import Conflict, SendHold, Unavailable

BLOCK = 0.25
"""Seconds of the rate in one block of slots."""
EXPIRES = 0.25
"""Seconds after its time for which a slot may be used: so a sender that is a little late loses none."""
_SAME = 1.0  # seconds by which a hold must be longer than the known one to be shared again
_MOST = 10_000  # remembered
_RETRY = 0.5  # seconds until slots are asked for again, while the database is unavailable

ShareHold = Callable[[SendHold], Awaitable[None]]
TakeSlots = Callable[[int, float], Awaitable[float]]
"""Takes so many slots that are so many seconds apart; returns in how many seconds the first one is."""

T = TypeVar("T")


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


class SendRate:
    """The slots of one worker for a channel of `rate` messages a second, for all actors of the channel."""

    def __init__(self, rate: float, take: TakeSlots, *, clock: Clock = time.monotonic) -> None:
        self.rate = rate
        self._gap = 1 / rate
        self._take = take
        self._clock = clock
        self._first = 0.0  # when the first slot that is left may be used
        self._left = 0
        self._lock = asyncio.Lock()
        self._closed = asyncio.Event()

    async def next(self, pop: Callable[[], T | None], waiting: Callable[[], int]) -> T | None:
        """Waits for a slot and returns the next message, as `pop` has it then; None if no message waits.

        So the order of the messages is decided when one of them may be sent.
        """
        async with self._lock:
            if not waiting() or not await self._slot(waiting):
                return None
            message = pop()
            if message is not None:
                self._left -= 1
                self._first += self._gap
            return message

    def close(self) -> None:
        """Ends all waiting: the worker stops."""
        self._closed.set()

    async def _slot(self, waiting: Callable[[], int]) -> bool:
        """Waits until there is a slot that may be used now; false if the worker stops."""
        self._drop_expired()
        while not self._left and not self._closed.is_set():
            count = max(1, min(waiting(), int(self.rate * BLOCK)))
            try:
                delay = await self._take(count, self._gap)
            except (Unavailable, Conflict):
                await self._sleep(_RETRY)
            else:
                self._first, self._left = self._clock() + delay, count
        await self._sleep(self._first - self._clock())
        return not self._closed.is_set()

    def _drop_expired(self) -> None:
        late = self._clock() - EXPIRES - self._first
        if self._left and late > 0:
            expired = min(self._left, int(late / self._gap) + 1)
            self._left -= expired
            self._first += expired * self._gap

    async def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._closed.wait()
