"""What stands for a delivery while it is at work: the lease of its job, then of its claim; and what comes after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
import pytest_asyncio

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tests.support.services import service_dsn, until
from tocsin.engine.model import Channel, Claimed, DeliveryState, Mail, Message, Withheld
from tocsin.engine.store import delivery as store
from tocsin.engine.store.database import Database
from tocsin.engine.store.delivery import SettledDelivery
from tocsin.engine.store.dispatch import LeaderSession
from tocsin.engine.store.health import unsettled
from tocsin.engine.store.installation import Identity, ProcessReport, clean_up, report_process
from tocsin.engine.store.operations import settled_lately, unfinished

LEASE = timedelta(seconds=30)
HOLDER = uuid4()
MINUTES = timedelta(minutes=2)
MAIL = Mail("<1@example.com>", "Subject", "Text\n", "<p>Text</p>")


@pytest_asyncio.fixture
async def bell(dsn: str) -> AsyncIterator[LeaderSession]:
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
    bell: LeaderSession, event_id: int, each: int = 100, after: int = 0
) -> list[list[int]]:
    """The jobs that a turn of the lane makes."""
    await bell.dispatch_event_queues("email", 1, {event_id: after}, each=each, lease=MINUTES)
    return await jobs(bell)


async def jobs(bell: LeaderSession) -> list[list[int]]:
    """Takes the jobs that there are."""
    rows = await bell.connection.execute(
        "delete from tocsin_queue.procrastinate_jobs where queue_name = 'email' returning args"
    )
    return [args["delivery_ids"] for (args,) in await rows.fetchall()]


async def due(bell: LeaderSession) -> list[list[int]]:
    """The jobs of what is due, once leases that ran out are ended."""
    await bell.record_heartbeat()
    await bell.end_leases(100)
    await bell.dispatch_due("email", 500, MINUTES)
    return await jobs(bell)


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


async def test_a_job_that_vanished_is_made_again(
    db: Db, bell: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(bell, ten_mails)
    assert await due(bell) == []  # its lease stands for it
    run_out(db)
    assert [sorted(again) for again in await due(bell)] == [job]
    assert leases(db) == 1
    assert db.execute("select max(attempts) from tocsin.delivery").fetchone() == (0,)


async def test_the_clean_up_takes_no_delivery_from_its_job(
    bell: LeaderSession, database: Database, db: Db, ten_mails: int
) -> None:
    now = datetime.now(UTC)
    assert len(await dispatch(bell, ten_mails)) == 1
    await clean_up(database, now=now, retention=timedelta(days=90))
    assert await due(bell) == []
    db.execute("delete from tocsin.lease")  # by hand: the job is lost
    await clean_up(database, now=now, retention=timedelta(days=90))
    assert len(await due(bell)) == 1


async def test_what_a_lost_worker_had_not_settled_is_tried_again(
    db: Db, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(bell, ten_mails)
    claimed = await claim(database, job)
    await store.settle(database, [sent(one) for one in claimed[:5]])
    run_out(db)
    (again,) = await due(bell)
    assert sorted(again) == sorted(one.delivery_id for one in claimed[5:])
    assert states(db) == {"sent": 5, "queued": 5}
    found = db.execute(
        "select a.outcome, a.reason, d.reason, count(*) from tocsin.attempt a"
        " join tocsin.delivery d using (delivery_id) group by 1, 2, 3 order by 1"
    ).fetchall()
    assert found == [("sent", None, None, 5), ("unknown", "worker_lost", "worker_lost", 5)]


async def test_a_claim_takes_a_check(
    db: Db, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(bell, ten_mails)
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
    db: Db, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(bell, ten_mails)
    first = await claim(database, job)
    assert len(first) == 10
    assert await claim(database, job) == []
    assert len(await store.presend_check(database, [message(one) for one in first])) == 10
    run_out(db)  # the first one hangs
    assert await store.presend_check(database, [message(one) for one in first]) == {}
    (again,) = await due(bell)
    second = await claim(database, again)
    assert len(second) == 10
    assert await store.presend_check(database, [message(one) for one in first]) == {}
    assert await store.settle(database, [sent(one) for one in first]) == set()
    assert len(await store.settle(database, [sent(one) for one in second])) == 10
    # both were counted
    assert db.execute("select distinct attempts from tocsin.delivery").fetchall() == [(2,)]


async def test_a_lease_that_ran_out_is_lost_before_anybody_noticed(
    db: Db, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    """Between its end and the next claim nothing is sent; what had left may still be written down."""
    claimed = await claim(database, (await dispatch(bell, ten_mails))[0])
    messages = [message(one) for one in claimed]
    assert len(await store.presend_check(database, messages)) == 10
    run_out(db)
    assert await store.presend_check(database, messages) == {}
    assert db.execute(
        "select count(*) from tocsin.delivery where state = 'sending' and due_at is null"
    ).fetchone() == (10,)  # nobody has ended it
    assert len(await store.settle(database, [sent(one) for one in claimed])) == 10


async def test_a_lease_that_was_ended_is_not_renewed(
    db: Db, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    claimed = await claim(database, (await dispatch(bell, ten_mails))[0])
    run_out(db)
    await bell.record_heartbeat()
    await bell.end_leases(100)
    await store.renew(database, [claimed[0].claim], lease=LEASE)  # too late
    assert await store.presend_check(database, [message(one) for one in claimed]) == {}
    assert len(await store.settle(database, [sent(one) for one in claimed])) == 10
    assert await due(bell) == []


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
    bell: LeaderSession,
    ten_mails: int,
    change: str,
    state: str,
    reason: str,
) -> None:
    await dispatch(bell, ten_mails)
    db.execute(change)
    run_out(db)
    assert await due(bell) == []
    assert db.execute(
        "select distinct state::text, reason, due_at, settled_at is not null from tocsin.delivery"
    ).fetchall() == [(state, reason, None, True)]
    lately = await settled_lately(database, datetime.now(UTC))
    assert {each.state: each.n for each in lately} == {state: 10}
    assert leases(db) == 0


async def test_the_last_attempt_of_the_cap_is_made(
    db: Db, bell: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(bell, ten_mails)
    db.execute("update tocsin.delivery set attempts = 9")
    run_out(db)
    assert [sorted(again) for again in await due(bell)] == [job]


async def test_a_lost_claim_is_not_kept_by_the_next_job(
    db: Db, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    claimed = await claim(database, (await dispatch(bell, ten_mails))[0])
    run_out(db)
    await due(bell)
    assert db.execute("select distinct claim from tocsin.delivery").fetchall() == [(None,)]
    assert await store.settle(database, [sent(one) for one in claimed]) == set()


async def test_what_somebody_has_locked_is_neither_dispatched_nor_waited_for(
    dsn: str, db: Db, bell: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(bell, ten_mails)
    run_out(db)
    await bell.end_leases(100)
    with locked(dsn, job[:3]):
        await bell.run("set lock_timeout = '1s'")
        await bell.dispatch_due("email", 500, MINUTES)
        assert [sorted(each) for each in await jobs(bell)] == [job[3:]]
    assert [sorted(each) for each in await due(bell)] == [job[:3]]


async def test_what_somebody_has_locked_is_neither_claimed_nor_waited_for(
    dsn: str, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(bell, ten_mails)
    with locked(dsn, job[:3]):
        claimed = await claim(database, job)
    assert [one.delivery_id for one in claimed] == job[3:]
    assert [one.delivery_id for one in await claim(database, job)] == job[:3]


async def test_only_what_is_due_and_of_its_channel_is_claimed(
    database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(bell, ten_mails)
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


def ended(
    claimed: Claimed, state: DeliveryState, delay: float = 0.0, *, claim: UUID | None = None
) -> SettledDelivery:
    """A refusal or a retry."""
    outcome = "deferred" if state is DeliveryState.DEFERRED else "rejected"
    return SettledDelivery(
        claimed.delivery_id, claim or claimed.claim, state, "smtp_x", delay, outcome=outcome
    )


@contextmanager
def locked(dsn: str, ids: list[int]) -> Iterator[Db]:
    """Somebody's open transaction that holds these deliveries."""
    with psycopg.connect(dsn) as other:
        other.execute("select from tocsin.delivery where delivery_id = any (%s) for update", (ids,))
        yield other


