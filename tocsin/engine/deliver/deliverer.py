"""From a job to the ledger: claim → render → send → settle."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog
from msgspec import Struct

from tocsin.engine.actors.machinery.admission import Permits
from tocsin.engine.actors.machinery.base import Actor, Failover
from tocsin.engine.actors.machinery.endpoints import EndpointActors
from tocsin.engine.deliver.claiming import Batch, DatabaseRetry, Leases, Throttle
from tocsin.engine.deliver.delivery_traces import DeliveryTraces
from tocsin.engine.deliver.outcome_writer import AttemptLog, CountAttempts, OutcomeWriter
from tocsin.engine.deliver.settlement import render_failed, settle_all, skip
from tocsin.engine.mail.loader import TemplateFailed
from tocsin.engine.model import Channel, Claimed, Entry, Message, Priority, Settlement
from tocsin.engine.store import delivery as store
from tocsin.engine.store.database import Database
from tocsin.engine.store.delivery import DeliveryTarget, Zones
from tocsin.engine.store.digest import digest_entries
from tocsin.engine.store.event import TracedEvent
from tocsin.engine.store.installation import is_offered

if TYPE_CHECKING:
    from tocsin.engine.deliver.trace_exporter import Traces

# A worker that lacks the provider gives a delivery back; other workers see it after this long.
_ELSEWHERE = timedelta(seconds=1)
# So many are claimed at once: the others stay free for other workers.
_CHUNK = 128
# Seconds of rendering, after which other tasks of this process run.
_RENDERING = 0.002
# Seconds that a job waits for the outcomes of what it sent: a provider that hangs must not keep others from starting.
_OUTCOMES_WITHIN = 1.0
# Seconds within which outcomes are written when the worker stops.
_STOP_WITHIN = 2.0

_NO_ENDPOINT = DeliveryTarget(0, "")

OneActor = Actor[Any] | Failover
AnyActor = OneActor | EndpointActors
# deliveries that go as one message, and the entries of a digest
Render = Callable[[Sequence[Claimed], Sequence[Entry]], Message]

log = structlog.get_logger("tocsin.deliver")


class Attempt(Struct, eq=False):
    """One try to send one message, which is of one delivery, or of several that go together."""

    claimed: Sequence[Claimed]
    leases: Leases
    entries: Sequence[Entry] = ()  # of a digest
    traced: Mapping[int, TracedEvent] = {}  # the events that are part of a trace
    message: Message | None = None  # once it is rendered
    sent_at: float = 0.0  # when the actor got it (monotonic)


class Deliverer:
    """Delivers the jobs of one worker process; `actors` has one for each provider that is configured.

    `cap`: so many messages an hour to one person on a channel; 0: any number.
    """

    def __init__(
        self,
        database: Database,
        actors: Mapping[str, AnyActor],
        render: Render,
        *,
        process_id: UUID,
        cap: int = 0,
        count_attempts: CountAttempts | None = None,
        traces: Traces | None = None,
    ) -> None:
        self._database = database
        self._process_id = process_id
        self._actors = actors
        self._renderer = render
        self._random = Random()
        self._writer = OutcomeWriter(database)
        self._attempt_log = AttemptLog(count_attempts)
        self._retry = DatabaseRetry(database.availability, self._writer)
        self._throttle = Throttle(database, self._retry, self._writer, cap)
        self._zones = Zones(database)
        self._traces = DeliveryTraces(traces, database, self._retry) if traces else None
        self._finishing: set[asyncio.Task[None]] = set()  # what jobs no longer wait for

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs actors and writer; at the end the outcomes are written, and what was not sent is given back."""
        async with self._writer.running():
            for actor in self._actors.values():
                await actor.start()
            try:
                yield
            finally:
                await self.stop()
                for task in self._finishing:
                    task.cancel()
                self._attempt_log.flush()

    async def stop(self, grace: float = 2.5) -> None:
        """Stops claiming; what is being sent may finish for `grace` seconds."""
        self._retry.stop()
        await asyncio.gather(*(actor.stop(grace) for actor in self._actors.values()))
        if self._finishing:
            await asyncio.wait(self._finishing, timeout=_STOP_WITHIN)

    async def deliver(
        self, channel: Channel, delivery_ids: Sequence[int], priority: Priority
    ) -> None:
        """Delivers those of a job that are still queued.

        Returns once each is settled or given back, or the provider takes too long.
        """
        if not delivery_ids:
            return
        by_provider = await self._by_provider(channel, delivery_ids)
        batches = [
            self._deliver_batch(
                actor,
                Batch(self._database, self._retry, channel, provider, priority, ids),
                Leases(self._database, job=delivery_ids[0], process_id=self._process_id),
            )
            for provider, all_ids in by_provider.items()
            for actor, ids in await self._by_actor(provider, all_ids)
        ]
        await asyncio.gather(*batches)

    async def _by_actor(
        self, provider: str, delivery_ids: Sequence[int]
    ) -> list[tuple[OneActor | None, Sequence[int]]]:
        """Returns the deliveries of one provider by their actor: each endpoint has one of its own.

        One whose endpoint was deleted goes with any: the check right before sending finds that.
        """
        actors = self._actors.get(provider)
        if not isinstance(actors, EndpointActors):
            return [(actors, delivery_ids)]
        query = partial(store.endpoints, self._database, delivery_ids)
        endpoints = await self._retry.run(query) or {}
        grouped: defaultdict[DeliveryTarget, list[int]] = defaultdict(list)
        for delivery_id in delivery_ids:
            grouped[endpoints.get(delivery_id, _NO_ENDPOINT)].append(delivery_id)
        return [
            (await actors.of(endpoint.target_id, endpoint.url), ids)
            for endpoint, ids in grouped.items()
        ]

    async def _by_provider(
        self, channel: Channel, delivery_ids: Sequence[int]
    ) -> dict[str, list[int]]:
        """Returns the deliveries by provider: one that fails doesn't slow the others. '' has those without a device."""
        if channel is not Channel.PUSH:
            return {channel.value: list(delivery_ids)}
        providers = await self._retry.run(lambda: store.providers(self._database, delivery_ids))
        found: defaultdict[str, list[int]] = defaultdict(list)
        for delivery_id in delivery_ids:
            found[(providers or {}).get(delivery_id, "")].append(delivery_id)
        return found

    async def _deliver_batch(self, actor: OneActor | None, batch: Batch, leases: Leases) -> None:
        try:
            await batch.find_mergeable()
            while batch and not self._retry.stopped:
                if actor is None:
                    await self._skip_or_give_back(batch, leases)
                    continue
                async with actor.acquire(min(_CHUNK, len(batch)), batch.priority) as permits:
                    if permits.retry_after:
                        delay = timedelta(seconds=permits.retry_after)
                        await batch.give_back(delay, permits.spread)
                    await self._deliver_chunk(permits, batch, leases)
        finally:
            finishing = asyncio.create_task(leases.finish())
            self._finishing.add(finishing)
            finishing.add_done_callback(self._finishing.discard)
            await batch.give_back()
            await asyncio.wait({finishing}, timeout=_OUTCOMES_WITHIN)

    async def _deliver_chunk(self, permits: Permits, batch: Batch, leases: Leases) -> None:
        """Claims as many as there are permits, renders and sends each, and settles it once its outcome is known."""
        attempts = await self._claim(permits, batch, leases)
        others_ran_at = time.monotonic()
        for attempt in attempts:
            if self._render(attempt):
                self._send(attempt, permits, then=self._settle)
            if time.monotonic() - others_ran_at > _RENDERING:
                await asyncio.sleep(0)
                others_ran_at = time.monotonic()

    async def _claim(self, permits: Permits, batch: Batch, leases: Leases) -> list[Attempt]:
        claimed = await batch.claim(permits.size, leases, cap=self._throttle.cap_of(batch.channel))
        claimed = await self._throttle.apply(batch.channel, claimed)
        await self._retry.run(lambda: self._zones.put_into(claimed))
        traced = await self._traces.find(claimed) if self._traces else {}
        attempts = [Attempt(together, leases, traced=traced) for together in merged(claimed)]
        digest_ids = [one.digest_id for one in claimed if one.digest_id is not None]
        if not digest_ids:
            return attempts
        entries = await self._retry.run(lambda: digest_entries(self._database, digest_ids))
        if entries is None:  # the worker stops: the leases run out
            return [one for one in attempts if one.claimed[0].digest_id is None]
        for attempt in attempts:
            if (digest_id := attempt.claimed[0].digest_id) is not None:
                attempt.entries = entries.get(digest_id, ())
        return attempts

    def _render(self, attempt: Attempt) -> bool:
        """Renders the message; false where there is none to send, which is then settled."""
        first = attempt.claimed[0]
        if first.digest_id is not None and all(entry.read for entry in attempt.entries):
            reason = "already_read" if attempt.entries else "opted_out_since"
            self._writer.write(skip(first, reason))
            return False
        try:
            attempt.message = self._renderer(attempt.claimed, attempt.entries)
            if self._traces and attempt.traced:
                attempt.message = self._traces.mark(attempt.message, first, attempt.traced)
        except Exception as error:
            template = isinstance(error, TemplateFailed)  # its text holds no body
            for claimed in attempt.claimed:
                log.error(
                    "render failed",
                    delivery_id=claimed.delivery_id,
                    event_type=claimed.event_type,
                    error=str(error) if template else type(error).__name__,
                    exc_info=not template,
                )
                for failed in render_failed(claimed):
                    self._writer.write(failed)
            return False
        return True

    def _send(
        self, attempt: Attempt, permits: Permits, *, then: Callable[[Attempt, Settlement], None]
    ) -> None:
        """Gives the message to the actor, which calls `then` with its outcome.

        The actor checks right before sending, unless the check that was made with the claim still holds.
        """
        assert attempt.message is not None
        attempt.leases.add(attempt.claimed)
        attempt.sent_at = now = time.monotonic()
        check_result = attempt.claimed[0].check_result if len(attempt.claimed) == 1 else None
        age = now - attempt.leases.claimed_at
        permits.submit(attempt.message, partial(then, attempt), check_result, age)

    def _settle(self, attempt: Attempt, settlement: Settlement) -> None:
        """Has the outcome of each delivery written, and keeps its lease until then."""
        self._attempt_log.note(attempt.claimed, settlement, attempt.sent_at)
        if self._traces and attempt.traced:
            self._traces.record(
                attempt.claimed, attempt.traced, settlement, sent_at=attempt.sent_at
            )
        settled = {
            one.delivery_id: one for one in settle_all(attempt.claimed, settlement, self._random)
        }
        for first in attempt.claimed:
            # before the first, whose lease they share
            for delivery_id in first.counted or ():
                if one := settled.get(delivery_id):
                    self._writer.write(one)
        for claimed in attempt.claimed:
            if one := settled.get(claimed.delivery_id):
                self._writer.write(one, attempt.leases.remove)
            else:  # the claim was lost
                attempt.leases.remove(claimed.delivery_id)

    async def _skip_or_give_back(self, batch: Batch, leases: Leases) -> None:
        """Gives them back for a worker that has the provider; skips them where no worker has it."""
        offered = await self._retry.run(
            lambda: is_offered(self._database, batch.channel, batch.provider)
        )
        if batch.provider and offered:
            await batch.give_back(_ELSEWHERE)
            return
        reason = "no_provider" if batch.provider else "no_device"
        for claimed in await batch.claim(len(batch), leases):
            self._writer.write(skip(claimed, reason))


def merged(claimed: Iterable[Claimed]) -> list[list[Claimed]]:
    """Returns the deliveries of each message, in the order of the claims: single mails to one person go as one."""
    messages: list[list[Claimed]] = []
    by_burst: dict[int, list[Claimed]] = {}
    for one in claimed:
        if one.burst_id is not None and one.burst_id in by_burst:
            by_burst[one.burst_id].append(one)
            continue
        messages.append([one])
        if one.burst_id is not None:
            by_burst[one.burst_id] = messages[-1]
    return messages
