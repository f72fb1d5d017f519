"""The actor: a bounded mailbox, a few senders, and one provider. It uses no database and no other actor.

A message passes: permit → mailbox → rate → sender → draft → connection → presend check → first byte → outcome.
All that may take time comes before the check, so that it is still valid at the first byte.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from tocsin.background import cancel_tasks
from tocsin.engine.actors.machinery.admission import Admission, ClaimPace, Permits
from tocsin.engine.actors.machinery.breaker import (
    HOLD,
    Breaker,
    HeldRejections,
    MarkProgress,
    supervise,
)
from tocsin.engine.actors.machinery.envelope import (
    FRESH,
    Clock,
    Envelope,
    PresendChecker,
    RetryNow,
    SendResult,
)
from tocsin.engine.actors.machinery.shared_limits import Holds, SendRate
from tocsin.engine.model import (
    ActorReport,
    Deferred,
    Message,
    PresendCheck,
    Priority,
    Rejected,
    SendHold,
    Unknown,
    Unsent,
)

STALE_CHECKS = 5
"""After so many checks in a row that were too old at the first byte, a message is not sent."""

_AHEAD = (
    10  # seconds of a channel's rate in the mailbox at most: what waits longer may go to any worker
)

ConnectionT = TypeVar("ConnectionT")


_Task = asyncio.Task[Any]


class Deadline:
    """Cancels a task that works on one message for more than `seconds`, and remembers that it did.

    One timer serves all senders, since few messages are ever late: a timer for each message would cost as much as
    sending it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[_Task, float] = {}
        self._late: set[_Task] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, task: _Task) -> None:
        """Starts the time of a task that begins with a message."""
        loop = task.get_loop()
        self._since[task] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._on_timer, loop)

    def missed(self, task: _Task) -> bool:
        """Returns whether the task was cancelled by its deadline, and by nothing else."""
        if task not in self._late:
            return False
        self._late.remove(task)
        return task.uncancel() == 0

    def end(self, task: _Task) -> None:
        """Stops the time of a task."""
        self._since.pop(task, None)
        if self._late:
            self.missed(task)

    def close(self) -> None:
        """Stops the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _on_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() - self._seconds
        for task in [task for task, since in self._since.items() if since <= due]:
            del self._since[task]
            self._late.add(task)
            task.cancel()
        oldest = min(self._since.values(), default=None)
        self._timer = None
        if oldest is not None:
            self._timer = loop.call_at(oldest + self._seconds, self._on_timer, loop)


class SenderState(Struct, Generic[ConnectionT], eq=False):
    """One sender: its task, its connection while it has one, and the message that it took ahead."""

    task: asyncio.Task[None]
    connection: ConnectionT | None = None
    following: Envelope | None = None


class Actor(ABC, Generic[ConnectionT]):
    """One provider's actor; a subclass defines how to connect and how to transmit.

    `provider` is what attempts are recorded with, where it is another word than `name`.
    `size` bounds the mailbox, `reserve` more messages of high priority fit into it, `rate` limits how many messages
    are sent, `deadline` the most seconds that a sender spends on one message, and `idle` the seconds after which an
    unused connection is closed. With `advice`, which is what to check during a mass rejection, rejections that would
    disable an address are held for `hold` seconds. With `pace`, claims do not wait until the mailbox has room. `holds`
    are the pauses that providers asked any worker for.
    """

    def __init__(
        self,
        *,
        name: str,
        provider: str | None = None,
        presend_check: PresendCheck,
        senders: int = 4,
        size: int = 256,
        reserve: int = 32,
        check_ahead: int = 128,
        rate: SendRate | None = None,
        deadline: float = 60.0,
        idle: float = 10.0,
        advice: str | None = None,
        hold: float = HOLD,
        pace: ClaimPace | None = None,
        holds: Holds | None = None,
        breaker: Breaker | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.name = name
        self.breaker = breaker or Breaker(clock=clock)
        self._senders = senders
        self._size = size = (
            size if rate is None else min(size, max(senders, int(rate.rate * _AHEAD)))
        )
        self._rate = rate
        self.holds = holds or Holds(clock=clock)
        self.holds.follow(name, self._on_hold)
        self._crashes = self._paused = 0  # _paused: senders that wait after a crash
        self._deadline = Deadline(deadline)
        self._idle = idle
        most = check_ahead if rate is None else min(check_ahead, max(1, int(rate.rate * FRESH)))
        self._checker = PresendChecker(
            presend_check, least=min(senders, most), most=most, clock=clock
        )
        self.admission = Admission(
            name,
            provider or name,
            self.breaker,
            size=size,
            reserve=reserve,
            clock=clock,
            pace=pace,
        )
        self._rejections: HeldRejections | None = None
        if advice:
            self._rejections = HeldRejections(name, advice=advice, pause=self._pause, hold=hold)
        self._tasks: list[asyncio.Task[None]] = []
        self._sender_of: dict[_Task, SenderState[ConnectionT]] = {}

    # For the engine.

    async def start(self) -> None:
        """Starts the senders; each connects when there is something to send."""
        for number in range(self._senders):
            work = supervise(
                self._run, name=self.name, paused=self._on_paused, resumed=self._on_resumed
            )
            self._tasks.append(asyncio.create_task(work, name=f"{self.name}-{number}"))

    async def stop(self, grace: float = 5.0) -> None:
        """Returns what waits; lets what is being sent finish for `grace` seconds."""
        self.admission.close()
        if self._rate:
            self._rate.close()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace)
            await cancel_tasks(*late)
        self._tasks.clear()
        self._deadline.close()
        if self._rejections:
            self._rejections.close()

    def acquire(
        self, wanted: int, priority: Priority = Priority.NORMAL
    ) -> AbstractAsyncContextManager[Permits]:
        """Waits for up to `wanted` permits to submit messages, and holds them; unused ones are released.

        Their `size` is 0 if the actor stops, or if the provider fails or makes no progress: then `retry_after` is in
        how many seconds to try again.
        """
        return self.admission.acquire(wanted, priority)

    def reports(self) -> list[ActorReport]:
        """Returns the state of this moment."""
        return [self.report()]

    def report(self) -> ActorReport:
        """Returns the state of this moment."""
        return ActorReport(
            name=self.name,
            waiting=len(self.admission.mailbox),
            size=self._size,
            in_flight=len(self.admission.in_flight),
            senders=self._senders,
            rate=self._rate.rate if self._rate else None,
            breaker=self.breaker.state,
            breaker_reason=self.breaker.reason,
            failing_for=round(self.breaker.failing_for, 1),
            retry_in=round(self.breaker.retry_after, 1),
            crashes=self._crashes,
            advice=self._rejections.advice if self._rejections else None,
        )

    # What a subclass defines.

    def draft(self, message: Message) -> bytes | Rejected:  # noqa: ARG002 - for subclasses
        """Returns what can be written of a message before its address is known; kept as `envelope.draft`."""
        return b""

    @abstractmethod
    async def prepare(self, connection: ConnectionT | None) -> ConnectionT | Deferred:
        """Returns a connection that is ready for a first byte: opens, renews or resets it.

        A given connection that it does not return, it has closed. `Deferred` means that the provider can't be reached.
        """

    @abstractmethod
    async def transmit(self, connection: ConnectionT, envelope: Envelope) -> SendResult | RetryNow:
        """Sends one message to the address of its check result.

        Calls `envelope.begin()` right before the first byte, and returns `RetryNow` if that returns false; calls
        `envelope.commit()` right before the byte from which on the provider may accept the message.
        """

    @abstractmethod
    async def discard(self, connection: ConnectionT) -> None:
        """Closes a connection; at any time, and without raising."""

    # What a sender does.

    async def _run(self, mark_progress: MarkProgress) -> None:
        task = asyncio.current_task()
        assert task is not None
        sender = self._sender_of[task] = SenderState[ConnectionT](task)
        try:
            while (envelope := await self._next(sender)) is not None:
                await self._process(envelope, sender)
                mark_progress()
        except Exception:
            self._crashes += 1
            raise
        finally:
            following = sender.following
            if following is not None and not self.admission.give_back(following):
                following.settle(Unsent("actor_crashed"))
            del self._sender_of[task]
            await self._disconnect(sender)

    def take_ahead(self) -> Envelope | None:
        """Takes the message that this sender sends next, so that its first bytes may follow the last ones of this one.

        None where there is none, or its first byte may not be sent now. The sender begins with what was taken once the
        present message is settled. Until then a commit is not possible.
        """
        task = asyncio.current_task()
        sender = self._sender_of.get(task) if task is not None else None
        if sender is None or sender.following is not None or self._rate is not None:
            return None
        envelope = sender.following = self.admission.take_ahead(self._senders)
        if envelope is None or not envelope.fresh:
            return None
        try:
            draft = self.draft(envelope.message)
        except Exception:  # noqa: BLE001 - it fails again once it is sent, and not the present message
            return None
        if isinstance(draft, Rejected):
            return None
        envelope.draft = draft
        return envelope

    async def _next(self, sender: SenderState[ConnectionT]) -> Envelope | None:
        """Waits for a message, and closes a connection that is idle for long; None if the actor stops."""
        following, sender.following = sender.following, None
        if following is not None and not following.done and not self.admission.give_back(following):
            self.admission.begin(following)
            return following
        while not self.admission.closed:
            if envelope := await self._take():
                return envelope
            try:
                async with asyncio.timeout(self._idle if sender.connection is not None else None):
                    await self.admission.wait()
            except TimeoutError:
                await self._disconnect(sender)
        return None

    async def _take(self) -> Envelope | None:
        if self._rate is None:
            return self.admission.take()
        mailbox = self.admission.mailbox
        return await self._rate.next(self.admission.take, lambda: len(mailbox))

    async def _process(self, envelope: Envelope, sender: SenderState[ConnectionT]) -> None:
        """Sends one message and settles it, also after a crash, the deadline or a stop."""
        try:
            self._deadline.begin(sender.task)
            await self._send(envelope, sender)
        except asyncio.CancelledError:
            if not self._deadline.missed(sender.task):
                envelope.settle(Unknown("shutdown") if envelope.committed else Unsent("shutdown"))
                raise
            envelope.give_up("timeout", elsewhere=True)
            self.admission.failed("timeout")
            await self._disconnect(sender)
        except Exception:
            envelope.give_up("actor_crashed")
            raise
        finally:
            self._deadline.end(sender.task)
            self.admission.finished(envelope)

    async def _send(self, envelope: Envelope, sender: SenderState[ConnectionT]) -> None:
        draft = envelope.draft or self.draft(envelope.message)
        if isinstance(draft, Rejected):
            envelope.settle(draft)
            return
        envelope.draft = draft
        for _ in range(STALE_CHECKS):
            connection, sender.connection = sender.connection, None
            ready = await self.prepare(connection)
            if isinstance(ready, Deferred):
                envelope.settle(ready, elsewhere=True)
                self.admission.failed(ready.reason)
                return
            sender.connection = ready
            if not await self._checker.check(envelope, self._others):
                return
            result = await self.transmit(ready, envelope)
            if not result.keep_connection:
                await self._disconnect(sender)
            if isinstance(result, SendResult):
                self._settle(envelope, _dated(result, envelope))
                return
            envelope.begun = envelope.committed = False
            envelope.begun_at = None
        envelope.settle(Unsent("look_too_slow", 1.0), envelope.check_result)

    def _others(self) -> Iterator[Envelope]:
        """Returns further messages for the same check: those that have a sender, then those that wait."""
        return itertools.chain(self.admission.in_flight, self.admission.mailbox)

    def _settle(self, envelope: Envelope, result: SendResult) -> None:
        """Settles a message, unless its rejection is held, and reports the result to the breaker."""
        if not (self._rejections and self._rejections.take(envelope, result)):
            failed = isinstance(result.outcome, Deferred) and result.provider_failed
            elsewhere = failed and not envelope.committed
            envelope.settle(result.outcome, envelope.check_result, elsewhere=elsewhere)
        if result.provider_failed or result.pause is not None:
            reason = getattr(result.outcome, "reason", "unknown")
            self.admission.failed(reason, result.pause)
            if result.pause:
                self.holds.add(SendHold(self.name, reason, result.pause))
        elif not (self._rejections and self._rejections.too_many):
            # during a mass rejection, a message that is rejected for another reason shows nothing
            self.admission.succeeded()

    def _on_hold(self, reason: str, seconds: float) -> None:
        """Opens the breaker: another worker was asked for a pause."""
        if self.breaker.retry_after < seconds:
            self.admission.failed(reason, seconds)

    def _pause(self, reason: str) -> float:
        """Opens the breaker, if it isn't open; returns the seconds until it probes."""
        self.admission.failed(reason, 0.0)
        return self.breaker.retry_after

    async def _disconnect(self, sender: SenderState[ConnectionT]) -> None:
        connection, sender.connection = sender.connection, None
        if connection is not None:
            await self.discard(connection)

    def _on_paused(self, seconds: float) -> None:
        """Returns what waits if no sender is left to take it."""
        self._paused += 1
        if self._paused == self._senders:
            self.admission.return_waiting(Unsent("actor_crashed", seconds))

    def _on_resumed(self) -> None:
        self._paused -= 1


