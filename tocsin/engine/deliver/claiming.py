"""One job's deliveries to one provider: what of them waits, and how it is claimed."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID, uuid4

from tocsin.engine.deliver.outcome_writer import Ledger
from tocsin.engine.model import LEASE, Channel, Claimed, Conflict, Priority, Unavailable
from tocsin.engine.store import delivery as store
from tocsin.engine.store.connection import Availability
from tocsin.engine.store.database import Database

# Retries while the database is away or a transaction of an app is in the way, until the worker stops.

_AGAIN = 0.2  # seconds

T = TypeVar("T")


class Patience:
    """Retries a query: a job that failed would only be run again.

    After an outage, the outcomes that the worker knows are written first (`ledger`).
    """

    def __init__(self, availability: Availability, ledger: Ledger) -> None:
        self._availability = availability
        self._ledger = ledger
        self._over = asyncio.Event()

    @property
    def over(self) -> bool:
        """Whether the worker stops."""
        return self._over.is_set()

    def end(self) -> None:
        """The worker stops: no query is retried any more."""
        self._over.set()

    async def ask(
        self,
        query: Callable[[], Awaitable[T]],
        *,
        undo: Callable[[], Awaitable[object]] | None = None,
        at_least_once: bool = False,
    ) -> T | None:
        """Returns the query's result; None where the worker stops before there is one.

        A query whose connection was lost may have been executed all the same: `undo` runs before it is retried. One
        that runs `at_least_once` is also tried while the worker stops.
        """
        lost = False
        while at_least_once or not self.over:
            at_least_once = False
            try:
                if self._ledger.behind:
                    await self._pause(self._ledger.caught_up())
                if lost and undo is not None:
                    await undo()
                    lost = False
                return await query()
            except Unavailable:
                lost = True
                await self._pause(self._availability.wait())
                await self._pause(
                    asyncio.sleep(_AGAIN)
                )  # a full disk leaves the connection as it is
            except Conflict:
                await self._pause(asyncio.sleep(_AGAIN))
        return None

    async def _pause(self, waiting: Awaitable[object]) -> None:
        """Waits, but no longer than until the worker stops."""
        tasks = {asyncio.ensure_future(waiting), asyncio.ensure_future(self._over.wait())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()


# The leases of what is under way: kept until the ledger has written what became of it.


class Leases:
    """Of what a job has claimed and handed over, and is not yet written; `job` is its first delivery."""

    def __init__(self, database: Database, *, job: int, process_id: UUID) -> None:
        self._database = database
        self.process_id = process_id
        self._job = job
        self._held: dict[int, UUID] = {}  # each with its claim
        self._claims: list[UUID] = []  # all there were
        self._empty = asyncio.Event()
        self._empty.set()
        self._keeper = asyncio.create_task(self._keep())
        self.claimed_at = 0.0  # when the last claim was asked for (monotonic)

    def new_claim(self) -> UUID:
        """A token for one try."""
        self._claims.append(uuid4())
        self.claimed_at = time.monotonic()
        return self.latest_claim

    @property
    def latest_claim(self) -> UUID:
        """The token of the last try."""
        return self._claims[-1]

    def add(self, together: Iterable[Claimed]) -> None:
        """These are with the actor now."""
        for one in together:
            self._held[one.delivery_id] = one.claim
        self._empty.clear()

    def remove(self, delivery_id: int) -> None:
        """This one is settled."""
        self._held.pop(delivery_id, None)
        if not self._held:
            self._empty.set()

    async def finish(self) -> None:
        """Keeps them until all are settled, and closes them."""
        try:
            await self._empty.wait()
        finally:
            self._keeper.cancel()
        with suppress(Unavailable, Conflict):  # else they run out, and hold nothing
            await store.close_leases(self._database, job=self._job, claims=self._claims)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(LEASE.total_seconds() / 3)
            if claims := set(self._held.values()):
                # Where it fails, the check before sending finds out whether the claim still holds; and after an outage,
                # the report of this process renews all of its leases.
                with suppress(Unavailable, Conflict):
                    await store.renew(self._database, list(claims), lease=LEASE)


class Batch:
    """Claims them as far as there is room, and hands back what it doesn't come to."""

    def __init__(
        self,
        database: Database,
        patience: Patience,
        channel: Channel,
        priority: Priority,
        delivery_ids: Sequence[int],
    ) -> None:
        self._database = database
        self._patience = patience
        self._waiting = deque(delivery_ids)
        self._company: Mapping[int, Sequence[int]] = {}
        self.channel = channel
        self.priority = priority

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def find_company(self) -> None:
        """Finds the mails that may go with others of this job."""
        if self.channel is Channel.EMAIL and len(self) > 1:
            ids = list(self._waiting)
            found = await self._patience.ask(lambda: store.find_mergeable(self._database, ids))
            self._company = found or {}

    async def claim(self, size: int, leases: Leases) -> list[Claimed]:
        """Claims the next ones, and with them what goes to the same people."""
        ids = [self._waiting.popleft() for _ in range(min(size, len(self._waiting)))]
        if not ids:
            return []
        mergeable = {other for one in ids for other in self._company.get(one, ())}
        claimed = await self._patience.ask(
            lambda: store.claim(
                self._database,
                self.channel,
                ids,
                mergeable=mergeable,
                claim=leases.new_claim(),
                process_id=leases.process_id,
                lease=LEASE,
            ),
            undo=lambda: store.undo_claim(self._database, leases.latest_claim),
        )
        if claimed is None:
            self._waiting.extend(ids)
            return []
        if mergeable:
            taken = mergeable.intersection(one.delivery_id for one in claimed)
            self._waiting = deque(one for one in self._waiting if one not in taken)
        return claimed

    async def hand_back(self, delay: timedelta = timedelta(0)) -> None:
        """Leaves what wasn't claimed to whoever takes it up after `delay`."""
        ids = list(self._waiting)
        self._waiting.clear()
        if ids:
            release = partial(store.release, self._database, ids, delay=delay)
            await self._patience.ask(release, at_least_once=True)
