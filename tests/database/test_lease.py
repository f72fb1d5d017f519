"""The lease of a job and of a claim, and what happens to deliveries whose lease ran out."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tests.support.leases import *  # noqa: F403 - fixtures
from tests.support.leases import (
    HOLDER,
    LEASE,
    MINUTES,
    claim,
    dispatch,
    due,
    ended,
    jobs,
    leases,
    locked,
    message,
    run_out,
    sent,
    states,
)
from tocsin.engine.model import Channel, DeliveryState, Withheld
from tocsin.engine.store import delivery as store
from tocsin.engine.store.database import Database
from tocsin.engine.store.delivery import SettledDelivery
from tocsin.engine.store.dispatch import LeaderSession
from tocsin.engine.store.health import unsettled
from tocsin.engine.store.installation import Retention, clean_up
from tocsin.engine.store.operations import settled_lately, unfinished


async def test_a_job_that_vanished_is_made_again(
    db: Db, leader: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(leader, ten_mails)
    assert await due(leader) == []  # its lease stands for it
    run_out(db)
    assert [sorted(again) for again in await due(leader)] == [job]
    assert leases(db) == 1
    assert db.execute("select max(attempts) from tocsin.delivery").fetchone() == (0,)


async def test_the_clean_up_takes_no_delivery_from_its_job(
    leader: LeaderSession, database: Database, db: Db, ten_mails: int
) -> None:
    now = datetime.now(UTC)
    assert len(await dispatch(leader, ten_mails)) == 1
    await clean_up(database, now=now, retention=Retention(90))
    assert await due(leader) == []
    db.execute("delete from tocsin.lease")  # by hand: the job is lost
    await clean_up(database, now=now, retention=Retention(90))
    assert len(await due(leader)) == 1


async def test_what_a_lost_worker_had_not_settled_is_tried_again(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(leader, ten_mails)
    claimed = await claim(database, job)
    await store.settle(database, [sent(one) for one in claimed[:5]])
    run_out(db)
    (again,) = await due(leader)
    assert sorted(again) == sorted(one.delivery_id for one in claimed[5:])
    assert states(db) == {"sent": 5, "queued": 5}
    found = db.execute(
        "select a.outcome, a.reason, d.reason, count(*) from tocsin.attempt a"
        " join tocsin.delivery d using (delivery_id) group by 1, 2, 3 order by 1"
    ).fetchall()
    assert found == [("sent", None, None, 5), ("unknown", "worker_lost", "worker_lost", 5)]


async def test_a_claim_takes_a_check(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(leader, ten_mails)
    db.execute(
        "insert into tocsin.preference (recipient_id, channel, scope, enabled) values ('p3', 'email', '*', false)"
    )
    claimed = await claim(database, job)
    assert {one.recipient_id for one in claimed} == {f"p{number}" for number in range(10)}
    for one in claimed:
        checked = (await store.presend_check(database, [message(one)]))[one.delivery_id]
        if one.recipient_id == "p3":
            assert (one.withheld, one.check_result) == ("opted_out_since", None)
            assert checked.withheld == Withheld(DeliveryState.SKIPPED, "opted_out_since")
        else:
            assert (one.withheld, checked.withheld) == (None, None)
            assert one.check_result is not None
            assert one.check_result.address == checked.address == f"{one.recipient_id}@example.com"
            assert one.check_result.checked_at < checked.checked_at


async def test_two_workers_never_have_the_same(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(leader, ten_mails)
    first = await claim(database, job)
    assert len(first) == 10
    assert await claim(database, job) == []
    assert len(await store.presend_check(database, [message(one) for one in first])) == 10
    run_out(db)  # the first one hangs
    assert await store.presend_check(database, [message(one) for one in first]) == {}
    (again,) = await due(leader)
    second = await claim(database, again)
    assert len(second) == 10
    assert await store.presend_check(database, [message(one) for one in first]) == {}
    assert await store.settle(database, [sent(one) for one in first]) == set()
    assert len(await store.settle(database, [sent(one) for one in second])) == 10
    # both were counted
    assert db.execute("select distinct attempts from tocsin.delivery").fetchall() == [(2,)]


async def test_a_lease_that_ran_out_is_lost_before_anybody_noticed(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    """Between its end and the next claim nothing is sent; what had left may still be written down."""
    claimed = await claim(database, (await dispatch(leader, ten_mails))[0])
    messages = [message(one) for one in claimed]
    assert len(await store.presend_check(database, messages)) == 10
    run_out(db)
    assert await store.presend_check(database, messages) == {}
    assert db.execute(
        "select count(*) from tocsin.delivery where state = 'sending' and due_at is null"
    ).fetchone() == (10,)  # nobody has ended it
    assert len(await store.settle(database, [sent(one) for one in claimed])) == 10


async def test_a_lease_that_was_ended_is_not_renewed(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    claimed = await claim(database, (await dispatch(leader, ten_mails))[0])
    run_out(db)
    await leader.record_heartbeat()
    await leader.end_leases(100)
    await store.renew(database, [claimed[0].claim], lease=LEASE)  # too late
    assert await store.presend_check(database, [message(one) for one in claimed]) == {}
    assert len(await store.settle(database, [sent(one) for one in claimed])) == 10
    assert await due(leader) == []


@pytest.mark.parametrize(
    ("change", "state", "reason"),
    [
        ("update tocsin.event set expires_at = now()", "expired", "expired"),
        ("update tocsin.event set cancelled_at = now()", "cancelled", "cancelled"),
        ("update tocsin.delivery set attempts = 10", "failed", "attempts_exhausted"),
        ("update tocsin.delivery set attempts = 11", "failed", "attempts_exhausted"),
    ],
)
async def test_what_can_not_be_tried_again_ends_at_dispatch(
    db: Db,
    database: Database,
    leader: LeaderSession,
    ten_mails: int,
    change: str,
    state: str,
    reason: str,
) -> None:
    await dispatch(leader, ten_mails)
    db.execute(change)
    run_out(db)
    assert await due(leader) == []
    assert db.execute(
        "select distinct state::text, reason, due_at, settled_at is not null from tocsin.delivery"
    ).fetchall() == [(state, reason, None, True)]
    lately = await settled_lately(database, datetime.now(UTC))
    assert {each.state: each.n for each in lately} == {state: 10}
    assert leases(db) == 0


async def test_the_last_attempt_of_the_cap_is_made(
    db: Db, leader: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(leader, ten_mails)
    db.execute("update tocsin.delivery set attempts = 9")
    run_out(db)
    assert [sorted(again) for again in await due(leader)] == [job]


async def test_a_lost_claim_is_not_kept_by_the_next_job(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    claimed = await claim(database, (await dispatch(leader, ten_mails))[0])
    run_out(db)
    await due(leader)
    assert db.execute("select distinct claim from tocsin.delivery").fetchall() == [(None,)]
    assert await store.settle(database, [sent(one) for one in claimed]) == set()


async def test_what_somebody_has_locked_is_neither_dispatched_nor_waited_for(
    dsn: str, db: Db, leader: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(leader, ten_mails)
    run_out(db)
    await leader.end_leases(100)
    with locked(dsn, job[:3]):
        await leader.run("set lock_timeout = '1s'")
        await leader.dispatch_due("email", 500, MINUTES)
        assert [sorted(each) for each in await jobs(leader)] == [job[3:]]
    assert [sorted(each) for each in await due(leader)] == [job[:3]]


async def test_what_somebody_has_locked_is_neither_claimed_nor_waited_for(
    dsn: str, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(leader, ten_mails)
    with locked(dsn, job[:3]):
        claimed = await claim(database, job)
    assert [one.delivery_id for one in claimed] == job[3:]
    assert [one.delivery_id for one in await claim(database, job)] == job[:3]


async def test_only_what_is_due_and_of_its_channel_is_claimed(
    database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(leader, ten_mails)
    other = await store.claim(
        database, Channel.PUSH, job, claim=uuid4(), process_id=HOLDER, lease=LEASE
    )
    assert other == []
    claimed = await claim(database, job)
    await store.settle(database, [ended(one, DeliveryState.DEFERRED, 60.0) for one in claimed[:3]])
    await store.settle(database, [ended(one, DeliveryState.FAILED) for one in claimed[3:6]])
    await store.settle(database, [sent(one) for one in claimed[6:9]])
    assert await claim(database, job) == []
    await store.settle(database, [ended(claimed[9], DeliveryState.DEFERRED, -1.0)])
    assert [one.delivery_id for one in await claim(database, job)] == [claimed[9].delivery_id]


async def test_what_this_worker_has_claimed_is_not_released(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(leader, ten_mails)
    await claim(database, job[:4])
    await store.release(database, job)
    assert db.execute(
        "select state::text, count(*), count(due_at) from tocsin.delivery group by 1 order by 1"
    ).fetchall() == [("queued", 6, 6), ("sending", 4, 0)]


async def test_a_lease_that_is_renewed_does_not_run_out(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(leader, ten_mails)
    claimed = await claim(database, job)
    run_out(db)
    await store.renew(database, [claimed[0].claim], lease=LEASE)
    assert await due(leader) == []
    assert len(await store.presend_check(database, [message(one) for one in claimed])) == 10


async def test_a_job_closes_its_leases_and_leaves_those_that_hold_something(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(leader, ten_mails)
    first = await claim(database, job[:4])
    second = await claim(database, job[4:8])
    claims = [first[0].claim, second[0].claim]
    await store.settle(database, [sent(one) for one in [*first, *second[:2]]])
    await store.close_leases(database, job=job[0], claims=claims)
    held = db.execute("select claim from tocsin.lease order by claim nulls last").fetchall()
    assert held == [(claims[1],), (None,)]  # two were not settled, two not even claimed
    await store.release(database, job[8:])
    await store.settle(database, [sent(one) for one in second[2:]])
    await store.close_leases(database, job=job[0], claims=claims)
    assert leases(db) == 0


async def test_what_is_due_again_has_a_lease_of_its_own(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(leader, ten_mails)
    claimed = await claim(database, job)
    later = [
        SettledDelivery(
            one.delivery_id, one.claim, DeliveryState.DEFERRED, "smtp_421", 0.0, outcome="deferred"
        )
        for one in claimed
    ]
    await store.settle(database, later)
    await store.close_leases(database, job=job[0], claims=[claimed[0].claim])
    (again,) = await due(leader)
    assert sorted(again) == job
    assert leases(db) == 1
    assert len(await claim(database, again)) == 10


async def test_a_lease_of_before_leaves_what_the_next_claim_holds(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    """A retry may be claimed again while the lease of its first claim is still there."""
    first = await claim(database, (await dispatch(leader, ten_mails))[0])
    await store.settle(database, [ended(one, DeliveryState.DEFERRED) for one in first])
    (again,) = await due(leader)
    second = await claim(database, again)
    assert await store.presend_check(database, [message(one) for one in first]) == {}
    db.execute("update tocsin.lease set until = now() where claim = %s", (first[0].claim,))
    assert await due(leader) == []
    assert len(await store.presend_check(database, [message(one) for one in second])) == 10


def test_jobs_of_a_dead_worker_do_not_block_their_channel(db: Db) -> None:
    for beat in ("1 second", "1 hour"):
        db.execute(
            "with w as (insert into tocsin_queue.procrastinate_workers (last_heartbeat)"
            " values (now() - %s::interval) returning id)"
            " insert into tocsin_queue.procrastinate_jobs (queue_name, task_name, status, worker_id)"
            " select 'email', 'x', 'doing', id from w",
            (beat,),
        )
    assert db.execute("select tocsin.jobs_at_work('email', '1 minute')").fetchone() == (1,)
    assert db.execute("select tocsin.jobs_at_work('push', '1 minute')").fetchone() == (0,)


async def test_a_new_leader_goes_on_where_the_last_one_was(
    leader: LeaderSession, ten_mails: int
) -> None:
    (first,) = await dispatch(leader, ten_mails, each=4)
    (second,) = await dispatch(leader, ten_mails, each=4)  # it knows of no last one
    (third,) = await dispatch(leader, ten_mails, each=4)
    assert sorted([*first, *second, *third]) == sorted({*first, *second, *third})
    assert [len(first), len(second), len(third)] == [4, 4, 2]


async def test_each_is_counted_once_wherever_it_waits(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(leader, ten_mails, each=6)
    await claim(database, job[:3])
    counted = {each.state: each.n for each in await unfinished(database)}
    assert counted == {"queued": 7, "sending": 3}
    assert {each.state: each.n for each in await unsettled(database)} == counted


async def test_what_ended_together_is_counted_by_the_minute(
    database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    claimed = await claim(database, (await dispatch(leader, ten_mails))[0])
    await store.settle(database, [sent(one) for one in claimed[:7]])
    gone = [
        SettledDelivery(one.delivery_id, one.claim, DeliveryState.SKIPPED, "muted")
        for one in claimed[7:]
    ]
    await store.settle(database, gone)
    lately = await settled_lately(database, datetime.now(UTC))
    found: dict[str, int] = {}
    for each in lately:
        found[each.state] = found.get(each.state, 0) + each.n
    assert found == {"sent": 7, "skipped": 3}


async def test_a_lease_that_somebody_took_away_costs_a_day_at_most(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(leader, ten_mails, each=6)
    claimed = await claim(database, job[:3])
    await store.settle(database, [sent(claimed[0])])
    db.execute("delete from tocsin.lease")
    assert await store.presend_check(database, [message(one) for one in claimed]) == {}
    await clean_up(database, now=datetime.now(UTC), retention=Retention(90))
    (again,) = await due(leader)
    assert sorted(again) == sorted([claimed[1].delivery_id, claimed[2].delivery_id, *job[3:]])
    # the others wait in the queue of their event, and these have a lease
    await clean_up(database, now=datetime.now(UTC), retention=Retention(90))
    assert await due(leader) == []


async def test_a_ledger_from_before_the_leases_comes_to_its_end(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    """Deliveries that were dispatched, claimed or deferred before leases existed have a due time: it counts."""
    (job,) = await dispatch(leader, ten_mails, each=9)
    db.execute("delete from tocsin.lease")
    dispatched, claimed, deferred = job[:3], job[3:6], job[6:9]
    soon = "now() + interval '30 s'"
    old = UUID(int=7)
    db.execute(
        f"update tocsin.delivery set due_at = {soon} where delivery_id = any (%s)", (dispatched,)
    )
    db.execute(
        f"update tocsin.delivery set state = 'sending', claim = %s, attempts = 1, due_at = {soon}"
        " where delivery_id = any (%s)",
        (old, claimed),
    )
    db.execute(
        f"update tocsin.delivery set state = 'deferred', attempts = 1, due_at = {soon}"
        " where delivery_id = any (%s)",
        (deferred,),
    )
    assert await due(leader) == []
    # a worker of the former version settles what it claimed, a new one claims a job of the former version
    left = SettledDelivery(claimed[0], old, DeliveryState.SENT, outcome="sent")
    assert await store.settle(database, [left]) == {claimed[0]}
    assert len(await claim(database, dispatched[:1])) == 1
    db.execute("update tocsin.delivery set due_at = now() where due_at is not null")
    (again,) = await due(leader)
    assert sorted(again) == sorted([*dispatched[1:], *claimed[1:], *deferred])
    await clean_up(database, now=datetime.now(UTC), retention=Retention(90))
    assert await due(leader) == []
    assert len(await dispatch(leader, ten_mails)) == 1
