"""A worker's deliverer with an actor that accepts everything, a leader, and a clock that a test moves on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg

from tests.support.services import service_dsn, until
from tocsin.engine.actors.machinery.base import Actor
from tocsin.engine.actors.machinery.envelope import Envelope, RetryNow, SendResult
from tocsin.engine.deliver.deliverer import Deliverer
from tocsin.engine.model import Channel, CheckResult, Message, Outcome, Priority, Sent
from tocsin.engine.store import delivery as store
from tocsin.engine.store.database import Database
from tocsin.engine.store.dispatch import LeaderSession
from tocsin.engine.worker import _renderer
from tocsin.settings import Settings

Db = psycopg.Connection[Any]
LEASE = timedelta(minutes=2)
_CLOCK = (
    "update tocsin.event set created_at = created_at - %(by)s, expires_at = expires_at - %(by)s",
    "update tocsin.notification set created_at = created_at - %(by)s",
    """update tocsin.delivery
    set created_at = created_at - %(by)s, due_at = due_at - %(by)s, settled_at = settled_at - %(by)s""",
    "update tocsin.joined_message set due_at = due_at - %(by)s",
)


class AcceptingActor(Actor[str]):
    """Keeps what it sends, and returns `outcome`."""

    def __init__(self, database: Database, name: str) -> None:
        async def presend_check(messages: Sequence[Message]) -> dict[int, CheckResult]:
            return await store.presend_check(database, messages)

        super().__init__(name=name, presend_check=presend_check, senders=1)
        self.sent: list[Any] = []
        self.ids: list[int] = []
        self.outcome: Outcome = Sent()

    async def prepare(self, connection: str | None) -> str:
        return connection or "open"

    async def transmit(self, connection: str, envelope: Envelope) -> SendResult | RetryNow:
        if not envelope.begin():
            return RetryNow(keep_connection=True)
        self.sent.append(envelope.message.content)
        self.ids.append(envelope.message.delivery_id)
        return SendResult(self.outcome)

    async def discard(self, connection: str) -> None:
        pass


class Installation:
    """A leader and a worker, of which each does its work when it is asked to."""

    def __init__(self, db: Db, leader: LeaderSession, deliverer: Deliverer) -> None:
        self._db = db
        self._leader = leader
        self._deliverer = deliverer
        self.jobs: list[list[int]] = []

    async def work(self) -> None:
        """Dispatches and delivers all that is due now."""
        while jobs := await self._dispatched():
            self.jobs += [ids for _, ids in jobs]
            for channel, ids in jobs:
                await self._deliverer.deliver(channel, ids, Priority.NORMAL)
            await until(lambda: "sending" not in {state for state, _ in states(self._db)})

    async def _dispatched(self) -> list[tuple[Channel, list[int]]]:
        queues = self._db.execute(
            "select channel, priority, array_agg(event_id) from tocsin.event_queue group by 1, 2"
        ).fetchall()
        for channel, priority, events in queues:
            await self._leader.dispatch_event_queues(
                channel, priority, dict.fromkeys(events, 0), each=500, lease=LEASE
            )
        for channel in ("email", "push"):
            await self._leader.dispatch_due(channel, 500, LEASE)
        rows = self._db.execute(
            "delete from tocsin_queue.procrastinate_jobs returning queue_name, args"
        ).fetchall()
        return [(Channel(name), args["delivery_ids"]) for name, args in rows]

    def wait(self, **time: float) -> None:
        """Moves the clock on."""
        move_clock(self._db, **time)


def move_clock(db: Db, **time: float) -> None:
    """Moves all times back, as if so much time had passed."""
    for statement in _CLOCK:
        db.execute(statement.encode(), {"by": timedelta(**time)})


@asynccontextmanager
async def installation(
    db: Db, dsn: str, database: Database, *, cap: int = 5
) -> AsyncIterator[tuple[Installation, dict[str, AcceptingActor]]]:
    """Yields an installation with this cap, and its actors."""
    db.execute("update tocsin.channel set available = true")
    actors = {name: AcceptingActor(database, name) for name in ("email", "apns", "fcm")}
    render = _renderer(Settings(public_url="https://n.example"), b"k" * 32)
    leader = await LeaderSession.connect(service_dsn(dsn))
    deliverer = Deliverer(database, actors, render, process_id=uuid4(), cap=cap)
    try:
        async with deliverer.running():
            yield Installation(db, leader, deliverer), actors
    finally:
        await leader.close()


def notify(db: Db, event_type: str, *titles: str, recipient: str = "alice", **named: Any) -> None:
    """Notifies one person once for each title, each in a transaction of its own."""
    arguments = "".join(f", {name} => %({name})s" for name in named)
    for title in titles:
        db.execute(
            f"select tocsin.notify(%(type)s, array[%(who)s], %(title)s{arguments})".encode(),
            {"type": event_type, "who": recipient, "title": title, **named},
        )


def states(db: Db) -> dict[tuple[str, str | None], int]:
    """Returns how many deliveries are in each state, for what reason."""
    rows = db.execute("select state::text, reason, count(*) from tocsin.delivery group by 1, 2")
    return {(state, reason): count for state, reason, count in rows}
