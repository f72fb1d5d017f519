"""The unread count's hot path: concurrent questions share one read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from tocsin.engine.model import Unavailable
from tocsin.engine.store.badge import unread_counts
from tocsin.engine.store.database import Database

# A session that nobody needed for so long (seconds) goes back to the pool; to take one out costs more than a read.
_LINGER = 0.2

Answer = asyncio.Future[int]
Questions = dict[str, list[Answer]]  # by recipient


class UnreadCounts:
    """Batches look-ups: what is asked while a read is under way waits for the next one, so each answer is fresh.

    A batched look-up costs a twentieth of one of its own.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: Questions = {}
        self._reader: asyncio.Task[None] | None = None
        self._idle: asyncio.Future[None] | None = None  # while the reader waits for a question

    def read(self, recipient_id: str) -> Answer:
        """The count from a snapshot taken after this call; awaiting it raises Unavailable."""
        answer: Answer = asyncio.get_running_loop().create_future()
        self._ask(recipient_id, [answer])
        if self._idle is not None:
            _end(self._idle)
        elif self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        return answer

    def _ask(self, recipient_id: str, answers: list[Answer]) -> None:
        others = self._asked.get(recipient_id)
        if others is None:
            self._asked[recipient_id] = answers
        else:
            others += answers

    async def _read(self) -> None:
        while batch := self._take():
            kept = False
            try:
                async with self._database.session() as session:
                    while batch:
                        _answer(batch, await unread_counts(session, list(batch)))
                        batch, kept = {}, True
                        batch = await self._next()
            except Exception as error:  # noqa: BLE001 - told to those who asked
                if kept and isinstance(error, Unavailable):
                    # the session died since its last use, and the pool has others
                    for recipient_id, answers in batch.items():
                        self._ask(recipient_id, answers)
                else:
                    _fail(batch, error)
            except BaseException:
                _cancel(batch)
                raise

    def _take(self) -> Questions:
        batch, self._asked = self._asked, {}
        return batch

    async def _next(self) -> Questions:
        """What was asked meanwhile, or else within a while."""
        if not self._asked:
            loop = asyncio.get_running_loop()
            self._idle = loop.create_future()
            timer = loop.call_later(_LINGER, _end, self._idle)
            try:
                await self._idle
            finally:
                timer.cancel()
                self._idle = None
        return self._take()


def _answer(batch: Questions, counts: dict[str, int]) -> None:
    for recipient_id, answers in batch.items():
        count = counts[recipient_id]
        for answer in answers:
            if not answer.done():  # who asked may have hung up
                answer.set_result(count)


def _fail(batch: Questions, error: Exception) -> None:
    for answer in _waiting(batch):
        answer.set_exception(error)


def _cancel(batch: Questions) -> None:
    for answer in _waiting(batch):
        answer.cancel()


def _waiting(batch: Questions) -> Iterable[Answer]:
    return (answer for answers in batch.values() for answer in answers if not answer.done())


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