@pytest.mark.parametrize(
    "state", [DeliveryState.FAILED, DeliveryState.DEFERRED, DeliveryState.SENT]
)
async def test_what_a_lost_claim_made_of_it_is_not_written(
    db: Db, database: Database, bell: LeaderSession, ten_mails: int, state: DeliveryState
) -> None:
    claimed = await claim(database, (await dispatch(bell, ten_mails))[0])
    stale = [ended(one, state, claim=uuid4()) for one in claimed]
    assert await store.settle(database, stale) == set()
    assert states(db) == {"sending": 10}
    assert db.execute("select count(*) from tocsin.attempt").fetchone() == (0,)
    assert db.execute("select count(*) from tocsin.settled_batch").fetchone() == (0,)


@pytest.mark.parametrize("state", [DeliveryState.FAILED, DeliveryState.SENT])
async def test_a_claim_that_is_lost_while_its_outcome_is_written_counts_as_lost(
    dsn: str, db: Db, database: Database, bell: LeaderSession, ten_mails: int, state: DeliveryState
) -> None:
    (one, *_) = await claim(database, (await dispatch(bell, ten_mails))[0])
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


async def test_a_retry_that_would_come_after_its_expiry_is_its_end(
    db: Db, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    claimed = await claim(database, (await dispatch(bell, ten_mails))[0])
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
    db: Db, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    claimed = await claim(database, (await dispatch(bell, ten_mails))[0])
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
    bell: LeaderSession,
    ten_mails: int,
    column: str,
    state: DeliveryState,
) -> None:
    claimed = await claim(database, (await dispatch(bell, ten_mails))[0])
    messages = [message(one) for one in claimed]
    checked = await store.presend_check(database, messages)
    assert [each.withheld for each in checked.values()] == [None] * 10
    db.execute(f"update tocsin.event set {column} = now()")
    checked = await store.presend_check(database, messages)
    assert [each.withheld for each in checked.values()] == [Withheld(state, state.value)] * 10


