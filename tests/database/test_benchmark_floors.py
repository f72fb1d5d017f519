"""The floors of the benchmarks store what `notify()` stores now, so that a change of the tables changes them too."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.services import LONGEST

ROOT = Path(__file__).parent.parent.parent
Db = psycopg.Connection[Any]
ROWS = """
    select
        (select to_jsonb(e) from tocsin.event e where e.event_id = %(id)s),
        (select to_jsonb(n) from tocsin.notification n where n.event_id = %(id)s),
        (select jsonb_agg(to_jsonb(d) order by d.channel) from tocsin.delivery d where d.event_id = %(id)s),
        (select jsonb_agg(to_jsonb(q) order by to_jsonb(q)) from tocsin.event_queue q where q.event_id = %(id)s),
        (select count(*) from tocsin.unread_delta)
"""
OWN = {  # what differs between two calls
    *("event_id", "notification_id", "delivery_id", "xid"),
    *("created_at", "fanned_out_at", "expires_at", "caller"),
}


@pytest.fixture
def bench(db: Db, monkeypatch: pytest.MonkeyPatch) -> Iterator[Db]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    floors = importlib.import_module("bench.floors")
    db.execute("update tocsin.channel set available = true")
    db.execute("select tocsin.upsert_recipient('p1', 'p1@example.com')")
    db.execute(
        "insert into tocsin.device (token, recipient_id, platform, provider)"
        " values (repeat('ab', 32), 'p1', 'ios', 'apns')"
    )
    floors.create(db)
    yield db
    db.execute("drop schema bench cascade")


def stored(db: Db, call: str) -> list[Any]:
    row = db.execute(f"select {call}").fetchone()
    assert row is not None
    rows = db.execute(ROWS, {"id": row[0]}).fetchone()
    assert rows is not None
    db.execute("delete from tocsin.unread_delta")
    return [without_own(each) for each in rows]


def without_own(rows: Any) -> Any:
    if isinstance(rows, list):
        return [without_own(each) for each in rows]
    if isinstance(rows, dict):
        return {name: value for name, value in rows.items() if name not in OWN}
    return rows


CALL = "notify('forum.new_reply', array['p1'], 'New reply', 'Bob: yes', '/forums/7', '{\"thread\": 7}')"


def test_the_rows_alone_are_those_of_notify(bench: Db) -> None:
    row = bench.execute("select device_id from tocsin.device").fetchone()
    assert row is not None
    floor = CALL.replace("notify('forum.new_reply', array['p1']", f"insert_only('p1', {row[0]}")

    assert stored(bench, f"bench.{floor}") == stored(bench, f"tocsin.{CALL}")


def test_a_claim_is_measured_by_the_statement_of_the_worker(bench: Db) -> None:
    stored(bench, f"tocsin.{CALL}")
    mails = "select delivery_id from tocsin.delivery where channel = 'email'"
    ids = [each for (each,) in bench.execute(mails).fetchall()]

    claimed = bench.execute(*importlib.import_module("size").claim_of(ids))

    assert len(claimed.fetchall()) == 1


def test_notify_without_the_signal_sends_none_and_stores_the_same(bench: Db, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute("listen tocsin_badge")
        listener.execute("select tocsin.start_idle()")
        silent = stored(bench, f"bench.{CALL}")
        assert list(listener.notifies(timeout=0.2)) == []
        usual = stored(bench, f"tocsin.{CALL}")
        assert [each.payload for each in listener.notifies(timeout=LONGEST, stop_after=1)] == [
            '["p1"]'
        ]

    assert silent == usual
