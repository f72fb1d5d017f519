"""Refusals of the mail server, retries, frozen and killed workers, and one event with many recipients."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path

import psycopg

from tests.support.refusing_mail_server import *  # noqa: F403 - fixtures
from tests.support.refusing_mail_server import Db, Far, notify_people, states, worker
from tests.support.services import until
from tocsin.dev import embedded_postgres
from tocsin.migrate import migrate


def make_due(db: Db) -> None:
    """As if the wait for the next attempt were over; it takes a while."""
    db.execute("update tocsin.delivery set due_at = now() where state = 'deferred'")


def end_leases(db: Db) -> None:
    """As if the claims' leases had run out, which takes 30 s."""
    db.execute("update tocsin.lease set until = now()")


async def test_a_transient_refusal_is_tried_again_under_the_same_message_id(
    db: Db, dsn: str, far: Far, tmp_path: Path
) -> None:
    refused: list[str] = []

    def once(address: str) -> str | None:
        refused.append(address)
        return "451 4.7.1 Greylisted" if len(refused) == 1 else None

    far.refusal = once
    async with worker(dsn, far, tmp_path):
        notify_people(db, 1)
        await until(lambda: states(db) == {"deferred": 1})
        waits = db.execute("select due_at > settled_at is null, reason from tocsin.delivery")
        assert waits.fetchone() == (True, "smtp_451_4.7.1")
        await until(lambda: states(db) == {"sent": 1})  # by the retry's own time
    attempts = db.execute("select outcome, reason from tocsin.attempt order by attempt").fetchall()
    assert attempts == [("deferred", "smtp_451_4.7.1"), ("sent", None)]
    assert len(far.mails) == 1


async def test_a_permanent_refusal_is_tried_once_and_a_dead_address_suppressed(
    db: Db, dsn: str, far: Far, tmp_path: Path
) -> None:
    far.refusal = lambda address: (
        "550 5.1.1 No such user" if address.startswith("p0@") else "550 5.7.1 Blocked"
    )
    async with worker(dsn, far, tmp_path):
        notify_people(db, 2)
        await until(lambda: states(db) == {"failed": 2})
        assert db.execute("select max(attempts) from tocsin.delivery").fetchone() == (1,)
        # a policy rejection does not concern the address
        suppressed = db.execute("select address, reason from tocsin.suppression").fetchall()
        assert suppressed == [("p0@example.com", "smtp_550_5.1.1")]
        notify_people(db, 2)
        await until(lambda: states(db) == {"failed": 3})
    decision = db.execute(
        "select decisions -> 'email' from tocsin.notification where recipient_id = 'p0'"
        " order by notification_id desc limit 1"
    ).fetchone()
    assert decision == (["off", "suppressed"],)


async def test_attempts_end_and_so_does_time(db: Db, dsn: str, far: Far, tmp_path: Path) -> None:
    far.refusal = lambda address: "450 4.2.1 Not now"
    db.execute("update tocsin.event_type set max_attempts = 2 where event_type = 'forum.new_reply'")
    db.execute(
        "update tocsin.event_type set time_to_live = '1 s' where event_type = 'forum.mention'"
    )
    async with worker(dsn, far, tmp_path):
        notify_people(db, 1)
        notify_people(db, 1, "forum.mention", "m")

        def is_settled() -> bool:
            make_due(db)
            return states(db) == {"failed": 1, "expired": 1}

        await until(is_settled)
    reasons = db.execute("select reason from tocsin.delivery order by delivery_id").fetchall()
    assert reasons == [("attempts_exhausted",), ("expired",)]
    first = "select attempts from tocsin.delivery order by delivery_id limit 1"
    assert db.execute(first).fetchone() == (2,)


