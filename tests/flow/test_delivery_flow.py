"""One notification from SQL to an SMTP server, through crashes and restarts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.services import LONGEST, Service, mail_catcher, mail_count, mails, running, until
from tocsin.dev import embedded_postgres
from tocsin.dev.mail_catcher import MailCatcher
from tocsin.migrate import migrate

Db = psycopg.Connection[Any]

GRACE = 12.0  # seconds that Procrastinate waits for jobs under way; a stop needs none of them


@pytest.fixture
def mail_folder(tmp_path: Path) -> Path:
    return tmp_path / "mails"


@pytest.fixture
async def mailbox(mail_folder: Path) -> AsyncIterator[MailCatcher]:
    async with mail_catcher(mail_folder) as catcher:
        yield catcher


def worker(dsn: str, smtp_url: str, folder: Path) -> AbstractAsyncContextManager[Service]:
    return running(
        "worker",
        log=folder / "worker.log",
        settings={
            "database_url": dsn,
            "smtp_url": smtp_url,
            "public_url": "https://notify.example",
            "data_dir": str(folder),
        },
    )


def people(db: Db, count: int = 1) -> list[str]:
    names = ["alice", *(f"person{i}" for i in range(1, count))]
    db.execute(
        "select tocsin.upsert_recipient(n, n || '@example.com', initcap(n)) from unnest(%s::text[]) n",
        (names,),
    )
    return names


def states(db: Db) -> dict[str, int]:
    return dict(
        db.execute("select state::text, count(*) from tocsin.delivery group by 1").fetchall()
    )


def sessions(db: Db) -> set[int]:
    """Of this database; a killed worker's end a little later."""
    found = db.execute(
        "select pid from pg_stat_activity"
        " where datname = current_database() and backend_type = 'client backend'"
    )
    return {pid for (pid,) in found.fetchall()}


async def settled(db: Db, count: int, seconds: float = LONGEST) -> None:
    await until(lambda: states(db).get("sent") == count, seconds)


async def test_a_committed_event_reaches_the_smtp_server_and_the_ledger(
    db: Db, dsn: str, mailbox: MailCatcher, mail_folder: Path, tmp_path: Path
) -> None:
    people(db)
    async with worker(dsn, mailbox.url, tmp_path) as process:
        await process.wait_for_log("leading")
        db.execute(
            "select tocsin.notify('forum.new_reply', array['alice'], 'Bob <b>replied</b>', 'Two\n\nparagraphs.',"
            " '/forums/7', '{\"post_id\": 12}')"
        )
        await settled(db, 1)
        (mail,) = mails(mail_folder)
        assert mail["to"] == ["alice@example.com"]
        assert mail["subject"] == "Bob <b>replied</b>"
        assert "Bob &lt;b&gt;replied" in mail["html"]
        assert "Two\n\nparagraphs." in mail["text"]
        assert "https://notify.example/c/" in mail["text"]
        assert mail["headers"]["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        row = db.execute(
            "select d.attempts, d.address, d.checked_at <= d.settled_at, a.outcome"
            " from tocsin.delivery d join tocsin.attempt a using (delivery_id)"
        ).fetchone()
        assert row == (1, "alice@example.com", True, "sent")
        assert await process.stop() < GRACE
        assert process.process.returncode == 0


async def test_each_mail_gives_its_reason_in_the_language_of_its_reader(
    db: Db, dsn: str, mailbox: MailCatcher, mail_folder: Path, tmp_path: Path
) -> None:
    db.execute(
        "select tocsin.upsert_recipient(n, n || '@example.com', locale => l)"
        " from (values ('ada', 'en'), ('bert', 'de-AT'), ('caro', 'ar'), ('dan', 'fr')) v (n, l)"
    )
    db.execute("insert into tocsin.preference values ('bert', 'forum.*', 'email', true)")
    db.execute("select tocsin.subscribe('caro', 'forum.thread:7')")
    db.execute(
        "select tocsin.notify('forum.new_reply', array['ada', 'bert', 'dan'], 'Hi', '', '/7')"
    )
    db.execute("select tocsin.notify_topic('forum.thread:7', 'forum.new_reply', 'Hi', '', '/7')")
    async with worker(dsn, mailbox.url, tmp_path):
        await settled(db, 4)
    texts = {mail["to"][0].partition("@")[0]: mail["text"] for mail in mails(mail_folder)}
    assert "emails for “New reply” are on by default." in texts["ada"]
    assert "weil Sie E-Mails zu „Neue Antwort“ angestellt haben." in texts["bert"]
    assert "لأنّك تتابع هذا الموضوع." in texts["caro"]
    assert "Read the reply: https://notify.example/c/" in texts["dan"]


