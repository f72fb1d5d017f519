"""The intake of an actor: room, mailbox, and what the breaker lets through to the senders."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
from msgspec import Struct

from tocsin.engine.actors.machinery.breaker import Breaker, BreakerState, Clock
from tocsin.engine.actors.machinery.mailbox import FRESH, Envelope, Mailbox, Settled
from tocsin.engine.model import CheckResult, Message, Priority, Settlement, Unsent

# Pacing: at most so many messages a second, evenly spaced.


class Pace:
    """Gives each message its slot; `rate` is messages per second, None for as fast as it goes."""

    def __init__(self, rate: float | None, clock: Clock) -> None:
        self._gap = 1 / rate if rate else 0.0
        self._clock = clock
        self._next = 0.0

    async def wait(self) -> None:
        """Waits for the next free slot and takes it."""
        if not self._gap:
            return
        now = self._clock()
        slot = max(now, self._next)
        self._next = slot + self._gap
        if slot > now:
            await asyncio.sleep(slot - now)


# The seats that bound a mailbox: who is about to claim takes them first, so back-pressure reaches the claim.


class _Waiter(Struct, eq=False):
    """Somebody who waits for seats."""

    wanted: int
    least: int  # fewer aren't worth a claim
    most: int  # that may be taken by all
    priority: Priority
    granted: asyncio.Future[int]


class Seats:
    """Bounds a mailbox: who is about to claim takes seats first, and waits where there are none.

    `reserve` more are for high priority alone, so that it never waits behind a full mailbox.
    `gate` says how many may be taken at this moment, whatever is free: an open breaker gives none, and then nobody
    waits here.
    """

    def __init__(self, size: int, reserve: int, gate: Callable[[], int]) -> None:
        self._size = size
        self._reserve = reserve
        self._gate = gate
        self._waiters: list[_Waiter] = []
        self._closed = False
        self.taken = 0

    async def take(self, wanted: int, priority: Priority) -> int:
        """Waits for seats, takes between 1 and `wanted` of them; 0 once closed, or where the gate is.

        A normal claim waits for half of the mailbox, so that a busy one isn't filled one by one.
        """
        if self._closed:
            return 0
        most = self._size + self._reserve if priority is Priority.HIGH else self._size
        wanted = min(wanted, most)
        least = 1 if priority is Priority.HIGH else max(1, min(wanted, self._size // 2))
        waiter = _Waiter(wanted, least, most, priority, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._waiters.sort(key=lambda other: -other.priority)
        self.offer()
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif not waiter.granted.cancelled():
                self.give_back(waiter.granted.result())
            raise

    def give_back(self, seats: int) -> None:
        """Frees seats for those who wait."""
        self.taken -= seats
        if self._waiters:
            self.offer()

    def offer(self) -> None:
        """Serves who waits, in order, as far as there is room; sends them home where the gate is closed."""
        while self._waiters:
            gate = self._gate()
            if not gate:
                self._send_home()
                return
            first = self._waiters[0]
            seats = min(first.most - self.taken, first.wanted, gate)
            if seats < min(first.least, gate):
                return
            self._waiters.pop(0)
            if not first.granted.done():
                self.taken += seats
                first.granted.set_result(seats)

    def close(self) -> None:
        """Sends everybody home with no seat, from now on."""
        self._closed = True
        self._send_home()

    def _send_home(self) -> None:
        for waiter in self._waiters:
            if not waiter.granted.done():
                waiter.granted.set_result(0)
        self._waiters.clear()


PATIENCE = 2.0
"""Seconds that a claim waits while nothing at all gets done: any longer, and one provider holds up the others' jobs."""

_SOON = 1.0  # seconds: when to ask again, where the breaker has no time to name

log = structlog.get_logger(__name__)


class Room:
    """Seats that are held for messages about to be claimed.

    `size` 0 says that the actor is stopping, or that the provider rests: ask again in `rest` seconds.
    """

    def __init__(self, intake: Intake, size: int, rest: float = 0.0) -> None:
        self._intake = intake
        self.size = size
        self.left = size
        self.rest = rest

    def post(
        self,
        message: Message,
        settled: Settled,
        check_result: CheckResult | None = None,
        age: float = 0.0,
    ) -> Envelope:
        """Sends one message on a seat of this room, and calls `settled` with what became of it.

        `check_result` is one of `age` seconds ago: while it holds, the message is not checked again. Beyond the room's
        size it is squeezed in: it is claimed already, and the next ones wait for that.
        """
        if self.left:
            self.left -= 1
        else:
            self._intake.squeeze()
        return self._intake.post(message, settled, check_result, age)

    async def send(
        self, message: Message, check_result: CheckResult | None = None, age: float = 0.0
    ) -> Settlement:
        """The same, awaited."""
        result: asyncio.Future[Settlement] = asyncio.get_running_loop().create_future()

        def settled(settlement: Settlement) -> None:
            if not result.done():
                result.set_result(settlement)

        envelope = self.post(message, settled, check_result, age)
        try:
            return await result
        finally:
            envelope.done = True  # cancelled, nobody waits for it


