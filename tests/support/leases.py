"""Jobs and claims of ten mails, for the tests of leases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
import pytest_asyncio

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tests.support.services import service_dsn
from tocsin.engine.model import Channel, Claimed, DeliveryState, Mail, Message
from tocsin.engine.store import delivery as store
from tocsin.engine.store.database import Database
from tocsin.engine.store.delivery import SettledDelivery
from tocsin.engine.store.dispatch import LeaderSession

LEASE = timedelta(seconds=30)


HOLDER = uuid4()


MINUTES = timedelta(minutes=2)


MAIL = Mail("<1@example.com>", "Subject", "Text\n", "<p>Text</p>")


@pytest_asyncio.fixture
async def leader(dsn: str) -> AsyncIterator[LeaderSession]:
    connected = await LeaderSession.connect(service_dsn(dsn))
    assert await connected.try_lead(timedelta(seconds=15))
    yield connected
    await connected.close()


@pytest.fixture(autouse=True)
def ten_mails(db: Db) -> int:
    """One event for ten people."""
    db.execute("update tocsin.channel set available = true")
    db.execute(
        "select tocsin.upsert_recipient('p' || i, 'p' || i || '@example.com') from generate_series(0, 9) i"
    )
    row = db.execute(
        "select tocsin.notify('forum.new_reply', array(select 'p' || i from generate_series(0, 9) i), 'x')"
    ).fetchone()
    assert row is not None
    return int(row[0])


async def dispatch(
    leader: LeaderSession, event_id: int, each: int = 100, after: int = 0
) -> list[list[int]]:
    """Dispatches a share of the event; returns the jobs."""
    await leader.dispatch_event_queues("email", 1, {event_id: after}, each=each, lease=MINUTES)
    return await jobs(leader)


async def jobs(leader: LeaderSession) -> list[list[int]]:
    """Removes the jobs and returns their deliveries."""
    rows = await leader.connection.execute(
        "delete from tocsin_queue.procrastinate_jobs where queue_name = 'email' returning args"
    )
    return [args["delivery_ids"] for (args,) in await rows.fetchall()]


async def due(leader: LeaderSession) -> list[list[int]]:
    """Ends leases that ran out, dispatches what is due and returns the jobs."""
    await leader.record_heartbeat()
    await leader.end_leases(100)
    await leader.dispatch_due("email", 500, MINUTES)
    return await jobs(leader)


async def claim(database: Database, ids: list[int]) -> list[Claimed]:
    return await store.claim(
        database, Channel.EMAIL, ids, claim=uuid4(), process_id=HOLDER, lease=LEASE
    )


def message(claimed: Claimed) -> Message:
    return Message(claimed.delivery_id, claimed.claim, claimed.channel, claimed.priority, MAIL)


def sent(claimed: Claimed) -> SettledDelivery:
    return SettledDelivery(claimed.delivery_id, claimed.claim, DeliveryState.SENT, outcome="sent")


def run_out(db: Db) -> None:
    db.execute("update tocsin.lease set until = now()")


def states(db: Db) -> dict[str, int]:
    return dict(
        db.execute("select state::text, count(*) from tocsin.delivery group by 1").fetchall()
    )


def leases(db: Db) -> int:
    row = db.execute("select count(*) from tocsin.lease").fetchone()
    assert row is not None
    return int(row[0])


def ended(
    claimed: Claimed, state: DeliveryState, delay: float = 0.0, *, claim: UUID | None = None
) -> SettledDelivery:
    """Returns the outcome of a claim: a refusal or a retry."""
    outcome = "deferred" if state is DeliveryState.DEFERRED else "rejected"
    return SettledDelivery(
        claimed.delivery_id, claim or claimed.claim, state, "smtp_x", delay, outcome=outcome
    )


@contextmanager
def locked(dsn: str, ids: list[int]) -> Iterator[Db]:
    """Yields an open transaction of another session that has locked these deliveries."""
    with psycopg.connect(dsn) as other:
        other.execute("select from tocsin.delivery where delivery_id = any (%s) for update", (ids,))
        yield other
