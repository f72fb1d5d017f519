"""A backlog costs nothing: dispatch and claim read as many pages with 100,000 due deliveries as with a thousand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import uuid4

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tests.support.pages_read import pages_read, pages_read_once
from tocsin.sql import load

CLAIM = re.sub(r"%\((\w+)\)s", r"%(\1)s", load("delivery")["claim"])
DISPATCH = "select tocsin.dispatch_due('email', 100, '2 minutes')"
STOCK = """
insert into tocsin.recipient (recipient_id, email)
select 'p' || i, 'p' || i || '@example.com' from generate_series(1, 1000) i;
insert into tocsin.event (event_id, event_type, title, body, metadata, caller, created_at, fanned_out_at)
select i, 'forum.new_reply', 'x', '', '{}', 'role:app', now(), now() from generate_series(1, 100) i;
insert into tocsin.notification (event_id, recipient_id, event_type, created_at, in_inbox, decisions)
select e, 'p' || i, 'forum.new_reply', now(), false, '{"email": ["on", "default"]}'
from generate_series(1, 100) e cross join generate_series(1, 1000) i;
"""
DUE = """
insert into tocsin.delivery (notification_id, event_id, recipient_id, channel, state, created_at, due_at)
select n.notification_id, n.event_id, n.recipient_id, 'email', 'deferred', now(), now()
from tocsin.notification n
where n.event_id between %s and %s
"""


@contextmanager
def large_tables(db: Db) -> Iterator[None]:
    """Small tables are read as if they were large."""
    for method in ("seqscan", "hashjoin", "mergejoin"):
        db.execute(f"set enable_{method} = off".encode())
    yield
    db.execute("reset all")


def cost_of_the_next(db: Db) -> tuple[int, int]:
    """The pages that the dispatch of the next hundred reads, and those of their claim: the fewest of four times."""
    db.execute("vacuum (analyze) tocsin.delivery")
    costs = []
    for _ in range(4):
        dispatched = pages_read_once(db, DISPATCH)
        job = db.execute(
            "delete from tocsin_queue.procrastinate_jobs where queue_name = 'email' returning args"
        ).fetchall()
        ids = [one for (args,) in job for one in args["delivery_ids"]]
        assert len(ids) == 100
        claim = {
            "delivery_ids": ids,
            "others": [],
            "mergeable": [],
            "channel": "email",
            "claim": uuid4(),
            "process_id": None,
            "lease": timedelta(seconds=30),
            "cap": 60,
        }
        with large_tables(db):
            costs.append((dispatched, pages_read_once(db, CLAIM, claim)))
    dispatches, claims = zip(*costs, strict=True)
    return min(dispatches), min(claims)


def test_a_backlog_costs_the_next_claim_nothing(db: Db) -> None:
    for statement in STOCK.strip().removesuffix(";").split(";\n"):
        db.execute(statement.encode())
    db.execute("analyze tocsin.notification, tocsin.event, tocsin.recipient")
    db.execute(DUE, (1, 1))
    few = cost_of_the_next(db)
    db.execute(DUE, (2, 100))
    many = cost_of_the_next(db)
    # a hundred times as many are due: half as much again is by where the rows happen to be
    assert all(after <= 1.5 * before for before, after in zip(few, many, strict=True)), (few, many)


def test_metrics_count_a_backlog_up_to_a_limit(db: Db) -> None:
    for statement in STOCK.strip().removesuffix(";").split(";\n"):
        db.execute(statement.encode())
    db.execute(DUE, (1, 10))
    db.execute(
        "update tocsin.delivery set due_at = now() - interval '1 hour' where delivery_id % 1000 = 7"
    )
    db.execute("vacuum (analyze) tocsin.delivery")
    counted = load("health")["unsettled"].replace("%(most)s", "100")
    assert pages_read(db, counted) < 300  # 10,000 are due, in 700 pages
    (row,) = db.execute(counted.encode()).fetchall()
    assert row[:3] == ("email", "deferred", 100)
    assert 3600 <= row[3] < 7200
