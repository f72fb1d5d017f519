"""Leases after an outage of the database: claims of living processes are kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tests.support.leases import *  # noqa: F403 - fixtures
from tests.support.leases import HOLDER, claim, dispatch, due, message, run_out, sent
from tests.support.services import service_dsn, until
from tocsin.engine.store import delivery as store
from tocsin.engine.store.database import Database
from tocsin.engine.store.dispatch import LeaderSession
from tocsin.engine.store.installation import Identity, ProcessReport, report_process

HOLDING = Identity(HOLDER, "worker", "a-host", 1, "1.0", datetime(2026, 1, 1, tzinfo=UTC))


def outage(db: Db) -> None:
    """As if the database had been away for an hour, and were back since now."""
    db.execute("update tocsin.leader set reached_at = reached_at - interval '1 hour'")
    db.execute("update tocsin.process set reported_at = reported_at - interval '1 hour'")
    run_out(db)


async def test_an_outage_ends_no_claim_of_a_process_that_lives(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    await report_process(database, HOLDING, ProcessReport())
    claimed = await claim(database, (await dispatch(leader, ten_mails))[0])
    outage(db)
    await leader.end_leases(100)  # before the leader's first beat
    assert await due(leader) == []
    assert await due(leader) == []  # and after it
    await report_process(database, HOLDING, ProcessReport())  # connected again
    assert await due(leader) == []
    assert len(await store.presend_check(database, [message(one) for one in claimed])) == 10
    assert len(await store.settle(database, [sent(one) for one in claimed])) == 10


async def test_an_outage_that_emptied_the_reports_ends_no_claim_either(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    await report_process(database, HOLDING, ProcessReport())
    await claim(database, (await dispatch(leader, ten_mails))[0])
    outage(db)
    db.execute("truncate tocsin.process")  # it is unlogged: a crash of the server empties it
    assert await due(leader) == []
    await report_process(database, HOLDING, ProcessReport())
    assert await due(leader) == []


async def test_after_an_outage_the_claims_of_a_dead_process_are_kept_for_a_minute(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    await report_process(database, HOLDING, ProcessReport())
    (job,) = await dispatch(leader, ten_mails)
    await claim(database, job)
    outage(db)
    assert await due(leader) == []
    db.execute("update tocsin.leader set outage_ended_at = outage_ended_at - interval '61 seconds'")
    assert [sorted(again) for again in await due(leader)] == [job]


async def test_without_an_outage_the_claims_of_a_silent_process_end_with_their_lease(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    await report_process(database, HOLDING, ProcessReport())
    (job,) = await dispatch(leader, ten_mails)
    await claim(database, job)
    run_out(db)
    assert [sorted(again) for again in await due(leader)] == [job]


async def test_a_new_leader_after_an_outage_ends_no_claim_of_a_process_that_lives(
    db: Db, dsn: str, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    await report_process(database, HOLDING, ProcessReport())
    await claim(database, (await dispatch(leader, ten_mails))[0])
    outage(db)
    await leader.close()
    other = await LeaderSession.connect(service_dsn(dsn))
    await until(lambda: other.try_lead(timedelta(seconds=15)))
    assert await due(other) == []
    await other.close()


async def test_a_claim_whose_result_never_arrived_is_undone_without_cost(
    db: Db, database: Database, leader: LeaderSession, ten_mails: int
) -> None:
    (job,) = await dispatch(leader, ten_mails)
    (lost,) = {one.claim for one in await claim(database, job)}
    await store.undo_claim(database, lost)
    again = await claim(database, job)
    assert len(again) == 10
    assert {one.attempt for one in again} == {1}
    assert len(await store.settle(database, [sent(one) for one in again])) == 10
