"""What makes a large stock harder: an open snapshot beside the writes of an hour, and a backlog of deliveries."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from bench import stage
from bench.large_stock import Db
from bench.listening import serving
from bench.rounds import until
from bench.service import UNREACHED_CAP

WORKER = Path(__file__).parent / "null_worker.py"
HOUR = 36_000  # notifications, ten a second
BACKLOG = 1_000_000  # deliveries
NOTIFY = """
select tocsin.notify('forum.new_reply', array[%(who)s], 'New reply', 'Bob', subject => 'forum.thread:1')
"""
READ = """
select tocsin.mark_read(%(who)s, 'forum.thread:1')
"""
DONE = """
select not exists (select from tocsin.event_queue)
    and not exists (select from tocsin.lease)
    and not exists (select from tocsin.delivery d where d.event_id > %s and d.state in ('queued', 'sending'))
"""
# Mails that a provider did not accept before its outage ended, an hour ago and later.
FILL = """
insert into tocsin.delivery (
    notification_id, event_id, recipient_id, channel, state, reason, attempts, created_at, due_at, expires_at
)
select notification_id, event_id, recipient_id, 'email', 'deferred', 'smtp_451', 1, now() - interval '2 hours',
    now() - interval '1 hour' + row_number() over () * interval '1 millisecond', now() + interval '1 day'
from tocsin.notification
where recipient_id is not null
limit %s
"""


@contextmanager
def open_snapshot(dsn: str, people: int, writes: int = HOUR) -> Iterator[None]:
    """Holds a snapshot, as a report does, beside which `serve` and a worker delivered so many notifications.

    Each is a transaction of its own, for one of the stock's people; each third person reads theirs.
    """
    with psycopg.connect(dsn) as report:
        report.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        report.execute("select count(*) from tocsin.event_type")
        _write(dsn, people, writes)
        yield


def _write(dsn: str, people: int, writes: int) -> None:
    settings = {
        "database_url": dsn,
        "public_url": "https://notify.example.com",
        "mail_cap": UNREACHED_CAP,
    }
    worker = (sys.executable, str(WORKER), "bare")
    with (
        psycopg.connect(dsn, autocommit=True) as app,
        serving(dsn, stage.free_port()),
        stage.program(*worker, settings=settings) as process,
    ):
        row = app.execute("select max(event_id) from tocsin.event").fetchone()
        assert row is not None
        for number in range(writes):
            who = {"who": f"p{number * 7919 % people}"}
            app.execute(NOTIFY, who)
            if number % 3 == 0:
                app.execute(READ, who)

        def done() -> bool:
            if process.poll() is not None:
                raise SystemExit("the worker ended: build/bench/processes.log says why")
            return app.execute(DONE, row).fetchone() == (True,)

        until(done, seconds=600)


def fill_backlog(admin: Db, deliveries: int = BACKLOG) -> None:
    """Adds due deliveries by mail. They stay in the database."""
    admin.execute(FILL, (deliveries,))
    admin.execute("vacuum analyze tocsin.delivery")
