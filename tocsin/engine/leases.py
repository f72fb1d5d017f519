"""The leases of what is under way: kept until the ledger has written what became of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from uuid import UUID, uuid4

from tocsin.engine.model import LEASE, Claimed, Conflict, Unavailable
from tocsin.engine.store import delivery as store
from tocsin.engine.store.database import Database


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