async def test_a_rolled_back_event_never_happened(
    db: Db, dsn: str, mailbox: MailCatcher, mail_folder: Path, tmp_path: Path
) -> None:
    people(db)
    async with worker(dsn, mailbox.url, tmp_path) as process:
        await process.wait_for_log("leading")
        with psycopg.connect(dsn) as other:
            other.execute("select tocsin.notify('forum.new_reply', array['alice'], 'Never')")
            other.rollback()
        db.execute("select tocsin.notify('forum.new_reply', array['alice'], 'Really')")
        await settled(db, 1)
        assert [mail["subject"] for mail in mails(mail_folder)] == ["Really"]


async def test_what_a_killed_worker_held_is_taken_up_by_another(
    db: Db, dsn: str, mail_folder: Path, mailbox: MailCatcher, tmp_path: Path
) -> None:
    names, ours = people(db, 300), sessions(db)
    async with worker(dsn, mailbox.url, tmp_path) as first:
        await first.wait_for_log("leading")
        db.execute("select tocsin.notify('forum.new_reply', %s, 'All of it')", (names,))
        await until(lambda: mail_count(mail_folder) > 20)
        await first.kill()
    await until(lambda: sessions(db) <= ours)  # what it had asked for last is done
    held = states(db)
    assert held.get("sent", 0) < 300
    # the lease would run out by itself within 30 s: the test does not wait for it
    db.execute("update tocsin.lease set until = now()")
    async with worker(dsn, mailbox.url, tmp_path):
        # where it starts slowly, the time without a worker counts as an outage, after which a claim is kept for 60 s
        await settled(db, 300, 60 + LONGEST)
    copies: dict[str, int] = {}
    for mail in mails(mail_folder):
        copies[mail["to"][0]] = copies.get(mail["to"][0], 0) + 1
    assert len(copies) == 300
    # at most what was accepted and not yet recorded when it was killed came twice
    assert sum(copies.values()) - 300 <= held.get("sending", 0)
    lost = db.execute("select count(*) from tocsin.attempt where reason = 'worker_lost'").fetchone()
    assert lost == (held.get("sending", 0),)


async def test_a_stopped_worker_hands_back_what_it_did_not_send(
    db: Db, dsn: str, mail_folder: Path, mailbox: MailCatcher, tmp_path: Path
) -> None:
    names = people(db, 400)
    async with worker(dsn, mailbox.url, tmp_path) as first:
        await first.wait_for_log("leading")
        db.execute("select tocsin.notify('forum.new_reply', %s, 'All of it')", (names,))
        await until(lambda: mail_count(mail_folder) > 20)
        assert await first.stop() < GRACE
    assert "sending" not in states(db)
    async with worker(dsn, mailbox.url, tmp_path):
        await settled(db, 400)
    assert mail_count(mail_folder) == 400
    most = db.execute("select max(attempts) from tocsin.delivery").fetchone()
    assert most == (1,)


