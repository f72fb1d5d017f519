"""Deliveries that may go as one message are claimed, settled and retried together."""

from __future__ import annotations

from uuid import uuid4

import psycopg
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tests.support.leases import *  # noqa: F403 - fixtures
from tests.support.leases import LEASE, MINUTES, claim, dispatch, due, ended, jobs, leases, run_out
from tocsin.engine.model import Channel, Claimed, DeliveryState
from tocsin.engine.store import delivery as store
from tocsin.engine.store.database import Database
from tocsin.engine.store.dispatch import LeaderSession

LAST = "where delivery_id = (select max(delivery_id) from tocsin.delivery)"


async def two_mails(db: Db, leader: LeaderSession) -> list[int]:
    """One job with two events' mails to one person."""
    for title in ("first", "second"):
        db.execute("select tocsin.notify('forum.new_reply', '{p0}', %s)", (title,))
    events = db.execute("select event_id from tocsin.event order by event_id desc limit 2")
    await leader.dispatch_event_queues(
        "email", 1, {int(event_id): 0 for (event_id,) in events.fetchall()}, each=100, lease=MINUTES
    )
    (job,) = await jobs(leader)
    return job


async def claim_together(database: Database, ids: list[int], among: list[int]) -> list[Claimed]:
    return await store.claim(
        database, Channel.EMAIL, ids, mergeable=among, claim=uuid4(), lease=LEASE
    )


@pytest.mark.parametrize(
    ("change", "together"),
    [
        ("", True),
        ("update tocsin.event_type set priority = 2", False),
        ("update tocsin.event_type set alone = true", False),
        ("update tocsin.event_type set mandatory_channels = '{email}'", False),
        (f"update tocsin.delivery set attempts = 1 {LAST}", False),
        (f"update tocsin.delivery set state = 'cancelled' {LAST}", False),
    ],
    ids=["usual", "urgent", "alone", "mandatory", "tried", "cancelled"],
)
async def test_what_may_go_together_is_claimed_together(
    db: Db, database: Database, leader: LeaderSession, change: str, together: bool
) -> None:
    job = await two_mails(db, leader)
    if change:
        db.execute(change)
    claimed = await claim_together(database, job[:1], job)
    bursts = {one.delivery_id: one.burst_id for one in claimed}
    if together:
        assert bursts == dict.fromkeys(job, job[0])
    else:
        others = [] if LAST in change else job[1:]  # what can't be sent now is not claimed at all
        assert bursts == dict.fromkeys([*job[:1], *others])


async def test_what_went_together_is_retried_together_without_what_is_over(
    db: Db, database: Database, leader: LeaderSession
) -> None:
    job = await two_mails(db, leader)
    first = await claim_together(database, job, job)
    await store.settle(database, [ended(one, DeliveryState.DEFERRED) for one in first])
    second = await claim(database, job[:1])
    assert [one.delivery_id for one in second] == job
    await store.settle(
        database, [ended(second[0], DeliveryState.DEFERRED), ended(second[1], DeliveryState.FAILED)]
    )
    assert [one.delivery_id for one in await claim(database, job[:1])] == job[:1]


async def test_an_open_cancel_is_not_waited_for(
    db: Db, dsn: str, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    await dispatch(leader, ten_mails)
    run_out(db)
    with psycopg.connect(dsn) as app:
        app.execute("select tocsin.cancel(%s)", (ten_mails,))
        await leader.run("set lock_timeout = '1s'")
        assert await due(leader) == []
        assert leases(db) == 1  # asked again soon
        app.rollback()
    run_out(db)
    ((*again,),) = await due(leader)
    assert len(again) == 10


async def test_an_event_that_an_open_cancel_holds_keeps_no_other_waiting(
    db: Db, dsn: str, leader: LeaderSession, ten_mails: int
) -> None:
    with psycopg.connect(dsn) as app:
        app.execute("select tocsin.cancel(%s)", (ten_mails,))
        await leader.run("set lock_timeout = '1s'")
        assert await dispatch(leader, ten_mails) == []
        app.rollback()
    (job,) = await dispatch(leader, ten_mails)
    assert len(job) == 10
