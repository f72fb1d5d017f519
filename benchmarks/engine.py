"""Deliveries a second through the whole engine, with a channel that accepts everything at once.

Ours: one `tocsin worker`, from the commit of notify() to the last settled delivery: dispatcher, Procrastinate's jobs,
claim, presend check, mailbox, senders, ledger with an attempt each, a log line each. With each mail rendered, as in
production; and with a constant message. In a database that holds a million notifications.

Peers, in the same PostgreSQL: no-op jobs, one a delivery. Procrastinate, one worker at the best concurrency of a trial,
with a job for each delivery and with a job for 500; graphile-worker with its local queue and batched completion;
pg-boss in batches of 500; Celery on Redis, acknowledged early and without results, with the best pool of a trial. They
render and check nothing, and record nothing about a delivery, except for one kind of Procrastinate's (bench/queues.py).

Floor: claim and settle of the same table by SQL alone, in batches of 500 by `skip locked`, two committed statements a
batch, on one connection, with no work between them. It checks nothing and records no attempt either.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import psycopg
from bench import cpu_limit
from bench.queues import CELERY, EACH, GRAPHILE, RECORDED, Queue, queues
from bench.record import Goal, Record, keep
from bench.rounds import Measured, in_turns, until
from bench.service import UNREACHED_CAP
from bench.stage import HOME, database, program, server

WORKER = Path(__file__).parent / "bench" / "null_worker.py"
EVENTS = 20  # in one round

RENDERED, CONSTANT = "tocsin, mails rendered", "tocsin, constant message"
FLOOR = "claim and settle in SQL"

EVENT_TYPE = """
    insert into tocsin.event_type (event_type, category, label, position, default_channels)
    values ('billing.bench', 'billing', 'Bench', 1000, '{email}')
"""
PEOPLE = """
    insert into tocsin.recipient (recipient_id, email, name, locale)
    select 'q' || i, 'q' || i || '@example.com', 'Person ' || i, 'en'
    from generate_series(1, %s::integer) i
"""
NOTIFY = """
    select tocsin.notify(
        'billing.bench', array(select 'q' || i from generate_series(%s::integer, %s::integer) i),
        'The news', 'The roses came.', '/news'
    )
"""
LEFT = """
    select exists (select from tocsin.event_queue)
        or exists (select from tocsin.lease)
        or exists (select from tocsin.delivery d where d.channel = 'email' and d.due_at is not null)
"""
QUEUED = """
    select d.delivery_id
    from tocsin.delivery d
    where d.event_id = any (%s)
"""
CLAIM = """
    with mine as (
        select d.delivery_id
        from tocsin.delivery d
        where d.delivery_id = any (%(ids)s)
            and d.state = 'queued'
        for update skip locked
    )
    update tocsin.delivery d
    set state = 'sending', claim = %(claim)s, attempts = d.attempts + 1
    from mine m
    where d.delivery_id = m.delivery_id
"""
SETTLE = """
    update tocsin.delivery d
    set state = 'sent', claim = null, checked_at = clock_timestamp(), settled_at = clock_timestamp()
    where d.delivery_id = any (%(ids)s)
        and d.claim = %(claim)s
"""


def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--deliveries", type=int, default=20_000)
    parser.add_argument(
        "--jobs", type=int, default=1_000, help="of Procrastinate, one a delivery, a round"
    )
    parser.add_argument("--tasks", type=int, default=3_000, help="of Celery, a round")
    options = parser.parse_args()
    count = options.deliveries
    with ExitStack() as stack:
        running = stack.enter_context(server())
        dsn = stack.enter_context(database(running, "bench_engine"))
        app = stack.enter_context(psycopg.connect(dsn, autocommit=True))
        app.execute(EVENT_TYPE)
        app.execute(PEOPLE, (count,))
        peers = stack.enter_context(
            queues(dsn, jobs=options.jobs, tasks=options.tasks, batched=count)
        )
        contenders: dict[str, Callable[[], float]] = {
            RENDERED: lambda: engine(dsn, app, count),
            CONSTANT: lambda: engine(dsn, app, count, "bare"),
            **{name: queue.measure for name, queue in peers.items()},
            FLOOR: lambda: floor(app, count),
        }
        measured = in_turns(contenders, options.rounds)
    keep(record(measured, count, peers))


def record(measured: Measured, count: int, peers: dict[str, Queue]) -> Record:
    return Record(
        name="engine",
        title="Deliveries through the engine, with a channel that does nothing",
        unit="deliveries/s",
        measured=measured,
        goals=[
            Goal(RENDERED, EACH, at_least=40),
            Goal(RENDERED, RECORDED, at_least=3),
            Goal(RENDERED, GRAPHILE, at_least=0.7),
            Goal(RENDERED, CELERY, at_least=1),
            Goal(CONSTANT, GRAPHILE, at_least=1.2),
            Goal(CONSTANT, FLOOR, at_least=0.35),
        ],
        facts={"deliveries a round": count}
        | {f"fastest of a trial, {name}": queue.chosen for name, queue in peers.items()},
        versions={name: each for queue in peers.values() for name, each in queue.versions.items()},
    )


def engine(dsn: str, app: psycopg.Connection, count: int, *arguments: str) -> float:
    """Deliveries a second of a worker that has warmed up."""
    settings = {
        "database_url": dsn,
        "public_url": "https://notify.example.com",
        "mail_cap": UNREACHED_CAP,
    }
    command = (sys.executable, WORKER, *arguments)
    with program(*command, settings=settings, log=HOME / "engine.log"):
        notify_many(app, count // 20)
        until(lambda: not left(app))
        notify_many(app, count)
        started = time.perf_counter()
        until(lambda: not left(app))
        return count / (time.perf_counter() - started)


def notify_many(app: psycopg.Connection, count: int) -> list[int]:
    """Creates that many deliveries, each for another person; returns the events' ids."""
    each = count // EVENTS
    events = []
    with app.transaction():
        for number in range(EVENTS):
            row = app.execute(NOTIFY, (number * each + 1, (number + 1) * each)).fetchone()
            assert row is not None
            events.append(row[0])
    return events


def left(app: psycopg.Connection) -> bool:
    """Returns whether a delivery is not settled yet."""
    row = app.execute(LEFT).fetchone()
    assert row is not None
    return bool(row[0])


def floor(app: psycopg.Connection, count: int) -> float:
    """Deliveries a second with two statements for 500."""
    events = notify_many(app, count)
    ids = [row[0] for row in app.execute(QUEUED, (events,))]
    app.execute("delete from tocsin.event_queue")
    claim = uuid4()
    started = time.perf_counter()
    for start in range(0, len(ids), 500):
        batch = {"ids": ids[start : start + 500], "claim": claim}
        app.execute(CLAIM, batch)
        app.execute(SETTLE, batch)
    seconds = time.perf_counter() - started
    assert len(ids) == count, f"{len(ids)} of {count} deliveries"
    return count / seconds


if __name__ == "__main__":
    main()
