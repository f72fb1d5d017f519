"""What clean-up and erasure read: what they delete, not what was deleted before or belongs to others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.support.pages_read import pages_read, pages_read_once

Db = psycopg.Connection[Any]
# 6,000 that are over, each of an event of its own, and 6,000 events with an unread one
STOCK = """
insert into tocsin.event (event_id, event_type, title, body, metadata, caller, created_at, fanned_out_at)
select i, 'forum.new_reply', 'x', '', '{}', 'role:app', at, at
from generate_series(1, 12000) i
cross join lateral (select now() - interval '200 days' + i * interval '1 second' as at) a;
select setval('tocsin.event_event_id_seq', 200000);
insert into tocsin.notification (event_id, recipient_id, event_type, created_at, read_at, in_inbox, decisions)
select
    e.event_id, 'p' || e.event_id % 300, e.event_type, e.created_at,
    -- in another order than that of the rows
    case when e.event_id % 2 = 0 then e.created_at + e.event_id * 7919 % 6007 * interval '1 second' end,
    true, '{}'
from tocsin.event e;
insert into tocsin.delivery (notification_id, event_id, recipient_id, channel, state, created_at, settled_at)
select n.notification_id, n.event_id, n.recipient_id, 'email', 'sent', n.created_at, n.created_at
from tocsin.notification n;
vacuum analyze tocsin.event, tocsin.notification, tocsin.delivery
"""
INVITATIONS = """
insert into tocsin.event (event_id, event_type, title, body, metadata, caller, email, created_at, fanned_out_at)
select 100000 + i, 'forum.new_reply', 'x', '', '{}', 'role:app', 'guest' || i || '@example.org', now(), now()
from generate_series(1, 3000) i;
insert into tocsin.notification (event_id, address, event_type, created_at, in_inbox, decisions)
select e.event_id, e.email, e.event_type, e.created_at, false, '{}'
from tocsin.event e
where e.email is not null;
vacuum analyze tocsin.event, tocsin.notification
"""
BATCH = (
    "select * from tocsin.clean_up_notifications(%(last)s, now() - interval '90 days', %(limit)s)"
)
EVENTS = (
    "select * from tocsin.clean_up_events(%(last)s, %(id)s, now() - interval '90 days', %(limit)s)"
)


@pytest.fixture
def stocked(db: Db) -> Db:
    run(db, STOCK)
    return db


@pytest.fixture
def old_snapshot(stocked: Db, dsn: str) -> Iterator[None]:
    """A report that was begun before: nothing that is deleted meanwhile can be removed from indexes."""
    with psycopg.connect(dsn) as report:
        report.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        report.execute("select count(*) from tocsin.event_type")
        yield


def run(db: Db, statements: str) -> None:
    for statement in statements.split(";\n"):
        db.execute(statement.encode())


@pytest.mark.usefixtures("old_snapshot")
def test_a_batch_does_not_read_what_the_batches_before_have_deleted(stocked: Db) -> None:
    last = "-infinity"
    for _ in range(4):
        row = stocked.execute(BATCH, {"last": last, "limit": 1000}).fetchone()
        assert row is not None
        last = row[0]
        assert row[1] == 1000
    # what is dead would be 4,000 more
    assert pages_read_once(stocked, BATCH, {"last": last, "limit": 20}) < 2000


def test_a_page_of_events_does_not_read_those_before_it(stocked: Db) -> None:
    row = stocked.execute(EVENTS, {"last": "-infinity", "id": 0, "limit": 5000}).fetchone()
    assert row is not None
    assert row[2] == 0
    stocked.execute("delete from tocsin.notification where event_id > 11990")
    # those before it have 5,000 notifications
    place = {"last": row[0], "id": row[1]}
    assert pages_read_once(stocked, EVENTS, place | {"limit": 100}) < 1500
    found = stocked.execute(EVENTS, place | {"limit": 10_000}).fetchone()
    assert found == (None, None, 10)


def test_what_was_made_long_ago_is_not_searched_for_lost_deliveries(stocked: Db) -> None:
    stocked.execute("select tocsin.upsert_recipient('alice', 'alice@example.com')")
    stocked.execute("select tocsin.notify('forum.new_reply', array['alice'], 'x')")
    row = stocked.execute("select tocsin.first_maybe_lost(now())").fetchone()
    assert row == stocked.execute("select max(delivery_id) - 1 from tocsin.delivery").fetchone()
    assert row is not None
    search = "select tocsin.requeue_lost(%(after)s, now(), 10000)"
    assert pages_read(stocked, search, {"after": row[0]}) < 250  # the ledger has 600


def test_an_erasure_does_not_read_the_invitations_to_others(stocked: Db) -> None:
    run(stocked, INVITATIONS)
    stocked.execute("select tocsin.upsert_recipient('alice', 'alice@example.com')")
    stocked.execute("select tocsin.notify('forum.new_reply', array['alice'], 'x')")
    with stocked.transaction():
        stocked.execute("set local enable_seqscan = off")  # how so small a table would be read
        before = events_read(stocked)
        stocked.execute("select tocsin.erase_recipient('alice')")
        assert events_read(stocked) - before < 100  # of 15,000


def events_read(db: Db) -> int:
    """How many rows of events, and entries of their indexes, this session has read."""
    row = db.execute(
        "select pg_stat_get_xact_tuples_returned(t) + sum(pg_stat_get_xact_tuples_returned(i.indexrelid))"
        " from cast('tocsin.event' as regclass) t join pg_index i on i.indrelid = t group by t"
    ).fetchone()
    assert row is not None
    return int(row[0])
