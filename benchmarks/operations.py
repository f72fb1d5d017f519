"""The cost of the operations page: its requests on a ledger of a million deliveries, and its indexes for writes.

The ledger has a day's worth of deliveries, one in fifty failed, and 100,000 that wait. Each request is that of one
operator's page, without the cache that serves all requests within a second. A delivery's path through the ledger
(insert, claim, settle, in batches of 500) is measured with and without what the page adds (an index of failures, a row
for each batch that ended), as processor time of the server's process. There is no peer. `make bench-ops`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from bench import cpu_limit, stage
from bench.record import Goal, Record, keep
from bench.rounds import in_turns, in_turns_async

from tocsin.engine.ops.overview import Overviews
from tocsin.engine.store.database import Database
from tocsin.engine.store.operations import (
    DeadFilter,
    channels,
    count_minutes,
    counted_minutes,
    dead_letter_reasons,
    dead_letters,
    settled_lately,
    unfinished,
)

WITH, WITHOUT = "with the page's indexes", "without"
INDEX = """
    create index delivery_failed on tocsin.delivery (failed_at desc, delivery_id desc) include (channel, reason)
    where failed_at is not null and coalesce(event_id, digest_id) is not null
"""
FILL = """
    insert into tocsin.delivery
        (event_id, notification_id, recipient_id, channel, state, reason, created_at, settled_at, failed_at)
    select
        e.event_id, i, 'alice', case when i %% 3 = 0 then 'push' else 'email' end,
        case when i %% 50 = 0 then 'failed' else 'sent' end::tocsin.delivery_state,
        case when i %% 50 = 0 then 'smtp_55' || i %% 7 end,
        now() - i * interval '86 milliseconds' - interval '200 milliseconds' * random(),
        now() - i * interval '86 milliseconds',
        case when i %% 50 = 0 then now() - i * interval '86 milliseconds' end
    from generate_series(1, %s) i, tocsin.event e
"""
ENDED = """
    insert into tocsin.settled_batch (settled_at, delivery_ids)
    select d.settled_at, array_agg(d.delivery_id)
    from tocsin.delivery d
    where d.settled_at is not null
    group by d.settled_at
"""
WAIT = """
    insert into tocsin.delivery (event_id, notification_id, recipient_id, channel, state, reason, created_at, due_at)
    select e.event_id, i, 'alice', 'email', 'deferred', 'smtp_451', now(), now() + i * interval '1 second'
    from generate_series(1, %s) i, tocsin.event e
