"""What partitions by time would cost and save: the same rows in one table, and in a partition for each week.

`notification`, `delivery` and `attempt` of a database of large.py are copied into the schema `parted`, by ranges of
their time, with the same indexes; a unique key gets the time too, since PostgreSQL demands that. Then statements of the
hot paths run on both: pages, CPU of PostgreSQL and locks of each. At last the rows of the oldest week are removed: by
batches, and by moving what stays and dropping the partition. `python benchmarks/large_partitions.py --folder FOLDER
--rows 1000000`, where large.py has made that database; it is changed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from bench import large_stock, stage
from bench.large_stock import Db
from operations import spent
from psycopg.conninfo import make_conninfo

KEYS = {"notification": "created_at", "delivery": "created_at", "attempt": "at"}
PRIMARY = {
    "notification": "notification_id",
    "delivery": "delivery_id",
    "attempt": "delivery_id, attempt",
}
INDEXES = """
select pg_get_indexdef(i.indexrelid)
from pg_index i
where i.indrelid = %s::regclass
    and not i.indisprimary
"""
PLACE = """
select notification_id, event_id, created_at
from tocsin.notification
where recipient_id = 'h1'
order by created_at desc
offset %s limit 1
"""
CALLS = {
    "insert a notification": """
        insert into {s}.notification (
            notification_id, event_id, recipient_id, event_type, created_at, in_inbox, decisions
        ) overriding system value
        values (%(new)s, %(new)s, 'p77', 'forum.new_reply', now(), true, '{{}}')
    """,
    "insert 100 deliveries": """
        insert into {s}.delivery (delivery_id, notification_id, event_id, recipient_id, channel, created_at)
        overriding system value
        select %(new)s + i, i, %(new)s, 'p' || i, 'email', now() from generate_series(1, 100) i
    """,
    "a page of the inbox": """
        select * from {s}.notification where recipient_id = 'h1' and in_inbox and archived_at is null
        order by created_at desc, notification_id desc limit 21
    """,
    "a deep page": """
        select * from {s}.notification where recipient_id = 'h1' and in_inbox and archived_at is null
            and (created_at, notification_id) < (%(at)s, %(id)s)
        order by created_at desc, notification_id desc limit 21
    """,
    "unread by category": """
        select event_type, count(*) from {s}.notification
        where recipient_id = %(person)s and in_inbox and archived_at is null and read_at is null group by event_type
    """,
    "one by its id": "select * from {s}.notification where notification_id = %(id)s",
    "mark one read": "update {s}.notification set read_at = now() where notification_id = %(id)s",
    "those of an event": "select * from {s}.notification where event_id = %(event)s",
    "claim 50": """
        update {s}.delivery set state = 'sending', claim = gen_random_uuid(), attempts = attempts + 1, due_at = null
        where delivery_id = any (%(deliveries)s)
    """,
    "due deliveries": """
        select delivery_id from {s}.delivery where channel = 'email' and due_at is not null order by due_at limit 500
    """,
    "deliveries of a notification": "select * from {s}.delivery where notification_id = %(id)s",
    "attempts of a delivery": "select * from {s}.attempt where delivery_id = %(delivery)s",
}
LOCKS = "select count(*), count(*) filter (where not fastpath) from pg_locks where pid = pg_backend_pid()"
TIMES = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--days", type=int, default=7, help="of a partition")
    options = parser.parse_args()
    with large_stock.server(options.folder) as running:
        large_stock.stocked(running, options.rows)
        dsn = make_conninfo(running.superuser_dsn, dbname=large_stock.name_of(options.rows))
        compare(dsn, running.pid, options.days)


def compare(dsn: str, server: int, days: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        copy(admin, days)
        admin.execute("vacuum (analyze)")
        admin.execute("checkpoint")
    with psycopg.connect(dsn) as app:
        values = arguments(app)
        for call, text in CALLS.items():
            plain, parted = (cost(app, text.format(s=s), values) for s in ("tocsin", "parted"))
            print(f"{call:<30} {plain}   {parted}", flush=True)
    with psycopg.connect(dsn, autocommit=True) as admin:
        for what, work in (("delete", delete), ("move and drop", move_and_drop)):
            print(f"{what}: {ended(admin, server, work)}", flush=True)


def copy(admin: Db, days: int) -> None:
    admin.execute("drop schema if exists parted cascade")
    admin.execute("create schema parted")
    admin.execute("set maintenance_work_mem = '512MB'")
    for table, key in KEYS.items():
        admin.execute(
            f"create table parted.{table} (like tocsin.{table} including defaults) partition by range ({key})".encode()
        )
        admin.execute(
            f"create table parted.{table}_old partition of parted.{table} default".encode()
        )
        for number in range(-1, 91 // days + 1):
            admin.execute(
                f"create table parted.{table}_{number + 1} partition of parted.{table} for values"
                f" from ({start(days, number + 1)}) to ({start(days, number)})".encode()
            )
        admin.execute(f"insert into parted.{table} select * from tocsin.{table}".encode())
        definitions = admin.execute(INDEXES, (f"tocsin.{table}",)).fetchall()
        for (definition,) in definitions:
            made = definition.replace(f"ON tocsin.{table}", f"ON parted.{table}")
            if "UNIQUE" in made:
                made = made.replace("(event_id, recipient_id)", f"(event_id, recipient_id, {key})")
            admin.execute(made.encode())
        admin.execute(
            f"alter table parted.{table} add primary key ({PRIMARY[table]}, {key})".encode()
        )


def start(days: int, number: int) -> str:
    """Returns the beginning of a partition, as a literal; the later the number, the earlier."""
    return f"'{_today():%Y-%m-%d}'::timestamptz - interval '{days * number - 1} days'"


def _today() -> datetime:
    return datetime.now(UTC)


def arguments(app: Db) -> dict[str, Any]:
    row = app.execute(PLACE, (1000,)).fetchone()
    assert row is not None
    deliveries = app.execute(
        "select delivery_id from tocsin.delivery where due_at is not null order by delivery_id desc limit 50"
    ).fetchall()
    ids = [each for (each,) in deliveries]
    return {
        "id": row[0],
        "event": row[1],
        "at": row[2],
        "person": "p1000",
        "deliveries": ids,
        "delivery": ids[0],
        "new": 10**12,
    }


def cost(app: Db, text: str, values: dict[str, Any]) -> str:
    """Returns pages, microseconds of CPU of the prepared statement and of one that is planned, and locks."""
    explained = f"explain (analyze, buffers, format json) {text}".encode()
    app.execute(explained, values)  # reads catalogues
    app.rollback()
    row = app.execute(explained, values).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    app.rollback()
    app.execute(text.encode(), values)
    locks = app.execute(LOCKS).fetchone()
    app.rollback()
    assert locks is not None
    kept, planned = (cpu(app, text, values, prepare) for prepare in (True, False))
    pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return f"{pages:>7,} pages {kept:>7,.0f} us {planned:>7,.0f} us planned {locks[0]:>4} locks, {locks[1]:>4} slow"


def cpu(app: Db, text: str, values: dict[str, Any], prepare: bool) -> float:
    app.execute(f"set plan_cache_mode = {'force_generic_plan' if prepare else 'auto'}".encode())
    app.commit()
    costs = []
    for _ in range(3):
        before = spent(app)[0]
        for _ in range(TIMES):
            app.execute(text.encode(), values, prepare=prepare)
            app.rollback()
        costs.append(1e6 * (spent(app)[0] - before) / TIMES)
        app.rollback()
    return statistics.median(costs)


OVER = "coalesce(read_at, archived_at, case when not in_inbox then created_at end)"
KEPT = f"(read_at is null and archived_at is null and in_inbox) or {OVER} >= %(before)s"


def oldest(admin: Db) -> tuple[int, datetime, datetime]:
    """Returns the number of the oldest partition of a whole week, and its bounds."""
    row = admin.execute(
        "select max(substring(c.relname from '_(\\d+)$')::integer) - 1 from pg_class c"
        " where c.relnamespace = 'parted'::regnamespace and c.relname ~ '^notification_\\d+$'"
    ).fetchone()
    assert row is not None
    bounds = admin.execute(
        f"select min(created_at), max(created_at) from parted.notification_{row[0]}".encode()
    ).fetchone()
    assert bounds is not None
    return row[0], bounds[0], bounds[1]


def delete(admin: Db) -> str:
    """Deletes what is over of the time of the oldest partition, with the product's function."""
    _, first, last = oldest(admin)
    after = datetime.min.replace(tzinfo=UTC)
    count = 0
    while True:
        row = admin.execute(
            "select last, deleted from tocsin.clean_up_notifications(%s, %s, 1000)", (after, last)
        ).fetchone()
        assert row is not None
        count += row[1]
        if row[1] < 1000:
            break
        after = row[0]
    for table in KEYS:
        admin.execute(f"vacuum tocsin.{table}".encode())
    return f"{count:,} notifications from {first:%d %b} to {last:%d %b}, with vacuum"