async def test_an_expiry_at_this_very_moment_is_over(
    db: Db, bell: LeaderSession, ten_mails: int
) -> None:
    """now() is the statement's own time there: the moment itself counts."""
    (job,) = await dispatch(bell, ten_mails)
    with db.transaction():
        db.execute("update tocsin.event set expires_at = now()")
        found = db.execute(
            "select distinct withheld from unnest(%s::bigint[]) i, tocsin.delivery_snapshot(i)",
            (job,),
        ).fetchall()
    assert found == [("expired",)]


async def test_what_this_worker_has_claimed_is_not_released(
    db: Db, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(bell, ten_mails)
    await claim(database, job[:4])
    await store.release(database, job)
    assert db.execute(
        "select state::text, count(*), count(due_at) from tocsin.delivery group by 1 order by 1"
    ).fetchall() == [("queued", 6, 6), ("sending", 4, 0)]


async def test_a_lease_that_is_renewed_does_not_run_out(
    db: Db, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(bell, ten_mails)
    claimed = await claim(database, job)
    run_out(db)
    await store.renew(database, [claimed[0].claim], lease=LEASE)
    assert await due(bell) == []
    assert len(await store.presend_check(database, [message(one) for one in claimed])) == 10


async def test_a_job_closes_its_leases_and_leaves_those_that_hold_something(
    db: Db, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(bell, ten_mails)
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
    db: Db, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(bell, ten_mails)
    claimed = await claim(database, job)
    later = [
        SettledDelivery(
            one.delivery_id, one.claim, DeliveryState.DEFERRED, "smtp_421", 0.0, outcome="deferred"
        )
        for one in claimed
    ]
    await store.settle(database, later)
    await store.close_leases(database, job=job[0], claims=[claimed[0].claim])
    (again,) = await due(bell)
    assert sorted(again) == job
    assert leases(db) == 1
    assert len(await claim(database, again)) == 10


async def test_a_lease_of_before_leaves_what_the_next_claim_holds(
    db: Db, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    """A retry may be claimed again while the lease of its first claim is still there."""
    first = await claim(database, (await dispatch(bell, ten_mails))[0])
    await store.settle(database, [ended(one, DeliveryState.DEFERRED) for one in first])
    (again,) = await due(bell)
    second = await claim(database, again)
    assert await store.presend_check(database, [message(one) for one in first]) == {}
    db.execute("update tocsin.lease set until = now() where claim = %s", (first[0].claim,))
    assert await due(bell) == []
    assert len(await store.presend_check(database, [message(one) for one in second])) == 10


LAST = "where delivery_id = (select max(delivery_id) from tocsin.delivery)"


async def two_mails(db: Db, bell: LeaderSession) -> list[int]:
    """One job with two events' mails to one person."""
    for title in ("first", "second"):
        db.execute("select tocsin.notify('forum.new_reply', '{p0}', %s)", (title,))
    events = db.execute("select event_id from tocsin.event order by event_id desc limit 2")
    await bell.dispatch_event_queues(
        "email", 1, {int(event_id): 0 for (event_id,) in events.fetchall()}, each=100, lease=MINUTES
    )
    (job,) = await jobs(bell)
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
    db: Db, database: Database, bell: LeaderSession, change: str, together: bool
) -> None:
    job = await two_mails(db, bell)
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
    db: Db, database: Database, bell: LeaderSession
) -> None:
    job = await two_mails(db, bell)
    first = await claim_together(database, job, job)
    await store.settle(database, [ended(one, DeliveryState.DEFERRED) for one in first])
    second = await claim(database, job[:1])
    assert [one.delivery_id for one in second] == job
    await store.settle(
        database, [ended(second[0], DeliveryState.DEFERRED), ended(second[1], DeliveryState.FAILED)]
    )
    assert [one.delivery_id for one in await claim(database, job[:1])] == job[:1]


async def test_an_open_cancel_is_not_waited_for(
    db: Db, dsn: str, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    await dispatch(bell, ten_mails)
    run_out(db)
    with psycopg.connect(dsn) as app:
        app.execute("select tocsin.cancel(%s)", (ten_mails,))
        await bell.run("set lock_timeout = '1s'")
        assert await due(bell) == []
        assert leases(db) == 1  # asked again soon
        app.rollback()
    run_out(db)
    ((*again,),) = await due(bell)
    assert len(again) == 10


async def test_an_event_that_an_open_cancel_holds_keeps_no_other_waiting(
    db: Db, dsn: str, bell: LeaderSession, ten_mails: int
) -> None:
    with psycopg.connect(dsn) as app:
        app.execute("select tocsin.cancel(%s)", (ten_mails,))
        await bell.run("set lock_timeout = '1s'")
        assert await dispatch(bell, ten_mails) == []
        app.rollback()
    (job,) = await dispatch(bell, ten_mails)
    assert len(job) == 10


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
    bell: LeaderSession, ten_mails: int
) -> None:
    (first,) = await dispatch(bell, ten_mails, each=4)
    (second,) = await dispatch(bell, ten_mails, each=4)  # it knows of no last one
    (third,) = await dispatch(bell, ten_mails, each=4)
    assert sorted([*first, *second, *third]) == sorted({*first, *second, *third})
    assert [len(first), len(second), len(third)] == [4, 4, 2]


async def test_each_is_counted_once_wherever_it_waits(
    db: Db, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(bell, ten_mails, each=6)
    await claim(database, job[:3])
    counted = {each.state: each.n for each in await unfinished(database)}
    assert counted == {"queued": 7, "sending": 3}
    assert {each.state: each.n for each in await unsettled(database)} == counted


async def test_what_ended_together_is_counted_by_the_minute(
    database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    claimed = await claim(database, (await dispatch(bell, ten_mails))[0])
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
    db: Db, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(bell, ten_mails, each=6)
    claimed = await claim(database, job[:3])
    await store.settle(database, [sent(claimed[0])])
    db.execute("delete from tocsin.lease")
    assert await store.presend_check(database, [message(one) for one in claimed]) == {}
    await clean_up(database, now=datetime.now(UTC), retention=timedelta(days=90))
    (again,) = await due(bell)
    assert sorted(again) == sorted([claimed[1].delivery_id, claimed[2].delivery_id, *job[3:]])
    # the others wait in their lane, and these have a lease
    await clean_up(database, now=datetime.now(UTC), retention=timedelta(days=90))
    assert await due(bell) == []


async def test_a_ledger_from_before_the_leases_comes_to_its_end(
    db: Db, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    """Dispatched, claimed and deferred ones had a due time: it still counts."""
    (job,) = await dispatch(bell, ten_mails, each=9)
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
    assert await due(bell) == []
    # a worker of before settles what it has, a new one takes up a job of before
    left = SettledDelivery(claimed[0], old, DeliveryState.SENT, outcome="sent")
    assert await store.settle(database, [left]) == {claimed[0]}
    assert len(await claim(database, dispatched[:1])) == 1
    db.execute("update tocsin.delivery set due_at = now() where due_at is not null")
    (again,) = await due(bell)
    assert sorted(again) == sorted([*dispatched[1:], *claimed[1:], *deferred])
    await clean_up(database, now=datetime.now(UTC), retention=timedelta(days=90))
    assert await due(bell) == []
    assert len(await dispatch(bell, ten_mails)) == 1


HOLDING = Identity(HOLDER, "worker", "a-host", 1, "1.0", datetime(2026, 1, 1, tzinfo=UTC))


def outage(db: Db) -> None:
    """As if the database had been away for an hour, and were back since now."""
    db.execute("update tocsin.leader set reached_at = reached_at - interval '1 hour'")
    db.execute("update tocsin.process set reported_at = reported_at - interval '1 hour'")
    run_out(db)


async def test_an_outage_ends_no_claim_of_a_process_that_lives(
    db: Db, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    await report_process(database, HOLDING, ProcessReport())
    claimed = await claim(database, (await dispatch(bell, ten_mails))[0])
    outage(db)
    await bell.end_leases(100)  # before the leader's first beat
    assert await due(bell) == []
    assert await due(bell) == []  # and after it
    await report_process(database, HOLDING, ProcessReport())  # connected again
    assert await due(bell) == []
    assert len(await store.presend_check(database, [message(one) for one in claimed])) == 10
    assert len(await store.settle(database, [sent(one) for one in claimed])) == 10


async def test_an_outage_that_emptied_the_reports_ends_no_claim_either(
    db: Db, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    await report_process(database, HOLDING, ProcessReport())
    await claim(database, (await dispatch(bell, ten_mails))[0])
    outage(db)
    db.execute("truncate tocsin.process")  # it is unlogged: a crash of the server empties it
    assert await due(bell) == []
    await report_process(database, HOLDING, ProcessReport())
    assert await due(bell) == []


async def test_after_an_outage_the_claims_of_a_dead_process_are_kept_for_a_minute(
    db: Db, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    await report_process(database, HOLDING, ProcessReport())
    (job,) = await dispatch(bell, ten_mails)
    await claim(database, job)
    outage(db)
    assert await due(bell) == []
    db.execute("update tocsin.leader set outage_ended_at = outage_ended_at - interval '61 seconds'")
    assert [sorted(again) for again in await due(bell)] == [job]


async def test_without_an_outage_the_claims_of_a_silent_process_end_with_their_lease(
    db: Db, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    await report_process(database, HOLDING, ProcessReport())
    (job,) = await dispatch(bell, ten_mails)
    await claim(database, job)
    run_out(db)
    assert [sorted(again) for again in await due(bell)] == [job]


async def test_a_new_leader_after_an_outage_ends_no_claim_of_a_process_that_lives(
    db: Db, dsn: str, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    await report_process(database, HOLDING, ProcessReport())
    await claim(database, (await dispatch(bell, ten_mails))[0])
    outage(db)
    await bell.close()
    other = await LeaderSession.connect(service_dsn(dsn))
    await until(lambda: other.try_lead(timedelta(seconds=15)))
    assert await due(other) == []
    await other.close()


async def test_a_claim_whose_result_never_arrived_is_undone_without_cost(
    db: Db, database: Database, bell: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(bell, ten_mails)
    (lost,) = {one.claim for one in await claim(database, job)}
    await store.undo_claim(database, lost)
    again = await claim(database, job)
    assert len(again) == 10
    assert {one.attempt for one in again} == {1}
    assert len(await store.settle(database, [sent(one) for one in again])) == 10