"""
# negative ids, so that each batch finds its own rows
WAY = (
    """
    insert into tocsin.delivery (event_id, notification_id, recipient_id, channel, created_at)
    select (select max(event_id) from tocsin.event), i, 'alice', 'email', now()
    from generate_series(%(first)s::bigint, %(last)s::bigint) i
    """,
    """
    update tocsin.delivery
    set state = 'sending', attempts = 1, claim = gen_random_uuid()
    where notification_id between %(first)s and %(last)s
    """,
    """
    with settled as (
        update tocsin.delivery
        set state = 'sent', claim = null, settled_at = statement_timestamp(), address = 'alice@example.com',
            checked_at = now()
        where notification_id between %(first)s and %(last)s
        returning delivery_id
    )
    select count(*) from settled
    """,
)
WAY_WITH = (
    *WAY[:2],
    WAY[2].replace(
        ")\n    select",
        """),
    ended as (
        insert into tocsin.settled_batch (settled_at, delivery_ids)
        select statement_timestamp(), array_agg(delivery_id)
        from settled
    )
    select""",
    ),
)
BATCHES = 20


def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--deliveries", type=int, default=1_000_000)
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with stage.server() as server, stage.database(server, "operations", rows=None) as dsn:
        fill(dsn, options.deliveries, options.waiting)
        catching_up, readings = asyncio.run(read(dsn, options.rounds))
        way, wal = ways(dsn, options.rounds)
    keep(
        Record(
            "ops",
            "Requests of the operations page",
            "ms",
            readings,
            facts={
                "deliveries within a day": options.deliveries,
                "waiting deliveries": options.waiting,
                "counting the whole day afterwards, once, ms": round(catching_up),
            },
        ),
        Record(
            "ops-ledger",
            "A delivery's path through the ledger",
            "µs of processor time",
            way,
            goals=[Goal(WITH, WITHOUT, at_most=1.15)],
            facts={f"bytes of WAL a delivery, {kind}": n for kind, n in wal.items()},
        ),
    )


def fill(dsn: str, deliveries: int, waiting: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("select tocsin.upsert_recipient('alice', 'alice@example.com')")
        connection.execute("select tocsin.notify('forum.new_reply', array['alice'], 'x')")
        connection.execute(FILL, (deliveries,))
        connection.execute(ENDED)
        connection.execute(WAIT, (waiting,))
        connection.execute("vacuum analyze tocsin.delivery, tocsin.settled_batch")


async def read(dsn: str, rounds: int) -> tuple[float, dict[str, list[float]]]:
    """Milliseconds for counting a whole day, and for each request after that."""
    database = Database(dsn, max_size=2)
    await database.open()
    now = datetime.now(UTC)
    started = time.perf_counter()
    while (kept := await count_minutes(database, now)) and kept < now - timedelta(minutes=2):
        pass
    catching_up = 1000 * (time.perf_counter() - started)
    day, hour = now - timedelta(days=1), now - timedelta(hours=1)
    one_reason = DeadFilter(now - timedelta(days=7), None, "smtp_553")
    asked: dict[str, Callable[[], Awaitable[object]]] = {
        "the page, hour": lambda: Overviews(database).get("hour"),
        "the page, day": lambda: Overviews(database).get("day"),
        "of it: channels": lambda: channels(database),
        "of it: waiting deliveries": lambda: unfinished(database),
        "of it: the last minute": lambda: settled_lately(database, now),
        "of it: the hour's minutes": lambda: counted_minutes(database, hour, timedelta(minutes=1)),
        "of it: the day's minutes": lambda: counted_minutes(database, day, timedelta(minutes=10)),
        "dead letters, a page": lambda: dead_letters(database, one_reason, cursor=None, limit=20),
        "dead letters, their reasons": lambda: dead_letter_reasons(database, day),
    }
    measured = await in_turns_async({name: timed(ask) for name, ask in asked.items()}, rounds)
    await database.close()
    return catching_up, measured


def timed(ask: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[float]]:
    async def measure() -> float:
        started = time.perf_counter()
        await ask()
        return 1000 * (time.perf_counter() - started)

    return measure


def ways(dsn: str, rounds: int) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Returns the cost of a delivery's path with and without what the page adds, and the WAL that it writes."""
    wal: dict[str, int] = {}
    with psycopg.connect(dsn, autocommit=True) as connection:

        def way(kind: str, statements: Sequence[str], *indexes: str) -> Callable[[], float]:
            def measure() -> float:
                connection.execute("drop index if exists tocsin.delivery_failed")
                for statement in indexes:
                    connection.execute(statement.encode())
                connection.execute("delete from tocsin.delivery where notification_id < 0")
                connection.execute("vacuum tocsin.delivery")
                cpu, written = spent(connection)
                for batch in range(1, BATCHES + 1):
                    numbers = {"first": -500 * batch, "last": -500 * batch + 499}
                    for statement in statements:
                        connection.execute(statement.encode(), numbers)
                later, more = spent(connection)
                each = round((more - written) / (500 * BATCHES))
                wal[kind] = min(wal.get(kind, each), each)
                return 1e6 * (later - cpu) / (500 * BATCHES)

            return measure

        contenders = {WITH: way(WITH, WAY_WITH, INDEX), WITHOUT: way(WITHOUT, WAY)}
        return in_turns(contenders, rounds), wal


def spent(connection: psycopg.Connection[Any]) -> tuple[float, float]:
    """Processor seconds of the server's process, which other load hardly changes, and bytes of WAL."""
    row = connection.execute(
        "select pg_backend_pid(), pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8"
    ).fetchone()
    assert row is not None
    fields = Path(f"/proc/{row[0]}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), row[1]


if __name__ == "__main__":
    main()