async def test_postgres_restarted_in_the_middle_loses_nothing(
    mail_folder: Path, mailbox: MailCatcher, tmp_path: Path, server_folder: Path
) -> None:
    data = server_folder / "restarted"
    own = await asyncio.to_thread(embedded_postgres.start, data, print)
    try:
        migrate(own.dsn)
        with psycopg.connect(own.dsn, autocommit=True) as db:
            names = people(db, 300)
        async with worker(own.dsn, mailbox.url, tmp_path) as process:
            await process.wait_for_log("leading")
            with psycopg.connect(own.dsn, autocommit=True) as db:
                db.execute("select tocsin.notify('forum.new_reply', %s, 'All of it')", (names,))
            await until(lambda: mail_count(mail_folder) > 20)
            embedded_postgres.stop(own, immediate=True)
            own = await asyncio.to_thread(embedded_postgres.start, data, print)
            with psycopg.connect(own.dsn, autocommit=True) as db:
                await until(lambda: len(states(db)) and "sending" not in states(db))
                # jobs that were lost with the connection are looked for again after their lease
                db.execute("update tocsin.lease set until = now()")
                await settled(db, 300)
                assert process.process.returncode is None
        assert len({mail["to"][0] for mail in mails(mail_folder)}) == 300
    finally:
        embedded_postgres.stop(own)


async def test_each_task_may_be_deferred_by_hand(
    db: Db, dsn: str, mailbox: MailCatcher, tmp_path: Path
) -> None:
    """By its name alone, without the time that Procrastinate gives to what is periodic."""
    deferred = (
        ("upkeep", "generate_digest_emails", "{}"),
        ("upkeep", "cleanup_old_notifications", "{}"),
        ("upkeep", "rescue_stalled_jobs", "{}"),
        ("upkeep", "apply_mail_events", "{}"),
        ("email", "send_notification_emails", '{"delivery_ids": []}'),
        ("push", "send_notification_pushes", '{"delivery_ids": []}'),
    )
    jobs = [
        db.execute(
            "select unnest(tocsin_queue.procrastinate_defer_jobs_v1(array[row(%s, %s, 0, null, null, %s, null)"
            "::tocsin_queue.procrastinate_job_to_defer_v1]))",
            job,
        ).fetchone()
        for job in deferred
    ]
    by_hand = [job[0] for job in jobs if job]
    # a job that succeeded is deleted
    left = "select task_name, status::text from tocsin_queue.procrastinate_jobs where id = any(%s) and status <> %s"
    async with worker(dsn, mailbox.url, tmp_path):
        await until(lambda: not db.execute(left, (by_hand, "failed")).fetchall())
        assert db.execute(left, (by_hand, "todo")).fetchall() == []


async def test_procrastinate_cli_runs_the_same_worker(
    db: Db, dsn: str, mail_folder: Path, mailbox: MailCatcher, tmp_path: Path
) -> None:
    people(db)
    program = (str(Path(sys.executable).with_name("procrastinate")), "--app=tocsin.engine.jobs.app")
    settings = {
        "database_url": dsn,
        "smtp_url": mailbox.url,
        "public_url": "https://notify.example",
        "data_dir": str(tmp_path),
    }
    async with running(
        "healthchecks", program=program, log=tmp_path / "health.log", settings=settings
    ) as health:
        assert await health.process.wait() == 0, health.log
    async with running(
        "worker", program=program, log=tmp_path / "p.log", settings=settings
    ) as process:
        db.execute("select tocsin.notify('forum.new_reply', array['alice'], 'By the CLI')")
        await settled(db, 1)
        assert await process.stop() < GRACE
    assert mail_count(mail_folder) == 1


async def test_without_a_provider_nothing_fails_and_each_decision_has_the_reason(
    db: Db, dsn: str, tmp_path: Path
) -> None:
    people(db)
    db.execute("select tocsin.notify('forum.new_reply', array['alice'], 'Before the worker')")
    async with running(
        "worker",
        log=tmp_path / "worker.log",
        settings={"database_url": dsn, "data_dir": str(tmp_path)},
    ) as process:
        await process.wait_for_log("no provider for email")
        await until(lambda: states(db) == {"skipped": 1})
        db.execute("select tocsin.notify('forum.new_reply', array['alice'], 'After it')")
    decisions = db.execute(
        "select decisions -> 'email' from tocsin.notification order by notification_id"
    ).fetchall()
    assert decisions == [(["on", "default"],), (["off", "no_provider"],)]
    assert db.execute("select reason, attempts from tocsin.delivery").fetchall() == [
        ("no_provider", 0)
    ]


