"""The cost of a call with 10,000, a million, ten million notifications: buffers, by EXPLAIN. `make bench-size`.

A buffer is a page of 8 kB that a statement read, including those of statements inside its functions; unlike
milliseconds it is the same on each machine. An index grows in height with the logarithm of its rows, so a call may read
one buffer more for each level that an index has grown, each time that it descends that index; PostgreSQL counts these
descents too. `allowed` is the cost with the smallest database, plus that, plus the random placement of the clean-up's
rows: new rows fill gaps, so twenty are on more or fewer pages. All sizes have the plan of a large database: with a
small one PostgreSQL prefers to read a whole table, which does not show growth. `--rows 10000 1000000 10000000` adds ten
million, which takes half an hour and 25 GB.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
from bench import cpu_limit, stage
from bench.record import Goal, Record, keep
from psycopg.conninfo import make_conninfo

from tocsin.settings import Settings
from tocsin.sql import load

Db = psycopg.Connection[Any]
ROWS = (10_000, 1_000_000)
WARM = 3  # the first calls of a session read catalogues
PERSON, HOT = "p5000", "p1"
LEVELS = """
select c.oid, case when pg_relation_size(c.oid) > 0 then
    get_byte(pg_read_binary_file(pg_relation_filepath(c.oid), 36, 1), 0) else 0 end
from pg_class c
join pg_index i on i.indexrelid = c.oid
join pg_am a on a.oid = c.relam and a.amname = 'btree'
where c.relnamespace in ('tocsin'::regnamespace, 'tocsin_queue'::regnamespace)
"""
# how often this transaction descended each index: to read, or to insert an entry
DESCENTS = """
select
    i.indexrelid::regclass::text,
    pg_stat_get_xact_numscans(i.indexrelid)
        + pg_stat_get_xact_tuples_inserted(i.indrelid)
        + pg_stat_get_xact_tuples_updated(i.indrelid) - pg_stat_get_xact_tuples_hot_updated(i.indrelid)
