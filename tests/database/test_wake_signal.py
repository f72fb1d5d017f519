"""The wake-up signal: a transaction that sends one announces its recipients too; others announce nobody."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from tests.support.services import LONGEST
from tocsin.engine.store.dispatch import LeaderSession

Db = psycopg.Connection[Any]

PENDING = "select tocsin.notify_email('new@example.org', 'event.invited', 'x')"
FIRST = "(select min(notification_id) from tocsin.notification where recipient_id = 'alice')"
MARKED = "(select read_at from tocsin.mark_all_read('alice', null, null, null))"
ARCHIVED = "(select archived_at from tocsin.archive_all('alice', null, null, null, null, null))"
MOVERS = {
    "notify": "select tocsin.notify('forum.new_thread', array['alice'], 'x')",
    "notify of several": "select tocsin.notify('forum.new_thread', array['alice', 'bob'], 'x')",
    "notify of a topic": "select tocsin.notify_topic('forum.thread:1', 'forum.new_reply', 'x')",
    "notify by address": "select tocsin.notify_email('alice@example.org', 'forum.new_reply', 'x')",
    "cancel": "select tocsin.cancel((select min(event_id) from tocsin.event))",
    "claim": "select tocsin.claim_email('new@example.org', 'alice')",
    "read": f"select tocsin.mark_read('alice', {FIRST}, true)",
    "all read": "select tocsin.mark_all_read('alice', null, null, null)",
    "undo": f"select tocsin.undo_mark_all_read('alice', {MARKED})",
    "archive": f"select tocsin.archive('alice', {FIRST})",
    "unarchive": f"select tocsin.archive('alice', {FIRST}), tocsin.unarchive('alice', {FIRST})",
    "archive all": "select tocsin.archive_all('alice', null, null, null, null, null)",
    "undo archive all": f"select tocsin.undo_archive_all('alice', {ARCHIVED})",
    "seen": "select tocsin.mark_seen('alice', null)",
}


@pytest.fixture(autouse=True)
def people(db: Db) -> None:
    db.execute("select tocsin.upsert_recipient('alice', 'alice@example.org')")
    db.execute("select tocsin.upsert_recipient('bob')")
    db.execute("select tocsin.subscribe('alice', 'forum.thread:1')")
    db.execute("select tocsin.notify('forum.new_thread', array['alice'], 'first')")
    db.execute(PENDING)


@pytest.fixture
def listener(dsn: str) -> Iterator[Db]:
    """Receives what is announced to the streams."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("listen tocsin_badge")
        yield connection


def announced(db: Db, listener: Db) -> list[str]:
    """Returns what was announced until now: notices arrive in the order of the commits."""
    db.execute("select pg_notify('tocsin_badge', 'the end')")
    payloads: list[str] = []
    for notice in listener.notifies(timeout=LONGEST):
        if notice.payload == "the end":
            return payloads
        payloads.append(notice.payload)
    raise AssertionError(payloads)


@pytest.mark.parametrize("mover", MOVERS)
def test_a_changed_inbox_is_announced_by_its_transaction_while_the_leader_is_idle(
    db: Db, listener: Db, mover: str
) -> None:
    listener.execute("select tocsin.start_idle()")
    db.execute(MOVERS[mover])
    assert {"alice"} <= {
        each for payload in announced(db, listener) for each in json.loads(payload)
    }


@pytest.mark.parametrize("mover", MOVERS)
def test_nothing_is_sent_to_a_leader_that_is_active(db: Db, listener: Db, mover: str) -> None:
    db.execute(MOVERS[mover])
    assert announced(db, listener) == []


def test_an_event_for_later_moves_nobody_yet(db: Db, listener: Db) -> None:
    listener.execute("select tocsin.start_idle()")
    db.execute(
        "select tocsin.notify_topic('forum.thread:1', 'forum.new_reply', 'x', send_at => now() + interval '1 hour')"
    )
    assert announced(db, listener) == []


def test_a_crowd_of_long_names_goes_in_payloads_that_notify_takes(db: Db, listener: Db) -> None:
    crowd = [f"{number:03}" + 'é"\\' * 65 for number in range(300)]
    listener.execute("select tocsin.start_idle()")
    db.execute("select tocsin.wake(%s)", (crowd,))
    payloads = announced(db, listener)
    assert len(payloads) > 1
    assert sorted(each for payload in payloads for each in json.loads(payload)) == crowd


def test_very_many_are_everyone(db: Db, listener: Db) -> None:
    listener.execute("select tocsin.start_idle()")
    db.execute("select tocsin.wake(array(select 'p' || i from generate_series(1, 5001) i))")
    assert announced(db, listener) == ["*"]


def test_a_scan_makes_the_leader_idle_once_no_transaction_is_under_way(
    db: Db, dsn: str, listener: Db
) -> None:
    scan = "select idle from tocsin.scan(null, true, true)"
    with psycopg.connect(dsn) as app:
        app.execute(MOVERS["notify"])
        assert listener.execute(scan).fetchone() == (False,)
        app.commit()
    announced(db, listener)
    assert listener.execute(scan).fetchone() == (True,)
    announced(db, listener)
    db.execute(MOVERS["read"])
    assert announced(db, listener) == ['["alice"]']


async def test_signals_that_come_with_the_result_of_a_scan_are_counted(db: Db, dsn: str) -> None:
    leader = await LeaderSession.connect(dsn)
    try:
        await leader.listen()
        first = await leader.scan(None, announce=True, start_idle=True)
        assert first.idle
        for _ in range(2):
            db.execute("select tocsin.wake()")
        await leader.scan(first.snapshot, announce=False)
        assert await leader.wait_for_wake(LONGEST) == 2
        assert await leader.wait_for_wake(0.01) == 0
    finally:
        await leader.close()


def test_commits_with_a_signal_that_wait_for_each_other_are_counted(db: Db, dsn: str) -> None:
    def waiting() -> int:
        row = db.execute("select tocsin.commits_waiting()").fetchone()
        assert row is not None
        return int(row[0])

    assert waiting() == 0
    many = (
        "do $$ begin for i in 1..100 loop perform pg_notify('nobody', ''); commit; end loop; end $$"
    )
    with ThreadPoolExecutor() as pool, ExitStack() as stack:
        sessions = [stack.enter_context(psycopg.connect(dsn, autocommit=True)) for _ in range(4)]
        deadline = time.monotonic() + LONGEST
        most = 0
        while not most:
            assert time.monotonic() < deadline, "no commit waited for another"
            busy = [pool.submit(session.execute, many) for session in sessions]
            while not all(each.done() for each in busy):
                most = max(most, waiting())
    assert 0 < most < len(sessions)  # one of them does not wait
    assert waiting() == 0