async def test_mail_server_away_for_a_while_costs_few_attempts_and_no_mail(
    db: Db, dsn: str, tmp_path: Path
) -> None:
    far = Far()
    async with worker(dsn, far, tmp_path) as process:
        notify_people(db, 100)
        await process.wait_for_log("breaker opened")
        assert states(db).get("sent", 0) == 0
        async with far.listening():

            def is_settled() -> bool:
                make_due(db)
                return states(db) == {"sent": 100}

            await until(is_settled)
    assert len(far.mails) == 100
    tries = db.execute("select count(*) from tocsin.attempt").fetchone()
    assert tries is not None
    assert tries[0] < 100 + 30  # the breaker spared the others


async def test_a_frozen_worker_sends_nothing_that_another_has_taken_over(
    db: Db, dsn: str, far: Far, tmp_path: Path
) -> None:
    far.slow = 0.02
    async with worker(dsn, far, tmp_path, "frozen") as frozen:
        notify_people(db, 200)
        await until(lambda: len(far.mails) > 20)
        frozen.process.send_signal(signal.SIGSTOP)
        # its leader's connection is silent as well: the other one must not wait for it
        db.execute("select pg_terminate_backend(backend_pid) from tocsin.leader")
        end_leases(db)
        async with worker(dsn, far, tmp_path, "other"):
            await until(lambda: states(db) == {"sent": 200})
            frozen.process.send_signal(signal.SIGCONT)
            await frozen.wait_for_log("claim_lost")
        await frozen.stop()
    copies = Counter(address for address, _ in far.mails)
    assert len(copies) == 200
    # twice came at most what its four connections had in hand when it froze, or had just got rid of and not yet
    # written down; and with the same Message-ID
    twice = {address for address, count in copies.items() if count > 1}
    assert len(twice) <= 8
    assert all(
        len({message_id for to, message_id in far.mails if to == address}) == 1 for address in twice
    )


async def test_an_outage_longer_than_the_leases_sends_nothing_twice(
    far: Far, tmp_path: Path, server_folder: Path
) -> None:
    """Each lease ran out while nobody could renew it, and both workers know what became of their mails."""
    data = server_folder / "outage"
    own = await asyncio.to_thread(embedded_postgres.start, data, print)
    try:
        migrate(own.dsn)
        far.slow = 0.1
        async with worker(own.dsn, far, tmp_path) as first, worker(own.dsn, far, tmp_path, "b"):
            with psycopg.connect(own.dsn, autocommit=True) as db:
                notify_people(db, 200)
            await until(lambda: len(far.mails) > 20)
            with psycopg.connect(own.superuser_dsn, autocommit=True) as db:
                db.execute("alter database tocsin connection limit 0")  # but for a superuser
            embedded_postgres.stop(own, immediate=True)
            own = await asyncio.to_thread(embedded_postgres.start, data, print)
            with psycopg.connect(own.superuser_dsn, dbname="tocsin", autocommit=True) as db:
                db.execute("update tocsin.lease set until = until - interval '1 hour'")
                db.execute("update tocsin.leader set reached_at = reached_at - interval '1 hour'")
                await first.wait_for_log("database unavailable")
                db.execute("alter database tocsin connection limit -1")
                await until(lambda: states(db) == {"sent": 200})
        assert [n for n in Counter(address for address, _ in far.mails).values() if n > 1] == []
        assert "claim lost" not in first.log
        # one line for each change of state
        assert first.log.count("database unavailable") == 1
        assert first.log.count("database available again") == 1
        assert "Traceback" not in first.log
    finally:
        embedded_postgres.stop(own)


async def test_a_worker_that_stops_without_a_database_ends_in_order(
    far: Far, tmp_path: Path, server_folder: Path
) -> None:
    """Its jobs are under way, and their end can't be written."""
    own = await asyncio.to_thread(embedded_postgres.start, server_folder / "stopped", print)
    try:
        migrate(own.dsn)
        far.slow = 0.3
        async with worker(own.dsn, far, tmp_path) as process:
            with psycopg.connect(own.dsn, autocommit=True) as db:
                notify_people(db, 40)
            await until(lambda: far.mails)
            embedded_postgres.stop(own, immediate=True)
            await process.wait_for_log("database unavailable")
            await process.stop()
        assert "Traceback" not in process.log
        assert "exc_type" not in process.log
        assert "stopped by itself" not in process.log
    finally:
        embedded_postgres.stop(own)


