"""Claims that are lost, or whose delivery is over, before their outcome is written."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tests.support.leases import *  # noqa: F403 - fixtures
from tests.support.leases import claim, dispatch, ended, locked, message, sent, states
from tests.support.services import until
from tocsin.engine.model import DeliveryState, Withheld
from tocsin.engine.store import delivery as store
from tocsin.engine.store.database import Database
from tocsin.engine.store.delivery import SettledDelivery
from tocsin.engine.store.dispatch import LeaderSession


@pytest.mark.parametrize(
    "state", [DeliveryState.FAILED, DeliveryState.DEFERRED, DeliveryState.SENT]
)
async def test_what_a_lost_claim_made_of_it_is_not_written(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int, state: DeliveryState
) -> None:
    claimed = await claim(database, (await dispatch(leader, ten_mails))[0])
    stale = [ended(one, state, claim=uuid4()) for one in claimed]
    assert await store.settle(database, stale) == set()
    assert states(db) == {"sending": 10}
    assert db.execute("select count(*) from tocsin.attempt").fetchone() == (0,)
    assert db.execute("select count(*) from tocsin.settled_batch").fetchone() == (0,)


@pytest.mark.parametrize("state", [DeliveryState.FAILED, DeliveryState.SENT])
async def test_a_claim_that_is_lost_while_its_outcome_is_written_counts_as_lost(
    dsn: str,
    db: Db,
    database: Database,
    leader: LeaderSession,
    ten_mails: int,
    state: DeliveryState,
) -> None:
    (one, *_) = await claim(database, (await dispatch(leader, ten_mails))[0])
    with locked(dsn, [one.delivery_id]) as other:
        writing = asyncio.create_task(store.settle(database, [ended(one, state)]))
        waits = "select count(*) from pg_locks where not granted"
        await until(lambda: db.execute(waits).fetchone() != (0,))
        other.execute(
            "update tocsin.delivery set claim = %s where delivery_id = %s",
            (uuid4(), one.delivery_id),
        )
    assert await writing == set()
    assert states(db) == {"sending": 10}


async def test_what_was_sent_is_written_though_its_attempt_was_recorded_as_lost(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    claimed = await claim(database, (await dispatch(leader, ten_mails))[0])
    db.execute(
        "insert into tocsin.attempt (delivery_id, attempt, at, outcome, reason)"
        " values (%s, 1, now(), 'unknown', 'worker_lost')",
        (claimed[0].delivery_id,),
    )
    ids = {one.delivery_id for one in claimed}
    assert await store.settle(database, [sent(one) for one in claimed]) == ids
    assert states(db) == {"sent": 10}
    outcomes = "select outcome, count(*) from tocsin.attempt group by 1 order by 1"
    assert db.execute(outcomes).fetchall() == [("sent", 9), ("unknown", 1)]


async def test_a_retry_that_would_come_after_its_expiry_is_its_end(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    claimed = await claim(database, (await dispatch(leader, ten_mails))[0])
    db.execute("update tocsin.event set expires_at = now() + interval '1 minute'")
    later = [ended(one, DeliveryState.DEFERRED, 90.0) for one in claimed[:5]]
    sooner = [ended(one, DeliveryState.DEFERRED, 30.0) for one in claimed[5:]]
    await store.settle(database, [*later, *sooner])
    assert states(db) == {"expired": 5, "deferred": 5}
    assert db.execute(
        "select count(*) from tocsin.delivery where state = 'expired' and due_at is null"
        " and settled_at is not null and reason = 'expired'"
    ).fetchone() == (5,)


async def test_what_was_never_tried_costs_no_attempt(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    claimed = await claim(database, (await dispatch(leader, ten_mails))[0])
    unsent = [
        SettledDelivery(one.delivery_id, one.claim, DeliveryState.DEFERRED, "provider_down", 0.0)
        for one in claimed[:5]
    ]
    await store.settle(
        database, [*unsent, *(ended(one, DeliveryState.DEFERRED) for one in claimed[5:])]
    )
    assert db.execute(
        "select attempts, count(*) from tocsin.delivery group by 1 order by 1"
    ).fetchall() == [(0, 5), (1, 5)]
    assert db.execute("select count(*) from tocsin.attempt").fetchone() == (5,)


@pytest.mark.parametrize(
    ("column", "state"),
    [("expires_at", DeliveryState.EXPIRED), ("cancelled_at", DeliveryState.CANCELLED)],
)
async def test_what_is_over_between_claim_and_send_is_not_sent(
    db: Db,
    database: Database,
    leader: LeaderSession,
    ten_mails: int,
    column: str,
    state: DeliveryState,
) -> None:
    claimed = await claim(database, (await dispatch(leader, ten_mails))[0])
    messages = [message(one) for one in claimed]
    checked = await store.presend_check(database, messages)
    assert [each.withheld for each in checked.values()] == [None] * 10
    db.execute(f"update tocsin.event set {column} = now()")
    checked = await store.presend_check(database, messages)
    assert [each.withheld for each in checked.values()] == [Withheld(state, state.value)] * 10


async def test_an_expiry_at_this_very_moment_is_over(
    db: Db, leader: LeaderSession, ten_mails: int
) -> None:
    """now() is the statement's own time there: the moment itself counts."""
    (job,) = await dispatch(leader, ten_mails)
    with db.transaction():
        db.execute("update tocsin.event set expires_at = now()")
        found = db.execute(
            "select distinct withheld from unnest(%s::bigint[]) i, tocsin.delivery_snapshot(i)",
            (job,),
        ).fetchall()
    assert found == [("expired",)]
