"""The plans of claim, presend check and settle: the cost depends on what they are given, not on what else is due."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tocsin.engine.model import Claimed
from tocsin.engine.store.database import Database, to_array
from tocsin.sql import load

QUERIES = load("delivery")
CLAIM = UUID(int=1)
# 6,000 that are over, and 3,000 under way: by the statistics almost nothing is due
STOCK = """
insert into tocsin.recipient (recipient_id, email)
select 'p' || i, 'p' || i || '@example.com' from generate_series(1, 300) i;
insert into tocsin.event (event_id, event_type, title, body, metadata, caller, created_at, fanned_out_at)
select i, 'forum.new_reply', 'x', '', '{}', 'role:app', now(), now() from generate_series(1, 30) i;
insert into tocsin.notification (event_id, recipient_id, event_type, created_at, in_inbox, decisions)
select e, 'p' || i, 'forum.new_reply', now(), false, '{"email": ["on", "default"]}'
from generate_series(1, 30) e cross join generate_series(1, 300) i;
insert into tocsin.delivery (notification_id, event_id, recipient_id, channel, state, created_at, settled_at)
select n.notification_id, n.event_id, n.recipient_id, 'email', 'sent', now(), now()
from tocsin.notification n
where n.event_id <= 20;
analyze tocsin.notification, tocsin.event, tocsin.event_type, tocsin.delivery, tocsin.recipient;
insert into tocsin.delivery (notification_id, event_id, recipient_id, channel, state, created_at, claim)
select
    n.notification_id,
    n.event_id,
    n.recipient_id,
    'email',
    case when n.event_id <= 25 then 'queued' else 'sending' end::tocsin.delivery_state,
    now(),
    case when n.event_id > 25 then '00000000-0000-0000-0000-000000000001'::uuid end
