"""From a job to the ledger: room → claim → render → actor → settle."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any
from uuid import UUID

import structlog

from tocsin.engine.actors.machinery.base import Actor
from tocsin.engine.deliver.claiming import Batch, Leases, Patience
from tocsin.engine.deliver.outcome_writer import AttemptLog, Ledger
from tocsin.engine.deliver.settlement import settle_all, withhold
from tocsin.engine.mail.loader import TemplateFailed
from tocsin.engine.model import (
    Channel,
    Claimed,
    DeliveryState,
    Entry,
    Message,
    Priority,
    Settlement,
)
from tocsin.engine.store import delivery as store
from tocsin.engine.store.database import Database
from tocsin.engine.store.delivery import Settled
from tocsin.engine.store.digest import digest_entries
from tocsin.engine.store.installation import is_offered
from tocsin.engine.store.timezone import Zones

# Single mails to one person that are due together go as one. Pure.


def bursts(claimed: Iterable[Claimed]) -> list[tuple[Claimed, ...]]:
    """What goes together, in the order in which it was claimed; most deliveries go alone."""
    groups: dict[tuple[str, int], list[Claimed]] = {}
    for one in claimed:
        key = ("alone", one.delivery_id) if one.burst_id is None else ("burst", one.burst_id)
        groups.setdefault(key, []).append(one)
    return [tuple(group) for group in groups.values()]


# A worker without the provider leaves a delivery alone for so long.
_ELSEWHERE = timedelta(seconds=1)
# As many as are claimed at once: what waits beyond stays free for other workers.
_CHUNK = 128
# Seconds of rendering, after which others have their turn.
_TURN = 0.002
# A job waits no longer for what it has handed over: one provider that hangs would keep the others' jobs from starting.
_PATIENCE = 1.0
# What was sent at the end is settled within this long, unless the database is away.
_LAST_WORDS = 2.0

# deliveries that go together, and of a digest what it says
Render = Callable[[Sequence[Claimed], Sequence[Entry]], Message]

log = structlog.get_logger("tocsin.deliver")


class Deliverer:
    """Carries the jobs of one worker process; `actors` has one for each provider that is configured."""

    def __init__(
        self,
        database: Database,
        actors: Mapping[str, Actor[Any]],
        render: Render,
        *,
        process_id: UUID,
        random: Random | None = None,
    ) -> None:
        self._database = database
        self._process_id = process_id
        self._actors = actors
        self._render = render
        self._random = random or Random()
        self._ledger = Ledger(database)
        self._attempts = AttemptLog()
        self._patience = Patience(database.availability, self._ledger)
        self._zones = Zones(database)
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
        self._patience.end()
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
                self._deliver(
                    provider,
                    Batch(self._database, self._patience, channel, priority, ids),
                    Leases(self._database, job=delivery_ids[0], process_id=self._process_id),
                )
                for provider, ids in routes.items()
            )
        )

    async def _routes(self, channel: Channel, delivery_ids: Sequence[int]) -> dict[str, list[int]]:
        """Which provider gets which: apart, so that a sick one never slows another."""
        if channel is not Channel.PUSH:
            return {channel.value: list(delivery_ids)}
        providers = await self._patience.ask(lambda: store.providers(self._database, delivery_ids))
        routes: defaultdict[str, list[int]] = defaultdict(list)
        for delivery_id in delivery_ids:
            routes[(providers or {}).get(delivery_id, "")].append(delivery_id)
        return routes

    async def _deliver(self, provider: str, batch: Batch, leases: Leases) -> None:
        actor = self._actors.get(provider)
        try:
            await batch.find_company()
            while batch and not self._patience.over:
                if actor is None:
                    await self._without_actor(provider, batch, leases)
                else:
                    await self._next_chunk(actor, batch, leases)
        finally:
            finishing = asyncio.create_task(leases.finish())
            self._late.add(finishing)
            finishing.add_done_callback(self._late.discard)
            await batch.hand_back()
            await asyncio.wait({finishing}, timeout=_PATIENCE)

    async def _without_actor(self, provider: str, batch: Batch, leases: Leases) -> None:
        """Leaves them to a worker that has the provider; where there is none, they end here."""
        offered = await self._patience.ask(
            lambda: is_offered(self._database, batch.channel, provider)
        )
        if provider and offered:
            await batch.hand_back(_ELSEWHERE)
            return
        reason = "no_provider" if provider else "no_device"
        for claimed in await batch.claim(len(batch), leases):
            self._ledger.write(withhold(claimed, reason))

    async def _next_chunk(self, actor: Actor[Any], batch: Batch, leases: Leases) -> None:
        """Claims as many as the actor has room for, and gives them to it."""
        async with actor.acquire(min(_CHUNK, len(batch)), batch.priority) as permits:
            if permits.retry_after:
                await batch.hand_back(timedelta(seconds=permits.retry_after))
            claimed = await batch.claim(permits.size, leases)
            await self._patience.ask(lambda: self._zones.put_into(claimed))
            entries = await self._entries(claimed)
            turn = time.monotonic()
            for together in bursts(claimed):
                message = self._message(together, entries)
                if message is None:
                    continue
                leases.add(together)
                now = time.monotonic()
                permits.submit(
                    message,
                    partial(self._settle, together, leases, now),
                    together[0].check_result if len(together) == 1 else None,
                    now - leases.claimed_at,
                )
                if now - turn > _TURN:  # others have theirs between two renderings
                    await asyncio.sleep(0)
                    turn = time.monotonic()

    async def _entries(self, claimed: Sequence[Claimed]) -> dict[int, list[Entry]]:
        """What those digests say that are among these."""
        ids = [one.digest_id for one in claimed if one.digest_id is not None]
        if not ids:
            return {}
        return await self._patience.ask(lambda: digest_entries(self._database, ids)) or {}

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
        leases: Leases,
        started: float,
        settlement: Settlement,
    ) -> None:
        """Has the ledger write what became of a message."""
        self._attempts.note(together, settlement, started)
        settled = {one.delivery_id: one for one in settle_all(together, settlement, self._random)}
        for claimed in together:
            if one := settled.get(claimed.delivery_id):
                self._ledger.write(one, leases.remove)
            else:  # somebody else has it
                leases.remove(claimed.delivery_id)
