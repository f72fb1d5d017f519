"""A job's deliveries for one provider: claimed as far as there are permits, and the rest given back.

The limits of messages to one person are applied to what was claimed.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID, uuid4

import structlog
from msgspec import structs

from tocsin.background import wait_for_any
from tocsin.engine.deliver.outcome_writer import RETRY, OutcomeWriter
from tocsin.engine.model import LEASE, Channel, Claimed, Conflict, Priority, Unavailable
from tocsin.engine.store import delivery as store
from tocsin.engine.store.connection import Availability
from tocsin.engine.store.database import Database
from tocsin.engine.store.delivery import SettledDelivery, ThrottledDelivery, withheld_state

# Channels whose messages to one person are limited (docs/adr/0075-limits.md).
_LIMITED = frozenset({Channel.EMAIL, Channel.PUSH, Channel.WEB_PUSH})
# Seconds until an app and event type are logged again.
_LOG_AGAIN = 60.0
_MOST_LOGGED = 1000

T = TypeVar("T")

log = structlog.get_logger("tocsin.throttle")


class DatabaseRetry:
    """Retries queries while the database is unavailable, until the worker stops.

    A job that failed would only run again. After an outage, the outcomes that the worker knows are written first.
    """

    def __init__(self, availability: Availability, writer: OutcomeWriter) -> None:
        self._availability = availability
        self._writer = writer
        self._stopped = asyncio.Event()

    @property
    def stopped(self) -> bool:
        """Whether the worker stops."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Retries no query any more."""
        self._stopped.set()

    async def run(
        self,
        query: Callable[[], Awaitable[T]],
        *,
        undo: Callable[[], Awaitable[object]] | None = None,
        at_least_once: bool = False,
    ) -> T | None:
        """Returns the query's result; None where the worker stops before there is one.

        A query whose connection was lost may have been executed: `undo` runs before it is retried. One
        that runs `at_least_once` is also tried while the worker stops.
        """
        lost = False
        while at_least_once or not self.stopped:
            at_least_once = False
            try:
                if self._writer.behind:
                    await self._wait(self._writer.caught_up())
                if lost and undo is not None:
                    await undo()
                    lost = False
                return await query()
            except Unavailable:
                lost = True
                await self._wait(self._availability.wait())
                await self._wait(asyncio.sleep(RETRY))  # a full disk leaves the connection open
            except Conflict:
                await self._wait(asyncio.sleep(RETRY))
        return None

    async def _wait(self, waiting: Awaitable[object]) -> None:
        """Waits, but no longer than until the worker stops."""
        await wait_for_any(waiting, self._stopped.wait())


class Leases:
    """Renews the leases of what a job has sent until its outcome is written; `job` is the job's first delivery."""

    def __init__(self, database: Database, *, job: int, process_id: UUID) -> None:
        self._database = database
        self.process_id = process_id
        self._job = job
        self._held: dict[int, UUID] = {}  # the claim of each delivery
        self._claims: list[UUID] = []  # all that were made
        self._empty = asyncio.Event()
        self._empty.set()
        self._renewing = asyncio.create_task(self._keep_renewing())
        self.claimed_at = 0.0  # when the last claim was made (monotonic)

    def new_claim(self) -> UUID:
        """Returns the token of a new claim."""
        self._claims.append(uuid4())
        self.claimed_at = time.monotonic()
        return self.latest_claim

    @property
    def latest_claim(self) -> UUID:
        """The token of the last claim."""
        return self._claims[-1]

    def add(self, together: Iterable[Claimed]) -> None:
        """Renews the leases of these from now on."""
        for one in together:
            self._held[one.delivery_id] = one.claim
        self._empty.clear()

    def remove(self, delivery_id: int) -> None:
        """Stops renewing this one's lease: its outcome is written."""
        self._held.pop(delivery_id, None)
        if not self._held:
            self._empty.set()

    async def finish(self) -> None:
        """Renews them until all outcomes are written, and closes them."""
        try:
            await self._empty.wait()
        finally:
            self._renewing.cancel()
        with suppress(Unavailable, Conflict):  # then they run out, and hold nothing
            await store.close_leases(self._database, job=self._job, claims=self._claims)

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(LEASE.total_seconds() / 3)
            if claims := set(self._held.values()):
                # Where it fails, the presend check finds out whether the claim still holds; and after an outage,
                # the report of this process renews all of its leases.
                with suppress(Unavailable, Conflict):
                    await store.renew(self._database, list(claims), lease=LEASE)


