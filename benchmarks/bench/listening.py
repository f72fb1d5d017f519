"""Runs `tocsin serve` with the leader beside a measurement, and lets it become idle between contenders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from bench import stage
from bench.rounds import until

SECRET = "a secret of at least thirty-two bytes, for benchmarks"


@contextmanager
def serving(dsn: str, port: int) -> Iterator[int]:
    """Runs `tocsin serve`; yields its process id when it is the leader."""
    settings = {
        "database_url": dsn,
        "port": str(port),
        "public_url": f"http://127.0.0.1:{port}",
        "jwt_secret": SECRET,
    }
    with (
        stage.program(*stage.ours("serve"), settings=settings) as process,
        psycopg.connect(dsn, autocommit=True) as owner,
    ):
        until(lambda: leads(owner))
        yield process.pid


def leads(owner: psycopg.Connection) -> bool:
    row = owner.execute(
        "select heartbeat_at > now() - interval '10 seconds' from tocsin.leader"
    ).fetchone()
    return row == (True,)


def settle(owner: psycopg.Connection) -> None:
    """Waits until the leader is idle, and does at once what workers would have done by then."""

    def settled() -> bool:
        owner.execute(
            """
            update tocsin.delivery
            set state = 'sent', due_at = null, settled_at = clock_timestamp()
            where delivery_id in (
                select delivery_id
                from tocsin.delivery
                where event_id > (select max(event_id) from tocsin.event) - 100000
                    and state = 'queued'
                for update skip locked
            )
            """
        )
        owner.execute("delete from tocsin_queue.procrastinate_jobs where status = 'todo'")
        owner.execute("delete from tocsin.lease")  # of the deliveries in these jobs
        owner.execute("select tocsin.wake()")
        rest = "select not exists (select from tocsin.event_queue) and not exists (select from tocsin.unread_delta)"
        return owner.execute(rest).fetchone() == (True,)

    until(settled)