async def test_a_worker_without_a_provider_leaves_mails_to_one_that_has_it(
    db: Db, dsn: str, mail_folder: Path, mailbox: MailCatcher, tmp_path: Path
) -> None:
    names = people(db, 5)
    poor = {"database_url": dsn, "data_dir": str(tmp_path)}
    async with worker(dsn, mailbox.url, tmp_path) as rich:
        await rich.wait_for_log("leading")
        async with running("worker", log=tmp_path / "poor.log", settings=poor) as process:
            await process.wait_for_log("no provider for email")
            for name in names:
                db.execute("select tocsin.notify('forum.new_reply', array[%s], 'x')", (name,))
            await settled(db, 5)
    assert mail_count(mail_folder) == 5


async def test_no_secret_gets_into_the_logs(
    db: Db, dsn: str, mailbox: MailCatcher, mail_folder: Path, tmp_path: Path
) -> None:
    """Tracebacks with locals would hold the DSN: connections are cut until libraries complain."""
    people(db)
    password = psycopg.conninfo.conninfo_to_dict(dsn)["password"]
    for form in ("json", "console"):
        settings = {
            "database_url": dsn,
            "smtp_url": mailbox.url,
            "public_url": "https://notify.example",
            "data_dir": str(tmp_path),
            "log_format": form,
        }
        log = tmp_path / f"{form}.log"
        async with running("worker", log=log, settings=settings) as process:
            await process.wait_for_log("leading")
            for _ in range(3):
                db.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
                    " and pid <> pg_backend_pid() and usename = current_user"
                )
            db.execute("select tocsin.notify('forum.new_reply', array['alice'], 'Secret title')")
            await until(lambda: "queued" not in states(db) and "sending" not in states(db))
        assert str(password) not in process.log
        assert "alice@example.com" not in process.log
        assert "Secret title" not in process.log


async def test_what_was_opted_out_of_or_cancelled_before_the_send_is_withheld(
    db: Db, dsn: str, mail_folder: Path, mailbox: MailCatcher, tmp_path: Path
) -> None:
    people(db, 5)
    db.execute(
        "select tocsin.notify('forum.new_reply', %s, 'x')",
        (["alice", "person1", "person2", "person3"],),
    )
    cancelled = db.execute(
        "select tocsin.notify('forum.new_reply', array['person4'], 'y')"
    ).fetchone()
    db.execute("insert into tocsin.preference values ('alice', 'forum.*', 'email', false)")
    db.execute("update tocsin.recipient set email = null where recipient_id = 'person1'")
    db.execute(
        "insert into tocsin.suppression (address, reason) values ('person2@example.com', 'complaint')"
    )
    db.execute(
        "update tocsin.recipient set email = 'moved@example.com' where recipient_id = 'person3'"
    )
    # as if it had been claimed already: only the presend check can stop it now
    db.execute("update tocsin.event set cancelled_at = now() where event_id = %s", cancelled)
    async with worker(dsn, mailbox.url, tmp_path):
        await until(lambda: "queued" not in states(db) and "sending" not in states(db))
    found = dict(
        db.execute(
            "select recipient_id, state || ' ' || coalesce(reason, '') from tocsin.delivery"
        ).fetchall()
    )
    assert found == {
        "alice": "skipped opted_out_since",
        "person1": "skipped no_address",
        "person2": "skipped suppressed",
        "person3": "sent ",
        "person4": "cancelled cancelled",
    }
    assert [mail["to"] for mail in mails(mail_folder)] == [["moved@example.com"]]


async def test_a_scheduled_event_is_fanned_out_when_its_time_comes(
    db: Db, dsn: str, mail_folder: Path, mailbox: MailCatcher, tmp_path: Path
) -> None:
    people(db)
    async with worker(dsn, mailbox.url, tmp_path) as process:
        await process.wait_for_log("leading")
        db.execute(
            "select tocsin.notify('forum.new_reply', array['alice'], 'Soon', send_at => now() + interval '0.5 s')"
        )
        await settled(db, 1)
    late = db.execute(
        "select fanned_out_at - send_at < interval '300 ms' from tocsin.event"
    ).fetchone()
    assert late == (True,)
