"""Events that are scheduled or cancelled."""

from __future__ import annotations

import psycopg
import pytest

from tests.support.notifying import *  # noqa: F403 - fixtures
from tests.support.notifying import Db, count, decisions, notify, unread, value


def test_a_scheduled_event_lives_as_long_from_its_own_time_on(db: Db) -> None:
    event_id = notify(db, ["alice"], send_at="2030-01-01 00:00+00")
    db.execute(
        "update tocsin.event set send_at = now(), created_at = created_at - interval '30 days'"
    )
    assert value(db, "select tocsin.fan_out_due_events(10)") == 1
    left = "select e.expires_at - e.fanned_out_at = t.time_to_live from tocsin.event e"
    where = "join tocsin.event_type t using (event_type) where e.event_id = %s"
    assert value(db, f"{left} {where}", event_id) is True


def test_a_scheduled_event_is_nobodys_until_its_time(db: Db) -> None:
    event_id = value(
        db,
        "select tocsin.notify('forum.new_reply', array['alice'], 'Later', send_at => now() + interval '1 hour')",
    )
    assert unread(db, "alice") == 0
    assert value(db, "select tocsin.fan_out_due_events(10)") == 0
    db.execute("update tocsin.event set send_at = now() where event_id = %s", (event_id,))
    db.execute("insert into tocsin.preference values ('alice', '*', 'email', false)")
    assert value(db, "select tocsin.fan_out_due_events(10)") == 1
    assert unread(db, "alice") == 1
    assert decisions(db, "alice")["email"] == ["off", "preference", "*"]


def test_a_scheduled_event_that_is_cancelled_never_was(db: Db) -> None:
    event_id = value(
        db,
        "select tocsin.notify('forum.new_reply', array['alice'], 'Later', send_at => now() + interval '1 hour')",
    )
    assert value(db, "select tocsin.cancel(%s)", event_id) == 0
    db.execute("update tocsin.event set send_at = now()")
    assert value(db, "select tocsin.fan_out_due_events(10)") == 0
    assert count(db, "notification") == 0


def test_cancel_stops_deliveries_and_empties_inbox_and_badge(db: Db) -> None:
    notify(db, ["alice"])
    event_id = notify(db, ["alice", "bob"])
    assert value(db, "select tocsin.cancel(%s)", event_id) == 2
    assert unread(db, "alice") == 1
    assert unread(db, "bob") == 0
    shown = "select count(*) from tocsin.notification where in_inbox and event_id = %s"
    assert value(db, shown, event_id) == 0
    assert value(db, "select tocsin.cancel(%s)", event_id) == 0


def test_cancel_takes_nothing_from_the_badge_of_what_was_read_or_archived(db: Db) -> None:
    notify(db, ["alice", "bob", "carol"])
    event_id = notify(db, ["alice", "bob", "carol"])
    read = (
        "select notification_id from tocsin.notification where event_id = %s and recipient_id = %s"
    )
    db.execute("select tocsin.mark_read('alice', %s, true)", (value(db, read, event_id, "alice"),))
    db.execute("select tocsin.archive('bob', %s)", (value(db, read, event_id, "bob"),))
    assert [unread(db, name) for name in ("alice", "bob", "carol")] == [1, 1, 2]
    db.execute("select tocsin.cancel(%s)", (event_id,))
    assert [unread(db, name) for name in ("alice", "bob", "carol")] == [1, 1, 1]
    at = value(db, "select cancelled_at from tocsin.event where event_id = %s", event_id)
    db.execute("select tocsin.cancel(%s)", (event_id,))
    assert [unread(db, name) for name in ("alice", "bob", "carol")] == [1, 1, 1]
    assert value(db, "select cancelled_at from tocsin.event where event_id = %s", event_id) == at


def test_cancel_leaves_what_is_being_sent_and_waits_for_nobody(db: Db, other: Db) -> None:
    event_id = notify(db, ["alice", "bob", "carol"])
    db.execute("update tocsin.delivery set state = 'sending' where recipient_id = 'alice'")
    other.execute("select from tocsin.delivery where recipient_id = 'bob' for update")
    db.execute("set lock_timeout = '1s'")
    assert value(db, "select tocsin.cancel(%s)", event_id) == 1
    assert dict(db.execute("select recipient_id, state::text from tocsin.delivery").fetchall()) == {
        "alice": "sending",
        "bob": "queued",
        "carol": "cancelled",
    }


def test_cancelling_what_is_not_there_is_an_error(db: Db) -> None:
    with pytest.raises(psycopg.Error, match="no event 42"):
        db.execute("select tocsin.cancel(42)")
