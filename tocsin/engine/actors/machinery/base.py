"""The actor: a bounded mailbox, a few senders, and one provider; it knows no database and no other actor.

A message goes: room → mailbox → a sender takes it → pace → draft → connection → presend check → first byte → outcome.
All that can wait comes before the presend check, so that no message leaves on an old one.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

from tocsin.engine.actors.machinery.admission import Intake, Pace, Room
from tocsin.engine.actors.machinery.breaker import Breaker, Clock
from tocsin.engine.actors.machinery.mailbox import FRESH, Envelope
from tocsin.engine.actors.machinery.mass_rejection import HOLD, Guard
from tocsin.engine.actors.machinery.outcome import Again, Answer, Stats
from tocsin.engine.actors.machinery.presend_check import PresendChecker
from tocsin.engine.actors.machinery.supervision import Deadline, Well, supervise
from tocsin.engine.model import (
    Deferred,
    Message,
    PresendCheck,
    Priority,
    Rejected,
    Settlement,
    Unknown,
    Unsent,
)

STALE_CHECKS = 5
"""So many checks in a row too old at the first byte: the check itself is too slow."""

Connection = TypeVar("Connection")


class Hand(Generic[Connection]):
    """What one sender holds: its connection, while it has one."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self.task = task
        self.connection: Connection | None = None


