"""From a job to the ledger: room → claim → render → actor → settle."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any, TypeVar
from uuid import UUID, uuid4

import structlog

from tocsin.engine.actors.base import Actor
from tocsin.engine.attempt_log import AttemptLog
from tocsin.engine.burst import bursts
from tocsin.engine.ledger import Ledger
from tocsin.engine.model import (
    Channel,
    Claimed,
    Conflict,
    DeliveryState,
    Entry,
    Message,
    Priority,
    Settlement,
    Unavailable,
)
from tocsin.engine.settlement import settle_all, withhold
from tocsin.engine.store import delivery as store
from tocsin.engine.store.database import Database
from tocsin.engine.store.delivery import Settled
from tocsin.engine.store.digest import digest_entries
from tocsin.engine.store.provider import is_offered
from tocsin.engine.template_problem import TemplateFailed

# A dead worker's claims are taken up again after this long.
LEASE = timedelta(seconds=30)
# A worker without the provider leaves a delivery alone for so long.
_ELSEWHERE = timedelta(seconds=1)
# As many as are claimed at once: what waits beyond stays free for other workers.
_CHUNK = 256
# Seconds of rendering, after which others have their turn.
_TURN = 0.002
# A job waits no longer for what it has handed over: one provider that hangs would keep the others' jobs from starting.
_PATIENCE = 1.0
# What was sent at the end is settled within this long, unless the database is away.
_LAST_WORDS = 2.0

# deliveries that go together, and of a digest what it says
Render = Callable[[Sequence[Claimed], Sequence[Entry]], Message]

T = TypeVar("T")

log = structlog.get_logger("tocsin.deliver")


class Deliverer:
    """Carries the jobs of one worker process; `actors` has one for each provider that is configured."""

    def __init__(
        self,
        database: Database,
        actors: Mapping[str, Actor[Any]],
        render: Render,
        random: Random | None = None,
    ) -> None:
        self._database = database
        self._actors = actors
        self._render = render
        self._random = random or Random()
        self._ledger = Ledger(database)
        self._attempts = AttemptLog()
        self._stopping = asyncio.Event()
        self._late: set[asyncio.Task[None]] = set()  # what jobs no longer wait for

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Actors and ledger at work; at the end what was sent is settled and the rest handed back."""
        async with self._ledger.running():
            for actor in self._actors.values():
                await actor.start()
            try:
                yield
            finally:
                await self.stop()
                for task in self._late:
                    task.cancel()
                self._attempts.flush()

    async def stop(self, grace: float = 2.5) -> None:
        """Stops claiming; what is being sent may finish for `grace` seconds."""
        self._stopping.set()
        await asyncio.gather(*(actor.stop(grace) for actor in self._actors.values()))
        if self._late:
            await asyncio.wait(self._late, timeout=_LAST_WORDS)

    async def deliver(
        self, channel: Channel, delivery_ids: Sequence[int], priority: Priority
    ) -> None:
        """Delivers what of these is still to do; returns once each is settled, handed back, or too long under way."""
        routes = await self._routes(channel, delivery_ids)
        await asyncio.gather(
            *(
                self._deliver(channel, name, ids, priority, job=delivery_ids[0])
                for name, ids in routes.items()
            )
        )

    async def _routes(self, channel: Channel, delivery_ids: Sequence[int]) -> dict[str, list[int]]:
        """Which provider gets which: apart, so that a sick one never slows another."""
        if channel is not Channel.PUSH:
            return {channel.value: list(delivery_ids)}
        providers = await self._patiently(lambda: store.providers(self._database, delivery_ids))
        routes: defaultdict[str, list[int]] = defaultdict(list)
        for delivery_id in delivery_ids:
            routes[(providers or {}).get(delivery_id, "")].append(delivery_id)
        return routes

    async def _deliver(
        self,
        channel: Channel,
        provider: str,
        delivery_ids: Sequence[int],
        priority: Priority,
        *,
        job: int,
    ) -> None:
        waiting = deque(delivery_ids)
        company = await self._company(channel, delivery_ids)
        sending = _Sending()
        keeper = asyncio.create_task(self._keep_leases(sending))
        try:
            while waiting and not self._stopping.is_set():
                await self._next_chunk(channel, provider, waiting, company, priority, sending)
        finally:
            finishing = asyncio.create_task(self._finish(sending, keeper, job))
            self._late.add(finishing)
            finishing.add_done_callback(self._late.discard)
            await self._hand_back(waiting)
            await asyncio.wait({finishing}, timeout=_PATIENCE)

    async def _next_chunk(
        self,
        channel: Channel,
        provider: str,
        waiting: deque[int],
        company: Mapping[int, Sequence[int]],
        priority: Priority,
        sending: _Sending,
    ) -> None:
        """Claims as many as the actor has room for, and gives them to it."""
        actor = self._actors.get(provider)
        if actor is None:
            await self._without_actor(channel, provider, waiting, sending)
            return
        async with actor.room(min(_CHUNK, len(waiting)), priority) as room:
            if room.rest:
                await self._hand_back(waiting, timedelta(seconds=room.rest))
            claimed = await self._claim(channel, waiting, company, room.size, sending)
            entries = await self._entries(claimed)
            turn = time.monotonic()
            for together in bursts(claimed):
                message = self._message(together, entries)
                if message is None:
                    continue
                sending.add(together)
                now = time.monotonic()
                room.post(
                    message,
                    partial(self._settle, together, sending, now),
                    together[0].verdict if len(together) == 1 else None,
                    now - sending.claimed_at,
                )
                if now - turn > _TURN:  # others have theirs between two renderings
                    await asyncio.sleep(0)
                    turn = time.monotonic()

    async def _hand_back(self, waiting: deque[int], delay: timedelta = timedelta(0)) -> None:
        """Leaves what wasn't claimed to whoever takes it up after `delay`."""
        ids = [waiting.popleft() for _ in range(len(waiting))]
        if ids:
            with suppress(Unavailable, Conflict):  # else their dispatch lease runs out
                await store.release(self._database, ids, delay=delay)

    async def _without_actor(
        self, channel: Channel, provider: str, waiting: deque[int], sending: _Sending
    ) -> None:
        """Leaves them to a worker that has the provider; where there is none, they end here."""
        offered = await self._patiently(lambda: is_offered(self._database, channel, provider))
        if provider and offered:
            await self._hand_back(waiting, _ELSEWHERE)
            return
        reason = "no_provider" if provider else "no_device"
        for claimed in await self._claim(channel, waiting, {}, len(waiting), sending):
            self._ledger.write(withhold(claimed, reason))

    async def _company(
        self, channel: Channel, delivery_ids: Sequence[int]
    ) -> Mapping[int, Sequence[int]]:
        """Of each mail that may go with others of this job, all of those."""
        if channel is not Channel.EMAIL or len(delivery_ids) < 2:
            return {}
        return await self._patiently(lambda: store.same_people(self._database, delivery_ids)) or {}

    async def _claim(
        self,
        channel: Channel,
        waiting: deque[int],
        company: Mapping[int, Sequence[int]],
        size: int,
        sending: _Sending,
    ) -> list[Claimed]:
        """Claims the next ones, and with them what goes to the same people."""
        ids = [waiting.popleft() for _ in range(min(size, len(waiting)))]
        if not ids:
            return []
        sociable = {other for one in ids for other in company.get(one, ())}
        claimed = await self._patiently(
            lambda: store.claim(
                self._database,
                channel,
                ids,
                sociable=sociable,
                claim=sending.new_claim(),
                lease=LEASE,
            )
        )
        if claimed is None:
            waiting.extend(ids)
            return []
        if sociable:
            taken = sociable.intersection(one.delivery_id for one in claimed)
            left = [one for one in waiting if one not in taken]
            waiting.clear()
            waiting.extend(left)
        return claimed

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """Waits while the database is away, since the job would fail for nothing; None when it is time to stop."""
        while not self._stopping.is_set():
            try:
                return await ask()
            except (Unavailable, Conflict):
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), 1.0)
        return None

    async def _entries(self, claimed: Sequence[Claimed]) -> dict[int, list[Entry]]:
        """What those digests say that are among these."""
        ids = [one.digest_id for one in claimed if one.digest_id is not None]
        if not ids:
            return {}
        return await self._patiently(lambda: digest_entries(self._database, ids)) or {}

    def _message(
        self, together: Sequence[Claimed], entries: Mapping[int, Sequence[Entry]]
    ) -> Message | None:
        """The message; None where there is none to send, which is then settled."""
        first = together[0]
        if first.digest_id is None:
            return self._rendered(together, ())
        if first.digest_id not in entries:
            return None  # it is time to stop: the lease runs out
        said = entries[first.digest_id]
        if said and not all(entry.read for entry in said):
            return self._rendered(together, said)
        self._ledger.write(withhold(first, "already_read" if said else "opted_out_since"))
        return None

    def _rendered(self, together: Sequence[Claimed], said: Sequence[Entry]) -> Message | None:
        """The message, or None where its template failed: that costs these, visibly."""
        try:
            return self._render(together, said)
        except Exception as error:
            template = isinstance(error, TemplateFailed)  # whose line says all, and no body
            for claimed in together:
                log.error(
                    "render failed",
                    delivery_id=claimed.delivery_id,
                    event_type=claimed.event_type,
                    error=str(error) if template else type(error).__name__,
                    exc_info=not template,
                )
                self._ledger.write(
                    Settled(
                        claimed.delivery_id,
                        claimed.claim,
                        DeliveryState.FAILED,
                        "render_failed",
                        outcome="rejected",
                        attempt_reason="render_failed",
                    )
                )
            return None

    def _settle(
        self,
        together: Sequence[Claimed],
        sending: _Sending,
        started: float,
        settlement: Settlement,
    ) -> None:
        """Has the ledger write what became of a message."""
        self._attempts.note(together, settlement, started)
        settled = {one.delivery_id: one for one in settle_all(together, settlement, self._random)}
        for claimed in together:
            if one := settled.get(claimed.delivery_id):
                self._ledger.write(one, sending.remove)
            else:  # somebody else has it
                sending.remove(claimed.delivery_id)

    async def _keep_leases(self, sending: _Sending) -> None:
        while True:
            await asyncio.sleep(LEASE.total_seconds() / 3)
            if claims := set(sending.ids.values()):
                # where it fails, the last look asks whether the claim still stands
                with suppress(Unavailable, Conflict):
                    await store.renew(self._database, list(claims), lease=LEASE)

    async def _finish(self, sending: _Sending, keeper: asyncio.Task[None], job: int) -> None:
        """Keeps the leases until each is settled, and closes them."""
        try:
            await sending.over()
        finally:
            keeper.cancel()
        with suppress(Unavailable, Conflict):  # else they run out, and hold nothing
            await store.close_leases(self._database, job=job, claims=sending.claims)


class _Sending:
    """What a job has handed over and the ledger has not yet written."""

    def __init__(self) -> None:
        self.ids: dict[int, UUID] = {}  # each with its claim
        self.claims: list[UUID] = []  # all there were
        self.claimed_at = 0.0  # when the last one was asked for (monotonic)
        self._empty = asyncio.Event()
        self._empty.set()

    def new_claim(self) -> UUID:
        """A token for one try: an answer that was lost leaves a claim behind, which then runs out."""
        self.claims.append(uuid4())
        self.claimed_at = time.monotonic()
        return self.claims[-1]

    def add(self, together: Iterable[Claimed]) -> None:
        """These are with the actor now."""
        self.ids.update((one.delivery_id, one.claim) for one in together)
        self._empty.clear()

    def remove(self, delivery_id: int) -> None:
        """This one is settled."""
        self.ids.pop(delivery_id, None)
        if not self.ids:
            self._empty.set()

    async def over(self) -> None:
        """Returns when all are settled."""
        await self._empty.wait()