class Intake:
    """Takes messages in as far as there are seats, and gives them out as far as the breaker allows."""

    def __init__(
        self, name: str, breaker: Breaker, *, size: int, reserve: int, clock: Clock
    ) -> None:
        self._name = name
        self._breaker = breaker
        self._clock = clock
        self._seats = Seats(size, reserve, self._gate)
        self._work = asyncio.Event()
        self._moved_at = clock()
        self.mailbox = Mailbox()
        self.in_hand: set[Envelope] = set()
        self.closed = False

    # Towards the engine.

    @asynccontextmanager
    async def room(self, wanted: int, priority: Priority) -> AsyncIterator[Room]:
        """Waits for room and holds up to `wanted` seats of it; none where the provider rests, or stands still."""
        size = await self._take_seats(wanted, priority)
        room = Room(self, size, 0.0 if size or self.closed else self._breaker.retry_after or _SOON)
        try:
            yield room
        finally:
            unused, room.left = room.left, 0
            self._seats.give_back(unused)

    async def _take_seats(self, wanted: int, priority: Priority) -> int:
        while True:
            patience = max(0.05, self._moved_at + PATIENCE - self._clock())
            try:
                async with asyncio.timeout(patience):
                    return await self._seats.take(wanted, priority)
            except TimeoutError:
                if self.in_hand and self._clock() - self._moved_at >= PATIENCE:
                    return 0

    async def send(self, message: Message) -> Settlement:
        """Waits for a seat and posts the message; an open breaker answers at once."""
        if self._breaker.state is BreakerState.OPEN:
            return Settlement(self._refusal())
        async with self.room(1, message.priority) as room:
            if room.size:
                return await room.send(message)
        return Settlement(Unsent("circuit_open", room.rest) if room.rest else Unsent("shutdown"))

    def squeeze(self) -> None:
        """Takes a seat that is not there."""
        self._seats.taken += 1

    def post(
        self,
        message: Message,
        settled: Settled,
        check_result: CheckResult | None = None,
        age: float = 0.0,
    ) -> Envelope:
        """Puts a message that has a seat into the mailbox; the seat is free once it leaves."""
        envelope = Envelope(message, settled, self._clock)
        if check_result is not None:
            envelope.check_result, envelope.fresh_until = check_result, self._clock() + FRESH - age
        if self.closed or self._breaker.state is BreakerState.OPEN:
            self._seats.give_back(1)
            envelope.settle(Unsent("shutdown") if self.closed else self._refusal())
        else:
            self.mailbox.put(envelope)
            self._work.set()
        return envelope

    def close(self) -> None:
        """Takes nothing more and gives back what waits."""
        self.closed = True
        self._seats.close()
        self.return_waiting(Unsent("shutdown"))
        self._work.set()

    # Towards the senders.

    def take(self) -> Envelope | None:
        """The next message, if there is one that may be sent now; while half-open a single one, the probe."""
        if not self._breaker.closed and (self._breaker.state is BreakerState.OPEN or self.in_hand):
            return None
        while (envelope := self.mailbox.pop()) is not None:
            self._seats.give_back(1)
            if not envelope.done:
                self._moved_at = self._clock()
                self.in_hand.add(envelope)
                return envelope
        return None

    async def wait(self) -> None:
        """Waits until there may be something to take."""
        self._work.clear()
        await self._work.wait()

    def let_go(self, envelope: Envelope) -> None:
        """Its sender is done with it."""
        self._moved_at = self._clock()
        self.in_hand.discard(envelope)
        if not self._breaker.closed and self._breaker.state is BreakerState.HALF_OPEN:
            self._reconsider()

    def succeeded(self) -> None:
        """The provider answered as a working one does."""
        probed = not self._breaker.closed
        self._breaker.success()
        if probed and self._breaker.closed:
            self._reconsider()

    def failed(self, reason: str, pause: float | None = None) -> None:
        """The provider as a whole failed, or asked for a pause: if that opens the breaker, gives back what waits."""
        breaker = self._breaker
        if breaker.failure(reason) if pause is None else breaker.pause(reason, pause):
            log.warning(
                "breaker opened",
                actor=self._name,
                reason=reason,
                seconds=round(self._breaker.retry_after, 1),
            )
            self.return_waiting(self._refusal())
            self._seats.offer()
            self._await_probe()

    def return_waiting(self, outcome: Unsent) -> None:
        """Gives back all that no sender has taken."""
        waiting = self.mailbox.clear()
        self._seats.give_back(len(waiting))
        for envelope in waiting:
            envelope.settle(outcome)

    def _await_probe(self) -> None:
        """Wakes the senders as the breaker becomes half-open, which it does by time alone."""
        if self._breaker.state is BreakerState.OPEN:
            delay = max(0.001, self._breaker.retry_after)  # a timer may be early by its resolution
            asyncio.get_running_loop().call_later(delay, self._await_probe)
        else:
            self._reconsider()

    def _reconsider(self) -> None:
        """There may be room, or work, that there was not before."""
        self._seats.offer()
        if len(self.mailbox):
            self._work.set()

    def _gate(self) -> int:
        """How many seats may be taken now."""
        if self._breaker.closed:
            return sys.maxsize
        if self._breaker.state is BreakerState.OPEN:
            return 0
        return 0 if self.in_hand or self._seats.taken else 1

    def _refusal(self) -> Unsent:
        return Unsent("circuit_open", self._breaker.retry_after)