def move_and_drop(admin: Db) -> str:
    """Moves what stays of the oldest partition into the partition for what is old, and drops it."""
    number, _, last = oldest(admin)
    with admin.transaction():
        for table in KEYS:
            admin.execute(
                f"alter table parted.{table} detach partition parted.{table}_{number}".encode()
            )
        kept = admin.execute(
            f"insert into parted.notification select * from parted.notification_{number} where {KEPT}".encode(),
            {"before": last},
        ).rowcount
        admin.execute(
            (
                f"insert into parted.delivery select d.* from parted.delivery_{number} d where d.notification_id in"
                f" (select notification_id from parted.notification_{number} where {KEPT})"
            ).encode(),
            {"before": last},
        )
        admin.execute(
            f"insert into parted.attempt select a.* from parted.attempt_{number} a"
            " where a.delivery_id in (select delivery_id from parted.delivery_old)".encode()
        )
        for table in KEYS:
            admin.execute(f"drop table parted.{table}_{number}".encode())
    return f"{kept:,} notifications stayed"


def ended(admin: Db, server: int, work: Callable[[Db], str]) -> str:
    admin.execute("checkpoint")
    before, started = (stage.cpu(server), spent(admin)[1]), time.monotonic()
    done = work(admin)
    seconds = time.monotonic() - started
    after = (stage.cpu(server), spent(admin)[1])
    return f"{done}: {after[0] - before[0]:.1f} s CPU, {(after[1] - before[1]) / 1e6:,.0f} MB WAL, {seconds:.1f} s"


if __name__ == "__main__":
    main()
