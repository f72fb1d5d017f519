"""The list's plans: a page costs the same however deep it is, and however rare what its filter asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, LiteralString

import psycopg
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tocsin.sql import load

PAGE = load("notification")["list_notifications"]
FILTERED = load("notification")["list_filtered"]
GROUPED = load("group")["list_groups"]
TYPES = {
    "recipient_id": "text",
    "as_of": "text",
    "at": "timestamptz",
    "id": "bigint",
    "read": "boolean",
    "event_type": "text",
    "category": "text",
    "subject": "text",
    "archived": "boolean",
    "newer": "boolean",
    "limit": "integer",
}
# 6,000 rows of Alice's: one is read, three are of a rare category
STOCK = """
insert into tocsin.recipient (recipient_id) select 'p' || i from generate_series(1, 300) i;
insert into tocsin.event (event_id, event_type, title, body, metadata, caller, created_at, fanned_out_at)
select i, 'forum.new_reply', 'x', '', '{}', 'role:app', now() - interval '1 minute' * (6000 - i), now()
from generate_series(1, 6000) i;
insert into tocsin.notification (event_id, recipient_id, event_type, created_at, in_inbox, decisions, subject, read_at)
select
    e.event_id,
    'alice',
    case when e.event_id <= 3 then 'billing.invoice_issued' else 'forum.new_reply' end,
    e.created_at,
    true,
    '{}',
    case when e.event_id in (4, 5) then 'forum.thread:42' end,
    case when e.event_id = 5 then now() end
from tocsin.event e;
insert into tocsin.notification (event_id, recipient_id, event_type, created_at, in_inbox, decisions)
select e.event_id, 'p' || 1 + e.event_id % 300, 'forum.new_reply', e.created_at, true, '{}'
from tocsin.event e;
analyze tocsin.notification, tocsin.event, tocsin.event_type
"""


@pytest.fixture
def stocked(db: Db, people: None) -> Iterator[Db]:
    for statement in STOCK.split(";\n"):
        db.execute(statement.encode())
    db.execute("set plan_cache_mode = force_generic_plan")
    prepare(db, PAGE)
    yield db
    db.execute("deallocate page")


def prepare(db: Db, statement: str) -> None:
    """Prepares the statement of a page in place of another, and keeps the names of its arguments in their order."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
    numbered = re.sub(r"%\((\w+)\)s", lambda match: f"${names.index(match[1]) + 1}", statement)
    types = ", ".join(TYPES[name] for name in names)
    db.execute(f"prepare page ({types}) as {numbered}".encode())
    db.execute("drop table if exists asked")
    db.execute("create temp table asked as select %s::text[] as names", (names,))