class Actor(ABC, Generic[Connection]):
    """One provider's actor; a subclass says how to connect and how to transmit.

    `size` bounds the mailbox, `reserve` is further room for high priority alone, `rate` is the most
    messages a second, `deadline` the most seconds that a sender spends on one message, and `idle` the
    seconds after which a connection that isn't used is closed. With `advice`, refusals that would cost an
    address are guarded (guard.py) and held back for `hold` seconds; it says what to check in a storm.
    """

    def __init__(
        self,
        *,
        name: str,
        presend_check: PresendCheck,
        senders: int = 4,
        size: int = 256,
        reserve: int = 32,
        check_ahead: int = 128,
        rate: float | None = None,
        deadline: float = 60.0,
        idle: float = 10.0,
        advice: str | None = None,
        hold: float = HOLD,
        breaker: Breaker | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.name = name
        self.breaker = breaker or Breaker(clock=clock)
        self._senders = senders
        self._size = size
        self._rate = rate
        self._crashes = 0
        self._deadline = Deadline(deadline)
        self._idle = idle
        most = check_ahead if rate is None else min(check_ahead, max(1, int(rate * FRESH)))
        self._checker = PresendChecker(
            presend_check, least=min(senders, most), most=most, clock=clock
        )
        self._pace = Pace(rate, clock)
        self._intake = Intake(name, self.breaker, size=size, reserve=reserve, clock=clock)
        self._guard = Guard(name, advice=advice, rest=self._rest, hold=hold) if advice else None
        self._tasks: list[asyncio.Task[None]] = []
        self._resting = 0

    # What the engine calls.

    async def start(self) -> None:
        """Starts the senders; they connect when there is something to send."""
        for number in range(self._senders):
            work = supervise(
                self._run, name=self.name, resting=self._on_resting, rested=self._on_rested
            )
            self._tasks.append(asyncio.create_task(work, name=f"{self.name}-{number}"))

    async def stop(self, grace: float = 5.0) -> None:
        """Takes nothing more, gives back what waits, lets what is being sent finish for `grace` seconds."""
        self._intake.close()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._tasks.clear()
        self._deadline.close()
        if self._guard:
            self._guard.close()

    def room(
        self, wanted: int, priority: Priority = Priority.NORMAL
    ) -> AbstractAsyncContextManager[Room]:
        """Waits for room in the mailbox and holds up to `wanted` seats of it; what isn't used is freed.

        A room of size 0 says that the actor is stopping, or that the provider rests or stands still:
        then `rest` is the seconds after which to ask again.
        """
        return self._intake.room(wanted, priority)

    async def send(self, message: Message) -> Settlement:
        """Sends one message, waiting for room first; a provider that rests answers at once."""
        return await self._intake.send(message)

    def stats(self) -> Stats:
        """How it stands at this moment."""
        return Stats(
            name=self.name,
            waiting=len(self._intake.mailbox),
            in_flight=len(self._intake.in_hand),
            breaker=self.breaker.state,
            breaker_reason=self.breaker.reason,
            breaker_since=self.breaker.since,
            failing_for=self.breaker.failing_for,
            retry_after=self.breaker.retry_after,
            size=self._size,
            senders=self._senders,
            rate=self._rate,
            crashes=self._crashes,
            advice=self._guard.advice if self._guard else None,
        )

    # What a subclass says.

    def draft(self, message: Message) -> bytes | Rejected:  # noqa: ARG002 - for subclasses
        """What can be written of a message before its address is known; kept as `envelope.draft`."""
        return b""

    @abstractmethod
    async def prepare(self, connection: Connection | None) -> Connection | Deferred:
        """Makes the connection ready for a first byte: opens, renews or resets it.

        It owns what it is given: one that it doesn't return, it has closed. `Deferred` says that the
        provider can't be had at all.
        """

    @abstractmethod
    async def transmit(self, connection: Connection, envelope: Envelope) -> Answer | Again:
        """Sends one message to the address of its check result.

        Right before the first byte it calls `envelope.begin()`, and answers `Again` where that says
        no; right before the byte from which on the provider may accept it, `envelope.commit()`.
        """

    @abstractmethod
    async def discard(self, connection: Connection) -> None:
        """Closes a connection; at any time, and without raising."""

    # A sender's life.

    async def _run(self, well: Well) -> None:
        task = asyncio.current_task()
        assert task is not None
        hand: Hand[Connection] = Hand(task)
        try:
            while (envelope := await self._next(hand)) is not None:
                await self._carry(envelope, hand)
                well()
        except Exception:
            self._crashes += 1
            raise
        finally:
            await self._drop(hand)

    async def _next(self, hand: Hand[Connection]) -> Envelope | None:
        """Waits for a message, and gives up its connection if that takes long; None: the actor stops."""
        while not self._intake.closed:
            if envelope := self._intake.take():
                return envelope
            try:
                async with asyncio.timeout(self._idle if hand.connection is not None else None):
                    await self._intake.wait()
            except TimeoutError:
                await self._drop(hand)
        return None

    async def _carry(self, envelope: Envelope, hand: Hand[Connection]) -> None:
        """Brings one message to its outcome, whatever happens."""
        try:
            await self._pace.wait()
            self._deadline.begin(hand.task)
            await self._try(envelope, hand)
        except asyncio.CancelledError:
            if not self._deadline.missed(hand.task):
                envelope.settle(Unknown("shutdown") if envelope.committed else Unsent("shutdown"))
                raise
            envelope.give_up("timeout")
            self._intake.failed("timeout")
            await self._drop(hand)
        except Exception:
            envelope.give_up("actor_crashed")
            raise
        finally:
            self._deadline.end(hand.task)
            self._intake.let_go(envelope)

    async def _try(self, envelope: Envelope, hand: Hand[Connection]) -> None:
        draft = self.draft(envelope.message)
        if isinstance(draft, Rejected):
            envelope.settle(draft)
            return
        envelope.draft = draft
        for _ in range(STALE_CHECKS):
            connection, hand.connection = hand.connection, None
            ready = await self.prepare(connection)
            if isinstance(ready, Deferred):
                envelope.settle(ready)
                self._intake.failed(ready.reason)
                return
            hand.connection = ready
            if not await self._checker.check(envelope, self._others):
                return
            answer = await self.transmit(ready, envelope)
            if not answer.keep:
                await self._drop(hand)
            if isinstance(answer, Answer):
                if not (self._guard and self._guard.takes(envelope, answer)):
                    envelope.settle(answer.outcome, envelope.check_result)
                self._note(answer)
                return
            envelope.begun = envelope.committed = False
        envelope.settle(Unsent("look_too_slow", 1.0), envelope.check_result)

    def _others(self) -> Iterator[Envelope]:
        """The other messages that could be checked: those that have a sender, then those that wait."""
        return itertools.chain(self._intake.in_hand, self._intake.mailbox)

    def _note(self, answer: Answer) -> None:
        if answer.provider_failed or answer.pause is not None:
            self._intake.failed(getattr(answer.outcome, "reason", "unknown"), answer.pause)
        elif not (self._guard and self._guard.raging):
            self._intake.succeeded()  # in a storm, what is refused for another reason says nothing

    def _rest(self, reason: str) -> float:
        """Opens the breaker, where it isn't; the seconds until it probes."""
        self._intake.failed(reason, 0.0)
        return self.breaker.retry_after

    async def _drop(self, hand: Hand[Connection]) -> None:
        connection, hand.connection = hand.connection, None
        if connection is not None:
            await self.discard(connection)

    def _on_resting(self, seconds: float) -> None:
        """Gives back what waits where no sender is left to take it."""
        self._resting += 1
        if self._resting == self._senders:
            self._intake.return_waiting(Unsent("actor_crashed", seconds))

    def _on_rested(self) -> None:
        self._resting -= 1
