"""`tocsin restored`: what was sent after a backup is settled from logs, or held, before services start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.forked import run_tocsin
from tocsin.engine.mail.links import make_tag
from tocsin.engine.ops.restored import RestoreError, settle_restored

Db = psycopg.Connection[Any]


def mail(db: Db) -> int:
    """Returns the delivery of a mail that is queued."""
    db.execute("select tocsin.upsert_recipient('alice', 'alice@example.com')")
    row = db.execute(
        "select tocsin.notify('billing.payment_due', array['alice'], 'Due')"
    ).fetchone()
    assert row is not None
    found = db.execute(
        "select delivery_id from tocsin.delivery where event_id = %s and channel = 'email'", row
    ).fetchone()
    assert found is not None
    return int(found[0])


def attempt(delivery_id: int, outcome: str, at: str = "2100-01-01T10:00:00.5Z") -> str:
    return json.dumps(
        {
            "delivery_id": delivery_id,
            "outcome": outcome,
            "provider": "mx:25",
            "event": "attempt",
            "timestamp": at,
        }
    )


def state(db: Db, delivery_id: int) -> Any:
    return db.execute(
        "select state::text, reason from tocsin.delivery where delivery_id = %s", [delivery_id]
    ).fetchone()


def test_what_the_logs_show_as_sent_is_settled(db: Db, dsn: str) -> None:
    first, second, third, refused, older, unknown = (mail(db) for _ in range(6))
    secret = db.execute("select value from tocsin.secret where name = 'link_key'").fetchone()
    assert secret is not None
    worker = [
        f"Mar 01 host tocsin[7]: {attempt(first, 'sent')}\n",
        f"2026-03-01T10:00:00Z [info] attempt channel=email delivery_id={second} outcome=sent\n",
        attempt(refused, "deferred"),
        attempt(older, "sent", "2020-01-01T00:00:00Z"),  # another delivery had this id then
        attempt(999_999, "sent"),
        '{"event": "attempt", broken',
    ]
    server = [f"postfix: 4F: message-id=<delivery-{make_tag(secret[0], third)}@example.com>\n"]
    found = settle_restored(dsn, [worker, server], hold=False)
    assert found.settled == {"email": 3}
    assert found.unknown == {"email": 3}
    for each in (first, second, third):
        assert state(db, each) == ("sent", None)
    for each in (refused, older, unknown):
        assert state(db, each) == ("queued", None)
    attempts = "select outcome, provider from tocsin.attempt where delivery_id = %s"
    assert db.execute(attempts, [first]).fetchall() == [("sent", "mx:25")]


def test_what_may_have_been_sent_is_held_until_it_is_replayed(db: Db, dsn: str) -> None:
    due, later = mail(db), mail(db)
    db.execute(
        "update tocsin.delivery set state = 'deferred', due_at = now() + interval '1 hour' where delivery_id = %s",
        [later],
    )
    found = settle_restored(dsn, [], hold=True)
    assert found.held == {"email": 1}
    assert found.unknown == {}
    assert state(db, due) == ("failed", "restored")
    assert state(db, later) == ("deferred", None)
    db.execute("select tocsin.replay(array[%s]::bigint[], false)", [due])
    assert state(db, due) == ("queued", "replayed")


def test_no_id_of_what_was_lost_is_used_again(db: Db, dsn: str) -> None:
    before = mail(db)
    settle_restored(dsn, [], hold=False)
    assert mail(db) > before + 999_000


def test_scheduled_events_that_are_due_are_named(db: Db, dsn: str) -> None:
    db.execute("select tocsin.upsert_recipient('alice')")
    call = "select tocsin.notify('forum.new_reply', array['alice'], 'Later', send_at => now() + interval '1 hour')"
    row = db.execute(call).fetchone()
    assert row is not None
    assert settle_restored(dsn, [], hold=False).events == []
    db.execute("update tocsin.event set send_at = now() - interval '1 minute'")
    assert settle_restored(dsn, [], hold=False).events == [row[0]]


def test_it_is_refused_while_a_service_runs(db: Db, dsn: str) -> None:
    delivery_id = mail(db)
    db.execute(
        "insert into tocsin.process (process_id, kind, host, pid, version, started_at, reported_at, report)"
        " values (gen_random_uuid(), 'worker', 'there', 7, '1', now(), now(), '{}')"
    )
    with pytest.raises(RestoreError, match="Stop all services first: worker 7 on there"):
        settle_restored(dsn, [[attempt(delivery_id, "sent")]], hold=True)
    assert state(db, delivery_id) == ("queued", None)


def test_the_command_prints_what_it_found(db: Db, dsn: str, tmp_path: Path) -> None:
    sent, _ = mail(db), mail(db)
    log = tmp_path / "worker.log"
    log.write_text(attempt(sent, "sent"))
    environ = {"TOCSIN_DATABASE_URL": dsn}
    done = run_tocsin("restored", "--log", str(log), "--hold", environ=environ)
    assert done.returncode == 0, done.stderr
    assert "Shown as sent by the logs, and settled: 1 email." in done.stdout
    assert "Held, with the reason restored: 1 email." in done.stdout
    assert "Due, and sent when a worker starts: none." in done.stdout