from tocsin.notification n
where n.event_id > 20;
insert into tocsin.lease (channel, claim, delivery_ids, until)
select 'email', d.claim, array_agg(d.delivery_id), now() + interval '30 s'
from tocsin.delivery d
where d.claim is not null
group by d.claim
"""


@pytest.fixture
def stocked(db: Db) -> Db:
    for statement in STOCK.split(";\n"):
        db.execute(statement.encode())
    # how so small a table would be read
    db.execute("set enable_seqscan = off")
    db.execute("set enable_mergejoin = off")
    return db


def statement_of(db: Db, function: str) -> str:
    """The first statement of a plpgsql function, with its arguments as placeholders."""
    row = db.execute(
        "select prosrc, proargnames, proargtypes::regtype[]::text[] from pg_proc"
        " where pronamespace = 'tocsin'::regnamespace and proname = %s",
        (function,),
    ).fetchone()
    assert row is not None
    source, names, types = row
    text = re.sub(
        r"^ *into .*$", "", source.split("begin\n")[1].split(";\n")[0], flags=re.MULTILINE
    )
    for name, kind in zip(names, types, strict=True):
        text = re.sub(rf"\b{name}\b", f"%({name.removeprefix('_')})s::{kind}", text)
    return str(text)


def touched(db: Db, name: str, *, text: str | None = None, **arguments: Any) -> dict[str, float]:
    """Rows of `delivery` that each of its indexes gave, whether they were kept or not."""
    with psycopg.ClientCursor(db) as cursor:
        text = text or re.sub(r"%\((\w+)\)s", r"%(\1)s", QUERIES[name])
        cursor.execute(f"explain (analyze, format json) {text}".encode(), arguments)
        row = cursor.fetchone()
    assert row is not None
    found: dict[str, float] = {}
    for node in nodes(row[0][0]["Plan"]):
        if node.get("Relation Name") == "delivery" and "Scan" in node["Node Type"]:
            rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            index = node.get("Index Name", node["Node Type"])
            found[index] = found.get(index, 0) + rows * node["Actual Loops"]
    return found


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for inner in node.get("Plans", ()):
        yield from nodes(inner)


def ids(db: Db, state: str, count: int) -> list[int]:
    rows = db.execute(
        "select delivery_id from tocsin.delivery where state = %s order by delivery_id limit %s",
        (state, count),
    )
    return [row[0] for row in rows]


def test_a_presend_check_reads_what_it_checks(stocked: Db) -> None:
    checked = ids(stocked, "sending", 100)
    found = touched(
        stocked,
        "presend_check",
        delivery_ids=checked,
        claims=[CLAIM] * 100,
        contents=[""] * 100,
    )
    assert found == {"delivery_pkey": 100}


def test_a_claim_reads_what_it_claims(stocked: Db) -> None:
    queued = ids(stocked, "queued", 100)
    found = touched(
        stocked,
        "claim",
        delivery_ids=queued,
        others=[queued[-1] + 1],
        mergeable=[queued[-1], queued[-1] + 1],
        channel="email",
        claim=UUID(int=2),
        process_id=None,
        lease=timedelta(seconds=30),
        cap=60,
    )
    assert set(found) <= {"delivery_pkey", "delivery_burst"}
    assert found["delivery_pkey"] <= 301  # found, updated, checked, and the other one


def test_who_is_the_same_person_is_read_by_the_job(stocked: Db) -> None:
    queued = ids(stocked, "queued", 500)
    assert touched(stocked, "find_mergeable", delivery_ids=queued) == {"delivery_pkey": 500}


def test_settling_reads_what_it_settles(stocked: Db) -> None:
    sent = ids(stocked, "sending", 100)
    many: dict[str, Any] = {
        "delivery_ids": sent,
        "claims": [CLAIM] * 100,
        "addresses": ["p@example.com"] * 100,
        "checked_ats": [datetime.now(UTC)] * 100,
        "provider_ids": ["ok"] * 100,
        "providers": ["mail.example.com:587"] * 100,
    }
    assert touched(stocked, "settle_sent", **many) == {"delivery_pkey": 100}
    many["delivery_ids"] = ids(stocked, "sending", 100)
    nothing = [None] * 100
    found = touched(
        stocked,
        "settle",
        text=statement_of(stocked, "settle"),
        **many,
        states=["deferred"] * 100,
        reasons=["later"] * 100,
        delays=[timedelta(seconds=1)] * 100,
        outcomes=["deferred"] * 100,
        attempt_reasons=nothing,
        dead=[False] * 100,
        dead_sinces=nothing,
    )
    assert found == {"delivery_pkey": 200}


def test_closing_a_lease_reads_what_it_holds(stocked: Db) -> None:
    one = {"channel": "email", "claim": UUID(int=3), "ids": ids(stocked, "queued", 100)}
    stocked.execute(
        "insert into tocsin.lease (channel, claim, delivery_ids, until)"
        " values (%(channel)s, %(claim)s, %(ids)s, now())",
        one,
    )
    assert touched(stocked, "close_leases", job=1, claims=[UUID(int=3)]) == {"delivery_pkey": 100}


def test_an_array_is_read_as_it_was_written(db: Db) -> None:
    values = ["", "a", 'say "no"', "back\\slash\\", "{1,2}", "NULL", None, " a b ", "é,“x”\n", "'"]
    assert db.execute("select %s::text[]", (to_array(values),)).fetchone() == (values,)
    assert db.execute("select %s::text[]", (to_array([]),)).fetchone() == ([],)
    at = datetime(2026, 11, 1, 12, 30, 0, 17, UTC)
    assert db.execute("select %s::timestamptz[]", (to_array([at, None]),)).fetchone() == (
        [at, None],
    )


async def test_json_is_read_whatever_numbers_it_has(dsn: str) -> None:
    database = Database(dsn)
    await database.open()
    try:
        text = f'{{"a": [1, 2.5, 1e400, {10**400}.5, "é"], "b": null}}'
        read = await database.value("select %(text)s::jsonb", text=text)
    finally:
        await database.close()
    assert read == {"a": [1, 2.5, 10**400, float("inf"), "é"], "b": None}


def test_the_columns_of_a_claim_are_the_fields_of_its_struct(db: Db) -> None:
    arguments: dict[str, Any] = {
        "delivery_ids": [],
        "others": [],
        "mergeable": [],
        "channel": "email",
        "claim": CLAIM,
        "process_id": None,
        "lease": timedelta(seconds=30),
        "cap": 60,
    }
    # only then a row is read by position, in a third of the time
    columns = db.execute(QUERIES["claim"], arguments).description or ()
    assert tuple(column.name for column in columns) == Claimed.__struct_fields__
