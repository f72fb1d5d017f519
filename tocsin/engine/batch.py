"""One job's deliveries to one provider: what of them waits, and how it is claimed."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial

from tocsin.engine.leases import Leases
from tocsin.engine.model import LEASE, Channel, Claimed, Priority
from tocsin.engine.patience import Patience
from tocsin.engine.store import delivery as store
from tocsin.engine.store.database import Database


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
            found = await self._patience.ask(lambda: store.same_people(self._database, ids))
            self._company = found or {}

    async def claim(self, size: int, leases: Leases) -> list[Claimed]:
        """Claims the next ones, and with them what goes to the same people."""
        ids = [self._waiting.popleft() for _ in range(min(size, len(self._waiting)))]
        if not ids:
            return []
        sociable = {other for one in ids for other in self._company.get(one, ())}
        claimed = await self._patience.ask(
            lambda: store.claim(
                self._database,
                self.channel,
                ids,
                sociable=sociable,
                claim=leases.new_claim(),
                process_id=leases.process_id,
                lease=LEASE,
            ),
            undo=lambda: store.undo_claim(self._database, leases.latest_claim),
        )
        if claimed is None:
            self._waiting.extend(ids)
            return []
        if sociable:
            taken = sociable.intersection(one.delivery_id for one in claimed)
            self._waiting = deque(one for one in self._waiting if one not in taken)
        return claimed

    async def hand_back(self, delay: timedelta = timedelta(0)) -> None:
        """Leaves what wasn't claimed to whoever takes it up after `delay`."""
        ids = list(self._waiting)
        self._waiting.clear()
        if ids:
            release = partial(store.release, self._database, ids, delay=delay)
            await self._patience.ask(release, at_least_once=True)