async def test_jobs_of_a_dead_worker_are_rescued(
    db: Db, dsn: str, far: Far, tmp_path: Path
) -> None:
    """The job of a worker whose heartbeat stopped; what it held is due by the ledger, whatever becomes of the job."""
    notify_people(db, 1)
    async with worker(dsn, far, tmp_path) as first:
        await until(lambda: states(db) == {"sent": 1})
        at_work = "select from tocsin_queue.procrastinate_jobs where queue_name = 'email'"
        await until(lambda: db.execute(at_work).fetchone() is None)
        await first.kill()
    dead = db.execute(
        "insert into tocsin_queue.procrastinate_workers (last_heartbeat) values (now() - interval '1 hour')"
        " returning id"
    ).fetchone()
    assert dead is not None
    for attempts in (0, 3):
        db.execute(
            "insert into tocsin_queue.procrastinate_jobs"
            " (queue_name, task_name, args, status, worker_id, attempts)"
            " values ('email', 'send_notification_emails', '{\"delivery_ids\": [1]}', 'doing', %s, %s)",
            (dead[0], attempts),
        )
    async with worker(dsn, far, tmp_path) as second:
        await second.wait_for_log("leading")
        db.execute(
            "select tocsin_queue.procrastinate_defer_jobs_v1(array[row('upkeep', 'rescue_stalled_jobs', 0, null,"
            " null, '{\"timestamp\": 0}', null)::tocsin_queue.procrastinate_job_to_defer_v1])"
        )
        left = "select status::text from tocsin_queue.procrastinate_jobs where status <> 'todo'"
        # the first was done again and found nothing to do; the other had its tries
        await until(lambda: db.execute(left).fetchall() == [("failed",)])
    assert len(far.mails) == 1


async def test_a_job_that_was_ended_by_another_worker_is_no_error(
    db: Db, dsn: str, far: Far, tmp_path: Path
) -> None:
    """As after a pause, when others took this worker for dead."""
    far.slow = 0.2
    async with worker(dsn, far, tmp_path) as process:
        notify_people(db, 20)
        await until(lambda: far.mails)
        db.execute("delete from tocsin_queue.procrastinate_jobs where queue_name = 'email'")
        await process.wait_for_log("job was ended already")
        await until(lambda: states(db) == {"sent": 20})
    assert "Traceback" not in process.log


async def test_one_huge_event_does_not_delay_anothers_mail_nor_an_urgent_one(
    db: Db, dsn: str, far: Far, tmp_path: Path
) -> None:
    far.slow = 0.005
    async with worker(dsn, far, tmp_path) as process:
        await process.wait_for_log("leading")
        notify_people(db, 4000, "bulletin.new_org", "crowd")
        await until(lambda: len(far.mails) > 50)
        refused: list[str] = []

        def once(address: str) -> str | None:
            if refused or not address.startswith("again"):
                return None
            refused.append(address)
            return "451 4.7.1 Greylisted"

        far.refusal = once
        notify_people(db, 1, "forum.new_reply", "again")
        notify_people(db, 1, "forum.new_reply", "single")
        await until(lambda: any(to.startswith("single") for to, _ in far.mails))
        before_single = len(far.mails)
        await until(lambda: "deferred" in states(db))
        make_due(db)
        await until(lambda: any(to.startswith("again") for to, _ in far.mails))
        before_urgent = len(far.mails)
        notify_people(db, 1, "compliance.overdue", "urgent")
        await until(lambda: any(to.startswith("urgent") for to, _ in far.mails))
        assert before_single < 2000
        assert before_urgent - before_single < 1500  # a retry waits no longer than a newcomer
        assert len(far.mails) - before_urgent < 1000
        order = [to for to, _ in far.mails]
        assert next(i for i, to in enumerate(order) if to.startswith("urgent")) < 3900
        db.execute("select tocsin.cancel(1)")
