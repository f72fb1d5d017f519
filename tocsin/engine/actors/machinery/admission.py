"""Admission: how many messages an actor takes, and how fast its senders get them.

A job acquires permits, one for each message in the mailbox, before it claims deliveries. So a full mailbox, or a
provider that fails, stops the claims.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import structlog
from msgspec import Struct

from tocsin.engine.actors.machinery.breaker import Breaker, BreakerState
from tocsin.engine.actors.machinery.envelope import FRESH, Clock, Envelope, Mailbox, OnSettled
from tocsin.engine.model import CheckResult, Message, Priority, Settlement, Unsent

STALL_TIMEOUT = 2.0
"""Seconds that a claim waits while the actor makes no progress: longer, and one provider delays the others' jobs."""

_SOON = 1.0  # seconds until the next try, where the breaker gives no time

log = structlog.get_logger(__name__)


class ClaimPace(Struct, frozen=True):
    """How claims wait for an actor of one endpoint among many: shortly, since others wait for their jobs.

    A claim waits `wait` seconds for permits. What gets none is due again within `spread` seconds for each delivery, so
    that an endpoint's many deliveries do not all come back at once.
    """

    wait: float
    spread: float


class _Waiter(Struct, eq=False):
    """A call that waits for permits."""

    wanted: int
    least: int  # fewer are not worth a claim
    most: int  # that may be in use by all
    priority: Priority
    granted: asyncio.Future[int]