class Batch:
    """One job's deliveries for one provider that are not claimed yet."""

    def __init__(
        self,
        database: Database,
        retry: DatabaseRetry,
        channel: Channel,
        provider: str,
        priority: Priority,
        delivery_ids: Sequence[int],
    ) -> None:
        self._database = database
        self._retry = retry
        self._unclaimed = deque(delivery_ids)
        self._mergeable: Mapping[int, Sequence[int]] = {}
        self.channel = channel
        self.provider = provider
        self.priority = priority

    def __len__(self) -> int:
        return len(self._unclaimed)

    async def find_mergeable(self) -> None:
        """Finds the mails that can be merged with others of this job."""
        if self.channel is Channel.EMAIL and len(self) > 1:
            ids = list(self._unclaimed)
            found = await self._retry.run(lambda: store.find_mergeable(self._database, ids))
            self._mergeable = found or {}

    async def claim(self, size: int, leases: Leases, *, cap: int = 0) -> list[Claimed]:
        """Claims the next `size`, and with them the mails that can be merged with one of these."""
        ids = [self._unclaimed.popleft() for _ in range(min(size, len(self._unclaimed)))]
        if not ids:
            return []
        mergeable = {other for one in ids for other in self._mergeable.get(one, ())}
        claimed = await self._retry.run(
            lambda: store.claim(
                self._database,
                self.channel,
                ids,
                mergeable=mergeable,
                claim=leases.new_claim(),
                process_id=leases.process_id,
                lease=LEASE,
                cap=cap,
            ),
            undo=lambda: store.undo_claim(self._database, leases.latest_claim),
        )
        if claimed is None:
            self._unclaimed.extend(ids)
            return []
        if mergeable:
            taken = mergeable.intersection(one.delivery_id for one in claimed)
            self._unclaimed = deque(one for one in self._unclaimed if one not in taken)
        return claimed

    async def give_back(self, delay: timedelta = timedelta(0), spread: float = 0.0) -> None:
        """Makes what is not claimed due after `delay`, for any worker; each within `spread` seconds a delivery."""
        ids = list(self._unclaimed)
        self._unclaimed.clear()
        if ids:
            release = partial(
                store.release,
                self._database,
                ids,
                delay=delay,
                spread=timedelta(seconds=spread * len(ids)),
            )
            await self._retry.run(release, at_least_once=True)


class Throttle:
    """Defers what is beyond a limit; `cap`: messages an hour to one person on a channel (0: any number)."""

    def __init__(
        self, database: Database, retry: DatabaseRetry, writer: OutcomeWriter, cap: int
    ) -> None:
        self._database = database
        self._retry = retry
        self._writer = writer
        self._cap = cap
        self._logged: dict[tuple[str, str, Channel], float] = {}

    def cap_of(self, channel: Channel) -> int:
        """Returns the cap of a channel; 0 where it has none."""
        return self._cap if channel in _LIMITED else 0

    async def apply(self, channel: Channel, claimed: list[Claimed]) -> list[Claimed]:
        """Returns those of one claim that are sent now, and with them what goes as one message."""
        people = {one.recipient_id for one in claimed if one.near_limit}
        if not people or channel not in _LIMITED:
            return claimed
        near = {one.delivery_id: one for one in claimed if one.recipient_id in people}
        withheld = [
            one.delivery_id for one in near.values() if one.withheld not in (None, "quiet_hours")
        ]
        found = await self._retry.run(
            lambda: store.throttle(
                self._database,
                claimed[0].claim,
                list(near),
                withheld=withheld,
                cap=self.cap_of(channel),
            )
        )
        if found is None:  # the worker stops: the leases run out
            return [one for one in claimed if one.delivery_id not in near]
        self._log(found, near)
        self._settle_withheld(found, claimed)
        _put_together(found, near)
        held = {one.delivery_id for one in found if one.held is not None}
        return [one for one in claimed if one.delivery_id not in held]

    def _settle_withheld(
        self, found: Iterable[ThrottledDelivery], claimed: Sequence[Claimed]
    ) -> None:
        for one in found:
            if one.counted and one.held is not None:
                state = withheld_state(one.held)
                self._writer.write(
                    SettledDelivery(one.delivery_id, claimed[0].claim, state, one.held)
                )

    def _log(self, found: Iterable[ThrottledDelivery], near: dict[int, Claimed]) -> None:
        """Logs which app sends too much of which event type: a line a minute, not one for each delivery."""
        counts: defaultdict[tuple[str, str, Channel], int] = defaultdict(int)
        for one in found:
            if one.held == "throttled" and (of := near.get(one.delivery_id)):
                counts[one.caller or "", of.event_type, of.channel] += 1
        now = time.monotonic()
        for key, n in counts.items():
            if self._logged.get(key, -_LOG_AGAIN) > now - _LOG_AGAIN:
                continue
            if len(self._logged) >= _MOST_LOGGED:
                self._logged.clear()
            self._logged[key] = now
            caller, event_type, channel = key
            log.warning(
                "throttled: one person gets more than the limit, and the rest later as one message",
                caller=caller,
                event_type=event_type,
                channel=channel,
                deliveries=n,
            )


def _put_together(found: Iterable[ThrottledDelivery], near: dict[int, Claimed]) -> None:
    """Gives each burst the deliveries that its message only counts."""
    bursts: dict[int, Claimed] = {}
    counted: defaultdict[int, list[int]] = defaultdict(list)
    for one in found:
        if one.held is not None or one.burst_id is None:
            continue
        if one.counted:
            counted[one.burst_id].append(one.delivery_id)
        else:
            bursts.setdefault(one.burst_id, near[one.delivery_id])
    for burst_id, first in bursts.items():
        if counted[burst_id]:
            structs.force_setattr(first, "counted", counted[burst_id])
