"""An app's own Procrastinate in the same database, and NOTIFY of other users: ours continues to work."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session
from procrastinate.schema import SchemaManager
from psycopg.conninfo import make_conninfo

from tests.support.refusing_mail_server import Far, notify_people, states, worker
from tests.support.services import Service, running, until

Db = psycopg.Connection[Any]

CLI = (str(Path(sys.executable).with_name("procrastinate")), "--app=tocsin.engine.jobs.app")
OTHER = (sys.executable, "-m", "tests.support.other_procrastinate")
THEIRS = ("procrastinate_any_queue_v1", "procrastinate_queue_v1#email")
OURS = ("tocsin_queue", "tocsin_wake", "tocsin_badge", "tocsin_commit_wait")
FORGED = (
    "",
    "no JSON",
    "null",
    "[]",
    "{}",
    '{"type": 5}',
    '{"type": "abort_job_requested"}',
    '{"type": "abort_job_requested", "job_id": "1"}',
    '{"type": "job_inserted", "job_id": 1e999}',
    "[" * 7999,
    "ü" * 3999,
)


@pytest.fixture
def other_role(db: Db, dsn: str) -> Iterator[Db]:
    """A login that was granted nothing."""
    name = f"stranger_{secrets.token_hex(4)}"
    db.execute(f"create role {name} login password 'strange'")
    try:
        with psycopg.connect(
            make_conninfo(dsn, user=name, password="strange"), autocommit=True
        ) as connection:
            yield connection
    finally:
        db.execute(f"drop role {name}")


class Held(Far):
    """Accepts no mail before it is `released`."""

    def __init__(self) -> None:
        super().__init__()
        self.released = asyncio.Event()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        await self.released.wait()
        return await super().handle_DATA(server, session, envelope)


@pytest.fixture
async def far() -> AsyncIterator[Held]:
    server = Held()
    async with server.listening():
        yield server


def others_worker(dsn: str, folder: Path) -> AbstractAsyncContextManager[Service]:
    log, settings = folder / "other.log", {"database_url": dsn}
    return running("other", program=OTHER, log=log, settings=settings, as_owner=True)


def install_theirs(db: Db) -> None:
    db.execute("set search_path = public")
    db.execute(SchemaManager.get_schema())


def theirs_ended(db: Db, job_id: int) -> str | None:
    """The state of one of their jobs, once it is an end."""
    row = db.execute(
        "select status::text from public.procrastinate_jobs where id = %s and status not in ('todo', 'doing')",
        (job_id,),
    ).fetchone()
    return row[0] if row else None


def defer_theirs(db: Db, seconds: float) -> int:
    row = db.execute(
        "select public.procrastinate_defer_jobs_v1(array[row('default', 'nap', 0, null, null,"
        " jsonb_build_object('seconds', %s::float8), null)::public.procrastinate_job_to_defer_v1])",
        (seconds,),
    ).fetchone()
    assert row is not None
    return int(row[0][0])


async def test_an_app_runs_a_procrastinate_of_its_own_beside_ours(
    db: Db, dsn: str, far: Held, tmp_path: Path
) -> None:
    """Jobs of both have the same ids; one of theirs is aborted while ours of that id sends a mail."""
    install_theirs(db)
    async with worker(dsn, far, tmp_path) as ours, others_worker(dsn, tmp_path) as theirs:
        await ours.wait_for_log("leading")
        notify_people(db, 1)
        doing = "select id from tocsin_queue.procrastinate_jobs where status = 'doing' and queue_name = 'email'"
        (ours_id,) = await until(lambda: db.execute(doing).fetchone())
        db.execute(
            "select setval('public.procrastinate_jobs_id_seq', greatest(%s, 2) - 1)", (ours_id,)
        )
        napping = defer_theirs(db, 600)
        assert napping == max(ours_id, 2)
        started = "select from public.procrastinate_jobs where id = %s and status = 'doing'"
        await until(lambda: db.execute(started, (napping,)).fetchone() is not None)
        db.execute("select public.procrastinate_cancel_job_v1(%s, true, false)", (napping,))
        assert await until(lambda: theirs_ended(db, napping)) == "aborted"
        short = defer_theirs(db, 0)
        assert await until(lambda: theirs_ended(db, short)) == "succeeded"
        far.released.set()
        await until(lambda: states(db) == {"sent": 1})
        assert len(far.mails) == 1
        assert db.execute("select attempts from tocsin.delivery").fetchone() == (1,)
        # a job that was aborted would stay
        ours_job = "select status::text from tocsin_queue.procrastinate_jobs where id = %s"
        await until(lambda: db.execute(ours_job, (ours_id,)).fetchone() != ("doing",))
        assert db.execute(ours_job, (ours_id,)).fetchone() is None
        assert ours.process.returncode is None
        assert theirs.process.returncode is None


async def test_what_any_login_notifies_neither_ends_a_worker_nor_aborts_a_job(
    db: Db, dsn: str, far: Held, tmp_path: Path, other_role: Db
) -> None:
    async with worker(dsn, far, tmp_path) as ours:
        await ours.wait_for_log("leading")
        notify_people(db, 1)
        doing = "select from tocsin_queue.procrastinate_jobs where status = 'doing' and queue_name = 'email'"
        await until(lambda: db.execute(doing).fetchone() is not None)
        for channel in (*OURS, *THEIRS):
            for job_id in range(1, 20):
                abort = f'{{"type": "abort_job_requested", "job_id": {job_id}}}'
                other_role.execute("select pg_notify(%s, %s)", (channel, abort))
            for payload in FORGED:
                other_role.execute("select pg_notify(%s, %s)", (channel, payload))
        far.released.set()
        await until(lambda: states(db) == {"sent": 1})
        assert db.execute("select attempts from tocsin.delivery").fetchone() == (1,)
        notify_people(db, 1)
        await until(lambda: states(db) == {"sent": 2})
        assert len(far.mails) == 2
        # each of them is deferred when a worker starts: they ran, and none failed
        await until(
            lambda: (
                db.execute("select from tocsin_queue.procrastinate_periodic_defers").fetchone()
                is not None
                and db.execute("select from tocsin_queue.procrastinate_jobs").fetchone() is None
            )
        )
        assert "stopped by itself" not in ours.log
        assert ours.process.returncode is None


async def test_a_worker_waits_for_jobs_on_a_channel_of_its_own_schema(
    db: Db, dsn: str, far: Held, tmp_path: Path
) -> None:
    """With a poll each ten minutes, what is notified is sent at once; and nothing is announced to their workers."""
    settings = {
        "database_url": dsn,
        "smtp_url": far.url,
        "public_url": "https://notify.example",
        "data_dir": str(tmp_path),
    }
    far.released.set()
    options = ("worker", "--fetch-job-polling-interval=600")
    with psycopg.connect(dsn, autocommit=True) as listening:
        for channel in THEIRS:
            listening.execute(f'listen "{channel}"')
        async with running(
            *options, program=CLI, log=tmp_path / "worker.log", settings=settings
        ) as process:
            await process.wait_for_log("leading")
            notified = 0

            def sent() -> bool:
                # a notification between a worker's look and its wait is lost: the next one makes it look again
                nonlocal notified
                notify_people(db, 1, prefix=f"person{notified}-")
                notified += 1
                return "sent" in states(db)

            await until(sent)
            assert process.process.returncode is None
        assert list(listening.notifies(timeout=0)) == []
