"""A job's batch in the deliverer: one that hangs, a job that is cancelled, a stop half-way; the ledger is real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.support.services import until
from tocsin.engine.actors.machinery.base import Actor
from tocsin.engine.actors.machinery.envelope import Envelope, RetryNow, SendResult
from tocsin.engine.deliver.deliverer import Deliverer
from tocsin.engine.model import Channel, CheckResult, Message, Priority, Sent
from tocsin.engine.store import delivery as store
from tocsin.engine.store.database import Database
from tocsin.engine.worker import _renderer
from tocsin.settings import Settings

Db = psycopg.Connection[Any]


class Provider(Actor[str]):
    """Accepts the messages of `quick`, and all once it is `open`; the others hang, after the body if `committed`."""

    def __init__(self, database: Database, *, committed: bool = False, **options: Any) -> None:
        async def presend_check(messages: Sequence[Message]) -> dict[int, CheckResult]:
            return await store.presend_check(database, messages)

        super().__init__(name="email", presend_check=presend_check, **options)
        self.open = asyncio.Event()
        self.quick: set[int] = set()
        self.met: list[int] = []
        self._committed = committed

    async def prepare(self, connection: str | None) -> str:
        return connection or "open"

    async def transmit(self, connection: str, envelope: Envelope) -> SendResult | RetryNow:
        if not envelope.begin():
            return RetryNow(keep_connection=True)
        self.met.append(envelope.message.delivery_id)
        if envelope.message.delivery_id not in self.quick:
            if self._committed:
                envelope.commit()
            await self.open.wait()
        return SendResult(Sent())

    async def discard(self, connection: str) -> None:
        pass


@asynccontextmanager
async def running(database: Database, provider: Provider) -> AsyncIterator[Deliverer]:
    render = _renderer(Settings(public_url="https://n.example"), b"k" * 32)
    deliverer = Deliverer(database, {"email": provider}, render, process_id=uuid4())
    async with deliverer.running():
        yield deliverer


def notify_people(db: Db, count: int) -> list[int]:
    """So many mails to as many people; their deliveries."""
    db.execute("update tocsin.channel set available = true")
    db.execute(
        "select tocsin.upsert_recipient('p' || i, 'p' || i || '@example.com') from generate_series(1, %s) i",
        (count,),
    )
    db.execute(
        "select tocsin.notify('forum.new_reply', array(select 'p' || i from generate_series(1, %s) i), 'x')",
        (count,),
    )
    rows = db.execute("select delivery_id from tocsin.delivery where channel = 'email' order by 1")
    return [delivery_id for (delivery_id,) in rows]


def states(db: Db) -> dict[tuple[str, str | None, int], int]:
    """How many stand where, for what reason, after how many attempts."""
    rows = db.execute(
        "select state::text, reason, attempts, count(*) from tocsin.delivery group by 1, 2, 3"
    )
    return {(state, reason, attempts): count for state, reason, attempts, count in rows}


async def test_one_that_hangs_delays_no_other_of_its_batch(db: Db, database: Database) -> None:
    slow, *quick = notify_people(db, 40)
    provider = Provider(database, senders=2)
    provider.quick.update(quick)
    async with running(database, provider) as deliverer:
        await deliverer.deliver(Channel.EMAIL, [slow, *quick], Priority.NORMAL)
        await until(lambda: states(db) == {("sent", None, 1): 39, ("sending", None, 1): 1})
        provider.open.set()
        await until(lambda: states(db) == {("sent", None, 1): 40})


@pytest.mark.parametrize("committed", [False, True])
async def test_a_stop_half_way_settles_each_by_how_far_it_came(
    db: Db, database: Database, committed: bool
) -> None:
    ids = notify_people(db, 40)
    provider = Provider(database, committed=committed, senders=2, size=8, reserve=0)
    provider.quick.update(ids[:10])
    async with running(database, provider) as deliverer:
        job = asyncio.create_task(deliverer.deliver(Channel.EMAIL, ids, Priority.NORMAL))
        await until(lambda: len(provider.met) == 12)
        await deliverer.stop(grace=0)
        await job
    await until(lambda: not any(state == "sending" for state, _, _ in states(db)))
    found = states(db)
    untried = found.pop(("queued", None, 0)) + found.pop(("deferred", "shutdown", 0))
    unknown = found.pop(("deferred", "shutdown", 1), 0)
    assert found == {("sent", None, 1): 10}
    assert (untried, unknown) == ((28, 2) if committed else (30, 0))


async def test_a_cancelled_job_sends_what_it_handed_over_and_claims_no_more(
    db: Db, database: Database
) -> None:
    ids = notify_people(db, 40)
    provider = Provider(database, senders=2, size=8, reserve=0)
    async with running(database, provider) as deliverer:
        job = asyncio.create_task(deliverer.deliver(Channel.EMAIL, ids, Priority.NORMAL))
        await until(lambda: len(provider.met) == 2 and provider.report().waiting == 6)
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
        provider.open.set()
        await until(lambda: not provider.report().in_flight)
        await until(lambda: states(db) == {("sent", None, 1): 8, ("queued", None, 0): 32})
        # its permits are free again
        await deliverer.deliver(Channel.EMAIL, ids, Priority.NORMAL)
        await until(lambda: states(db) == {("sent", None, 1): 40})