def _dated(result: SendResult, envelope: Envelope) -> SendResult:
    """Adds the time of the check to a rejected address: one that is registered again after it is good."""
    outcome, check_result = result.outcome, envelope.check_result
    if not isinstance(outcome, Rejected) or not (outcome.address_dead or outcome.quarantine):
        return result
    if outcome.dead_since is not None or check_result is None or not envelope.begun:
        return result
    return replace(result, outcome=replace(outcome, dead_since=check_result.checked_at))


# Several providers of one channel in order. A message goes on to the next one only if it is certain that the one before
# did not accept it: its breaker is open, it could not be reached, or its connection failed before the byte from which
# on it may accept the message. An unknown outcome, and any reply about the message itself, ends the attempt.


class Failover:
    """The actors of a channel's providers, in the order in which they are used; it takes the place of one actor.

    Each has its own breaker, mailbox and senders, and its own report.
    """

    def __init__(self, actors: Sequence[Actor[Any]]) -> None:
        self.actors = actors

    async def start(self) -> None:
        """Starts all actors."""
        for actor in self.actors:
            await actor.start()

    async def stop(self, grace: float = 5.0) -> None:
        """Stops all actors at once; see Actor."""
        await asyncio.gather(*(actor.stop(grace) for actor in self.actors))

    @asynccontextmanager
    async def acquire(
        self, wanted: int, priority: Priority = Priority.NORMAL
    ) -> AsyncIterator[Permits]:
        """Holds permits of the first provider that grants any; the messages may go on to those after it.

        Where none grants any, `retry_after` is the shortest of theirs.
        """
        waits: list[float] = []
        for position, actor in enumerate(self.actors):
            async with actor.acquire(wanted, priority) as permits:
                if permits.retry_after:
                    waits.append(permits.retry_after)
                if not permits.retry_after or actor is self.actors[-1]:
                    permits.retry_after = 0.0 if permits.size else min(waits, default=0.0)
                    permits.following = [each.admission for each in self.actors[position + 1 :]]
                    yield permits
                    return

    def reports(self) -> list[ActorReport]:
        """Returns the state of each."""
        return [actor.report() for actor in self.actors]