def plan(db: Db, **wanted: Any) -> dict[str, Any]:
    """What a page of Alice's did, by a plan that knows no values."""
    row = db.execute("select names from asked").fetchone()
    assert row is not None
    arguments = {"recipient_id": "alice", "limit": 21, "archived": False, "newer": False} | wanted
    values = [arguments.get(name) for name in row[0]]
    literals = ", ".join(psycopg.sql.Literal(value).as_string(db) for value in values)
    found = db.execute(
        f"explain (analyze, buffers, format json) execute page ({literals})".encode()
    ).fetchone()
    assert found is not None
    return dict(found[0][0]["Plan"])


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All that were run."""
    if node.get("Actual Loops"):
        yield node
        for inner in node.get("Plans", ()):
            yield from nodes(inner)


def buffers(node: dict[str, Any]) -> int:
    return int(node["Shared Hit Blocks"]) + int(node["Shared Read Blocks"])


def indexes(node: dict[str, Any]) -> set[str]:
    """Those of notifications that it walked along; fails where it went through a whole table of theirs."""
    assert not [
        each
        for each in nodes(node)
        if each["Node Type"] in {"Seq Scan", "Bitmap Heap Scan"}
        and each.get("Relation Name") in {"notification", "event"}
    ]
    names = {each["Index Name"] for each in nodes(node) if "Index Name" in each}
    return {name for name in names if name.startswith("notification_")}


def replace(db: Db, statement: str) -> None:
    db.execute("deallocate page")
    prepare(db, statement)


def scans(db: Db, counter: LiteralString = "numscans") -> dict[str, int]:
    """How often this session looked into each index of notifications but the primary key, in this transaction.

    With "tuples_returned", how many entries it read there. What functions do counts too.
    """
    rows = db.execute(
        f"select c.relname, pg_stat_get_xact_{counter}(c.oid)"
        " from pg_index i join pg_class c on c.oid = i.indexrelid"
        " where i.indrelid = 'tocsin.notification'::regclass and not i.indisprimary"
    )
    return dict(rows.fetchall())


def test_a_page_without_filter_walks_along_the_inbox(stocked: Db) -> None:
    assert indexes(plan(stocked)) == {"notification_inbox"}


def test_a_deep_page_reads_no_more_than_the_first(stocked: Db) -> None:
    row = stocked.execute(
        "select created_at, notification_id from tocsin.notification where event_id = 100 and recipient_id = 'alice'"
    ).fetchone()
    assert row is not None
    plan(stocked)  # reads the catalogue too
    first, deep = plan(stocked), plan(stocked, at=row[0], id=row[1])
    assert deep["Actual Rows"] == first["Actual Rows"] == 21
    assert buffers(deep) <= 2 * buffers(first)  # the pages before it are a hundred times as many


@pytest.mark.parametrize("newer", [False, True], ids=["older", "newer"])
@pytest.mark.parametrize(
    ("wanted", "read", "found"),
    [
        ({"read": False}, {"notification_unread"}, 21),
        ({"read": True}, {"notification_read"}, 1),
        ({"category": "billing"}, {"notification_unread", "notification_read"}, 3),
        ({"event_type": "forum.mention"}, {"notification_unread", "notification_read"}, 0),
        ({"category": "forum", "read": True}, {"notification_read"}, 1),
        ({"subject": "forum.thread:42"}, {"notification_subject"}, 2),
    ],
    ids=["unread", "read", "rare category", "type without any", "category and read", "subject"],
)
def test_what_a_filter_asks_for_is_found_without_a_search(
    stocked: Db, wanted: dict[str, Any], read: set[str], found: int, newer: bool
) -> None:
    replace(stocked, FILTERED)
    if newer:
        wanted = wanted | {"newer": True, "at": datetime(2000, 1, 1, tzinfo=UTC), "id": 0}
    plan(stocked, **wanted)  # planning looks into indexes too
    with stocked.transaction():
        before = scans(stocked)
        done = plan(stocked, **wanted)
        after = scans(stocked)
    assert {name for name, count in after.items() if count > before[name]} == read
    assert buffers(done) < 300  # of some 400 that Alice's rows take, by their index more
    assert done["Actual Rows"] == max(found, 1)  # one row at least, for the snapshot


@pytest.mark.parametrize("newer", [False, True])
def test_a_page_of_the_archive_reads_no_more_than_it_needs(stocked: Db, newer: bool) -> None:
    stocked.execute(
        "update tocsin.notification set archived_at = now() where recipient_id = 'alice' and event_id % 2 = 0"
    )
    stocked.execute("vacuum analyze tocsin.notification")
    replace(stocked, FILTERED)
    row = stocked.execute(
        "select created_at, notification_id from tocsin.notification where event_id = 3000 and recipient_id = 'alice'"
    ).fetchone()
    assert row is not None
    page = {"at": row[0], "id": row[1], "newer": newer, "archived": True, "limit": 2}
    plan(stocked, **page)  # reads the catalogue for the plan of the function
    done = plan(stocked, **page)
    assert done["Actual Rows"] == 2
    assert buffers(done) < 70  # of some 3,000 rows that are archived


# the newest 5,980 and 20,000 older ones of one thread, then ten of a thread each and ten of none
LARGE_GROUP = """
update tocsin.notification set subject = 'forum.thread:7', read_at = null
where recipient_id = 'alice' and event_id > 20;
update tocsin.notification
set created_at = now() - interval '2 years', subject = case when event_id > 10 then 'event:' || event_id end
where recipient_id = 'alice' and event_id <= 20;
insert into tocsin.notification (event_id, recipient_id, event_type, created_at, in_inbox, decisions, subject)
select i, 'alice', 'forum.new_reply', now() - interval '1 year' + i * interval '1 second', true, '{}', 'forum.thread:7'
from generate_series(10001, 30000) i;
vacuum analyze tocsin.notification
"""


def test_a_page_of_groups_does_not_read_the_whole_of_a_large_group(stocked: Db) -> None:
    for statement in LARGE_GROUP.split(";\n"):
        stocked.execute(statement.encode())
    replace(stocked, GROUPED)
    plan(stocked)
    with stocked.transaction():
        before = scans(stocked, "tuples_returned")
        done = plan(stocked)
        after = scans(stocked, "tuples_returned")
    assert done["Actual Rows"] == 21
    # of the group the newest 300, twice, and the 1,001 that are counted
    assert sum(count - before[name] for name, count in after.items()) < 3000