class PermitPool:
    """The permits of a mailbox of `size` messages.

    `reserve` more are for high priority alone, so that it never waits behind a full mailbox. `limit` returns how many
    may be granted at this moment: where it is 0, since the breaker is open, calls do not wait but get none.
    """

    def __init__(self, size: int, reserve: int, limit: Callable[[], int]) -> None:
        self._size = size
        self._reserve = reserve
        self._limit = limit
        self._waiters: list[_Waiter] = []
        self._closed = False
        self.in_use = 0

    async def acquire(self, wanted: int, priority: Priority) -> int:
        """Waits for permits and returns how many it got: 1 to `wanted`, or 0 once closed or where the limit is 0.

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
        self.grant()
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif not waiter.granted.cancelled():
                self.release(waiter.granted.result())
            raise

    def release(self, count: int) -> None:
        """Returns permits to the pool, for those that wait."""
        self.in_use -= count
        if self._waiters:
            self.grant()

    def grant(self) -> None:
        """Grants permits in order, as far as there are any; none to all that wait where the limit is 0."""
        while self._waiters:
            limit = self._limit()
            if not limit:
                self._grant_none()
                return
            first = self._waiters[0]
            count = min(first.most - self.in_use, first.wanted, limit)
            if count < min(first.least, limit):
                return
            self._waiters.pop(0)
            if not first.granted.done():
                self.in_use += count
                first.granted.set_result(count)

    def close(self) -> None:
        """Grants nothing any more."""
        self._closed = True
        self._grant_none()

    def _grant_none(self) -> None:
        for waiter in self._waiters:
            if not waiter.granted.done():
                waiter.granted.set_result(0)
        self._waiters.clear()


class Permits:
    """Permits that are held for messages about to be claimed.

    `size` is 0 if the actor stops or the provider fails: `retry_after` is then in how many seconds to try again.
    `following` are the providers that a message goes on to, in order, where this one fails before it could accept it.
    """

    def __init__(self, admission: Admission, size: int, retry_after: float = 0.0) -> None:
        self._admission = admission
        self.spread = admission.pace.spread if admission.pace else 0.0  # seconds a delivery
        self.size = size
        self.left = size
        self.retry_after = retry_after
        self.following: Sequence[Admission] = ()

    def submit(
        self,
        message: Message,
        on_settled: OnSettled,
        check_result: CheckResult | None = None,
        age: float = 0.0,
    ) -> Envelope:
        """Sends one message on one of these permits, and calls `on_settled` with its settlement.

        `check_result` is one of `age` seconds ago: while it holds, the message is not checked again. A message for
        which no permit is left is claimed already, so it is forced in, and the next claims wait for that.
        """
        if self.left:
            self.left -= 1
        else:
            self._admission.force()
        on_settled = _with_following(self.following, message, on_settled)
        return self._admission.submit(message, on_settled, check_result, age)


def _with_following(
    following: Sequence[Admission], message: Message, on_settled: OnSettled
) -> OnSettled:
    """Returns what submits a message to the next provider if that is possible, and else calls `on_settled`.

    It is checked again there, and its permit is beyond the limit: it had one already.
    """
    if not following:
        return on_settled
    admission, *rest = following

    def on_settled_before(settlement: Settlement) -> None:
        if settlement.elsewhere and not admission.closed:
            admission.force()
            admission.submit(message, _with_following(rest, message, on_settled))
        else:
            on_settled(settlement)

    return on_settled_before


class Admission:
    """Takes messages in as far as there are permits, and gives them to senders as far as the breaker allows."""

    def __init__(
        self,
        name: str,
        provider: str,
        breaker: Breaker,
        *,
        size: int,
        reserve: int,
        clock: Clock,
        pace: ClaimPace | None = None,
    ) -> None:
        self.pace = pace
        self._name = name
        self._provider = provider
        self._breaker = breaker
        self._clock = clock
        self._permits = PermitPool(size, reserve, self._limit)
        self._work = asyncio.Event()
        self._progress_at = clock()
        self.mailbox = Mailbox()
        self.in_flight: set[Envelope] = set()
        self.closed = False

    # For the engine.

    @asynccontextmanager
    async def acquire(self, wanted: int, priority: Priority) -> AsyncIterator[Permits]:
        """Waits for up to `wanted` permits and holds them; none where the provider fails or makes no progress."""
        size = await self._acquire(wanted, priority)
        failing = not size and not self.closed
        permits = Permits(self, size, self._breaker.retry_after or _SOON if failing else 0.0)
        try:
            yield permits
        finally:
            unused, permits.left = permits.left, 0
            self._permits.release(unused)

    async def _acquire(self, wanted: int, priority: Priority) -> int:
        while True:
            timeout = STALL_TIMEOUT
            if self.in_flight:
                timeout = max(0.05, self._progress_at + STALL_TIMEOUT - self._clock())
            if self.pace is not None:
                timeout = self.pace.wait
            try:
                async with asyncio.timeout(timeout):
                    return await self._permits.acquire(wanted, priority)
            except TimeoutError:
                if self.pace is not None:
                    return 0
                if self.in_flight and self._clock() - self._progress_at >= STALL_TIMEOUT:
                    return 0

    def force(self) -> None:
        """Takes a permit beyond the limit."""
        self._permits.in_use += 1

    def submit(
        self,
        message: Message,
        on_settled: OnSettled,
        check_result: CheckResult | None = None,
        age: float = 0.0,
    ) -> Envelope:
        """Puts a message that has a permit into the mailbox; the permit is free once a sender takes the message."""
        envelope = Envelope(message, on_settled, self._clock, self._provider)
        if check_result is not None:
            envelope.check_result, envelope.fresh_until = check_result, self._clock() + FRESH - age
        if self.closed or self._breaker.state is BreakerState.OPEN:
            self._permits.release(1)
            outcome = Unsent("shutdown") if self.closed else self._circuit_open()
            envelope.settle(outcome, elsewhere=not self.closed)
        else:
            self.mailbox.put(envelope)
            self._work.set()
        return envelope

    def close(self) -> None:
        """Takes no more messages and returns those that wait."""
        self.closed = True
        self._permits.close()
        self.return_waiting(Unsent("shutdown"))
        self._work.set()

    # For the senders.

    def take(self) -> Envelope | None:
        """Returns the next message that may be sent now; while the breaker is half-open a single one, the probe."""
        if not self._breaker.closed and (
            self._breaker.state is BreakerState.OPEN or self.in_flight
        ):
            return None
        envelope = self._pop()
        if envelope is not None:
            self.begin(envelope)
        return envelope

    def take_ahead(self, senders: int) -> Envelope | None:
        """Returns the message that a sender sends after its present one.

        None where one of the other senders may be free for it. One of high priority goes to the first that is free.
        """
        if self.closed or not self._breaker.closed or self.mailbox.waiting(Priority.HIGH):
            return None
        return self._pop() if len(self.mailbox) >= senders else None

    def begin(self, envelope: Envelope) -> None:
        """Called by a sender that begins with a message."""
        self._progress_at = self._clock()
        self.in_flight.add(envelope)

    def give_back(self, envelope: Envelope) -> bool:
        """Settles a message that was taken ahead, if it may not be sent any more; returns whether it was settled."""
        if not self.closed and self._breaker.closed:
            return False
        outcome = Unsent("shutdown") if self.closed else self._circuit_open()
        envelope.settle(outcome, elsewhere=not self.closed)
        return True

    def _pop(self) -> Envelope | None:
        while (envelope := self.mailbox.pop()) is not None:
            self._permits.release(1)
            if not envelope.done:
                return envelope
        return None

    async def wait(self) -> None:
        """Waits until there may be a message to take, or the actor stops."""
        self._work.clear()
        if not self.closed:
            await self._work.wait()

    def finished(self, envelope: Envelope) -> None:
        """Called by a sender once it no longer works on a message."""
        self._progress_at = self._clock()
        self.in_flight.discard(envelope)
        if not self._breaker.closed and self._breaker.state is BreakerState.HALF_OPEN:
            self._wake()

    def succeeded(self) -> None:
        """Counts a response of a provider that works."""
        probed = not self._breaker.closed
        self._breaker.success()
        if probed and self._breaker.closed:
            self._wake()

    def failed(self, reason: str, pause: float | None = None) -> None:
        """Counts a failure of the provider as a whole, or its request for a pause.

        If that opens the breaker, the messages that wait are returned.
        """
        breaker = self._breaker
        if breaker.failure(reason) if pause is None else breaker.pause(reason, pause):
            log.warning(
                "breaker opened",
                actor=self._name,
                reason=reason,
                seconds=round(self._breaker.retry_after, 1),
            )
            self.return_waiting(self._circuit_open(), elsewhere=True)
            self._permits.grant()
            self._await_probe()

    def return_waiting(self, outcome: Unsent, *, elsewhere: bool = False) -> None:
        """Settles all messages that no sender has taken."""
        waiting = self.mailbox.clear()
        self._permits.release(len(waiting))
        for envelope in waiting:
            envelope.settle(outcome, elsewhere=elsewhere)

    def _await_probe(self) -> None:
        """Wakes the senders when the breaker becomes half-open, which it does by time alone."""
        if self._breaker.state is BreakerState.OPEN:
            delay = max(0.001, self._breaker.retry_after)  # a timer may be early by its resolution
            asyncio.get_running_loop().call_later(delay, self._await_probe)
        else:
            self._wake()

    def _wake(self) -> None:
        """Wakes claims and senders that wait: the breaker has changed."""
        self._permits.grant()
        if len(self.mailbox):
            self._work.set()

    def _limit(self) -> int:
        """Returns how many permits may be granted now."""
        if self._breaker.closed:
            return sys.maxsize
        if self._breaker.state is BreakerState.OPEN:
            return 0
        return 0 if self.in_flight or self._permits.in_use else 1

    def _circuit_open(self) -> Unsent:
        return Unsent("circuit_open", self._breaker.retry_after)
