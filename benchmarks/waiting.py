"""Buffers of the next dispatch and of the next claim, while a thousand and a million due deliveries wait.

After an outage of a provider everything is due at once. The leader then makes jobs of 500, the oldest first, and a
worker claims 50 of such a job. Both must cost the same however many wait, except for the height of an index. Buffers
are pages of 8 kB, by EXPLAIN, and `allowed` is the cost with a thousand plus a buffer for each level that an index
has grown and each time that it is descended (size.py). `make bench-waiting`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta

import psycopg
from bench import cpu_limit, stage
from bench.record import Goal, Record, keep
from psycopg.conninfo import make_conninfo
from size import LEVELS, WARM, Db, Seen, Statement, allowance, claim_of, once

from tocsin.sql import load

WAITING = (1_000, 1_000_000)
FILL = """
insert into tocsin.delivery (
    notification_id, event_id, recipient_id, channel, state, reason, attempts, created_at, due_at, expires_at
)
select notification_id, event_id, recipient_id, 'email', 'deferred', 'smtp_451', 1, now() - interval '2 hours',
    now() - interval '1 hour' + row_number() over () * interval '1 millisecond', now() + interval '1 day'
from (
    select notification_id, event_id, recipient_id from tocsin.notification
    union all
    select notification_id, event_id, recipient_id from tocsin.notification
) n
limit %s
"""
OLDEST = """
select delivery_id
from tocsin.delivery
where channel = 'email'
    and due_at is not null
order by due_at
limit 50
"""


def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--waiting", type=int, nargs=2, default=WAITING, metavar="DELIVERIES")
    options = parser.parse_args()
    seen: dict[int, Seen] = {}
    with stage.server() as running:
        for waiting in options.waiting:
            with ExitStack() as stack:
                dsn = stack.enter_context(stage.database(running, "waiting"))
                admin_dsn = make_conninfo(running.superuser_dsn, dbname="waiting")
                admin = stack.enter_context(psycopg.connect(admin_dsn, autocommit=True))
                fill(admin, waiting)
                app = stack.enter_context(psycopg.connect(dsn))
                seen[waiting] = look(app, admin, options.rounds)
    keep(record(seen))


def fill(admin: Db, waiting: int) -> None:
    admin.execute("truncate tocsin.delivery, tocsin.attempt")
    admin.execute(FILL, (waiting,))
    admin.execute("vacuum analyze tocsin.delivery")
    admin.execute("checkpoint")  # the heights of indexes are read from their files


def look(app: Db, admin: Db, rounds: int) -> Seen:
    names = dict(app.execute("select oid, oid::regclass::text from pg_class").fetchall())
    seen = Seen({names[oid]: level for oid, level in admin.execute(LEVELS).fetchall()})
    app.execute(load("dispatch")["configure_planner"])
    app.commit()
    for call, statement in CALLS.items():
        costs = []
        for number in range(WARM + rounds):
            cost, descents = once(app, statement(app))
            if number >= WARM:
                costs.append(float(cost))
                seen.descents[call] = descents
        seen.buffers[call] = costs
        print(f"{call}: {statistics.median(costs):g}", flush=True)
    return seen


def dispatch(_: Db) -> Statement:
    values = {"channel": "email", "room": 500, "lease": timedelta(minutes=2)}
    return load("dispatch")["dispatch_due"], values


def claim(app: Db) -> Statement:
    return claim_of([each for (each,) in app.execute(OLDEST).fetchall()])


CALLS: dict[str, Callable[[Db], Statement]] = {"dispatch 500": dispatch, "claim 50": claim}


def record(seen: dict[int, Seen]) -> Record:
    (few, least), (many, most) = seen.items()
    measured: dict[str, list[float]] = {}
    goals = []
    for call in CALLS:
        ours, bound = f"tocsin, {call}, {many:,} due", f"allowed: {call}, {many:,} due"
        more = allowance(least, most, call)
        measured[f"tocsin, {call}, {few:,} due"] = least.buffers[call]
        measured[ours] = most.buffers[call]
        measured[bound] = [each + more for each in least.buffers[call]]
        goals.append(Goal(ours, bound, at_most=1))
    return Record("waiting", "While a million due deliveries wait", "buffers", measured, goals)


if __name__ == "__main__":
    main()