from pg_index i
join pg_class c on c.oid = i.indexrelid
where c.relnamespace in ('tocsin'::regnamespace, 'tocsin_queue'::regnamespace)
"""
# twenty events of one person each, mailed and read last century
_OVER = "select count(*) from tocsin.notification where read_at < '2000-01-01'"
_MAKE_OVER = """
with created as (
    insert into tocsin.event (event_type, title, body, metadata, caller, created_at, fanned_out_at, expires_at)
    select 'forum.new_reply', 'New reply', 'Bob: yes', '{}', 'role:app', at, at, at
    from generate_series(1, 20), cast('1999-12-31' as timestamptz) at
    returning event_id, created_at
),
kept as (
    insert into tocsin.notification (event_id, recipient_id, event_type, created_at, read_at, in_inbox, decisions)
    select event_id, 'p4000', 'forum.new_reply', created_at, created_at, true, '{}'
    from created
    returning notification_id, event_id, recipient_id, created_at
),
mailed as (
    insert into tocsin.delivery (
        notification_id, event_id, recipient_id, channel, state, attempts, created_at, settled_at
    )
    select notification_id, event_id, recipient_id, 'email', 'sent', 1, created_at, created_at
    from kept
    returning delivery_id, created_at
)
insert into tocsin.attempt (delivery_id, attempt, at, outcome)
select delivery_id, 1, created_at, 'sent'
from mailed
"""
# Rows are stored where there is space, so the number of pages of a call's rows is random; it is allowed for.
_OVER_PAGES = """
with over as (
    select notification_id, event_id, ctid
    from tocsin.notification
    where read_at < '2000-01-01'
),
place as (
    select 'notification' as kept_in, ctid from over
    union all
    select 'event', e.ctid from tocsin.event e join over using (event_id)
    union all
    select 'delivery', d.ctid from tocsin.delivery d join over using (notification_id)
    union all
    select 'attempt', a.ctid
    from tocsin.attempt a
    join tocsin.delivery d using (delivery_id)
    join over using (notification_id)
)
select count(distinct (kept_in, (ctid::text::point)[0]))
from place
"""
COUNT = "select tocsin.unread_counts_in_order(%(who)s)"
Statement = tuple[str, Mapping[str, Any]]


class Seen:
    """One size: the cost of each call, its descents of each index, and the height of these."""

    def __init__(self, levels: dict[str, int]) -> None:
        self.levels = levels
        self.buffers: dict[str, list[float]] = {}
        self.descents: dict[str, dict[str, int]] = {}
        self.pages: dict[str, int] = {}  # with the rows of a call, where that is random


def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    options = parser.parse_args()
    seen: dict[int, Seen] = {}
    with stage.server() as running:
        for rows in options.rows:
            with ExitStack() as stack:
                dsn = stack.enter_context(stage.database(running, "size", rows=rows))
                admin_dsn = make_conninfo(running.superuser_dsn, dbname="size")
                admin = stack.enter_context(psycopg.connect(admin_dsn, autocommit=True))
                app = stack.enter_context(psycopg.connect(dsn))
                seen[rows] = look(app, admin, options.rounds)
    keep(record(seen))


def record(seen: Mapping[int, Seen]) -> Record:
    smallest, *larger = seen
    measured: dict[str, list[float]] = {}
    goals = []
    for call in CALLS:
        measured[f"tocsin, {call}, {smallest:,} rows"] = seen[smallest].buffers[call]
        for rows in larger:
            ours, bound = f"tocsin, {call}, {rows:,} rows", f"allowed: {call}, {rows:,} rows"
            measured[ours] = seen[rows].buffers[call]
            more = allowance(seen[smallest], seen[rows], call)
            measured[bound] = [each + more for each in seen[smallest].buffers[call]]
            goals.append(Goal(ours, bound, at_most=1))
    return Record("size", "Cost against size", "buffers", measured, goals)


def allowance(small: Seen, large: Seen, call: str) -> int:
    """Returns one buffer for each level that an index has grown, for each descent of the call."""
    grown = sum(
        times * max(0, large.levels[index] - small.levels[index])
        for index, times in small.descents[call].items()
        if index in large.levels  # others are no B-trees
    )
    return grown + large.pages.get(call, 0) - small.pages.get(call, 0)


def look(app: Db, admin: Db, rounds: int) -> Seen:
    names = dict(app.execute("select oid, oid::regclass::text from pg_class").fetchall())
    seen = Seen({names[oid]: level for oid, level in admin.execute(LEVELS).fetchall()})
    app.commit()
    for way in ("seqscan", "hashjoin", "mergejoin", "bitmapscan"):
        app.execute(f"set enable_{way} = off")
    app.commit()
    for call, statement in CALLS.items():
        costs = []
        for number in range(WARM + rounds):
            cost, descents = once(app, statement(app))
            if number >= WARM:
                costs.append(float(cost))
                seen.descents[call] = descents
        seen.buffers[call] = costs
        if call in PAGES:
            seen.pages[call] = int((app.execute(PAGES[call]).fetchone() or (0,))[0])
        print(f"{call}: {statistics.median(costs):g}", flush=True)
    return seen


def once(app: Db, statement: Statement) -> tuple[int, dict[str, int]]:
    """Buffers and descents of one call, which is rolled back."""
    before = dict(app.execute(DESCENTS).fetchall())
    row = app.execute(
        f"explain (analyze, buffers, format json) {statement[0]}", statement[1]
    ).fetchone()
    after = dict(app.execute(DESCENTS).fetchall())
    app.rollback()
    assert row is not None
    plan = row[0][0]["Plan"]
    changed = {name: after[name] - times for name, times in before.items() if after[name] > times}
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], changed


def count(_: Db) -> Statement:
    return COUNT, {"who": [PERSON]}


def count_hot(_: Db) -> Statement:
    return COUNT, {"who": [HOT]}


def page(_: Db) -> Statement:
    values = {"recipient_id": HOT, "at": None, "id": None, "limit": 21}
    return load("notification")["list_notifications"], values


def notify(_: Db) -> Statement:
    return "select tocsin.notify('forum.new_reply', array[%(who)s], 'New reply', 'Bob')", {
        "who": PERSON
    }


def claim(app: Db) -> Statement:
    """Fifty new deliveries."""
    people = [f"p{number}" for number in range(4000, 4050)]
    row = app.execute("select tocsin.notify('forum.new_thread', %s, 'x')", (people,)).fetchone()
    assert row is not None
    app.execute(
        "insert into tocsin.delivery (notification_id, event_id, recipient_id, channel, created_at)"
        " select notification_id, event_id, recipient_id, 'email', now() from tocsin.notification where event_id = %s",
        row,
    )
    found = app.execute(
        "select delivery_id from tocsin.delivery where event_id = %s", row
    ).fetchall()
    return claim_of([each for (each,) in found])


def claim_of(delivery_ids: Sequence[int]) -> Statement:
    """Returns a worker's claim of these mails, with the settings that it has by default."""
    values = {
        "delivery_ids": delivery_ids,
        "others": [],
        "mergeable": [],
        "channel": "email",
        "claim": uuid4(),
        "process_id": uuid4(),
        "lease": timedelta(minutes=2),
        "cap": Settings().mail_cap,
    }
    return load("delivery")["claim"], values


def clean_up(app: Db) -> Statement:
    """Returns the clean-up of twenty notifications that are alike in each size: the oldest ones are not."""
    row = app.execute(_OVER).fetchone()
    if row == (0,):
        app.execute(_MAKE_OVER)
        app.commit()
    first = datetime.min.replace(tzinfo=UTC)
    values = {"after": first, "before": datetime(2000, 1, 1, tzinfo=UTC), "limit": 20}
    return load("installation")["clean_up_notifications"], values


CALLS: dict[str, Callable[[Db], Statement]] = {
    "count": count,
    "count, 5 % of all unread": count_hot,
    "list": page,
    "notify": notify,
    "claim 50": claim,
    "clean up 20": clean_up,
}

PAGES = {"clean up 20": _OVER_PAGES}

if __name__ == "__main__":
    main()
