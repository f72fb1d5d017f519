"""People without an account: notified by an address, until it is claimed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.support.pages_read import pages_read
from tocsin.sql import load

Db = psycopg.Connection[Any]
ZOE = "zoe@example.com"


@pytest.fixture
def other(dsn: str) -> Iterator[Db]:
    """Another app's connection, in a transaction of its own; it waits for nobody."""
    with psycopg.connect(dsn) as connection:
        connection.execute("set lock_timeout = '1s'")
        connection.commit()
        yield connection


def value(db: Db, statement: str, *arguments: Any) -> Any:
    row = db.execute(statement, arguments).fetchone()
    return row[0] if row else None


def invite(db: Db, email: str = ZOE, event_type: str = "event.invited", **named: Any) -> int:
    arguments = {"title": "Join us", **named}
    listed = ", ".join(f"{name} => %({name})s" for name in arguments)
    row = db.execute(
        f"select tocsin.notify_email(%(email)s, %(event_type)s, {listed})",
        {"email": email, "event_type": event_type, **arguments},
    ).fetchone()
    assert row is not None
    return int(row[0])


def person(db: Db, id_: str = "zoe", email: str | None = None) -> None:
    db.execute("select tocsin.upsert_recipient(%s, %s)", (id_, email))


def claim(db: Db, email: str = ZOE, recipient: str = "zoe") -> int:
    return int(value(db, "select tocsin.claim_email(%s, %s)", email, recipient))


def unread(db: Db, recipient: str = "zoe") -> int:
    return int(value(db, "select tocsin.unread_count(%s)", recipient))


def decisions(db: Db, event_id: int) -> Any:
    return value(db, "select decisions from tocsin.notification where event_id = %s", event_id)


def assign_invitations(db: Db, since: str | None = None) -> int:
    """What the listener does: looks for what was committed, and hands it over."""
    addresses = value(db, "select tocsin.assignable_since(%s::pg_snapshot)", since)
    return int(value(db, "select assigned from tocsin.assign_invitations(%s)", addresses))


def snapshot(db: Db) -> str:
    return str(value(db, "select pg_current_snapshot()::text"))


def test_an_address_without_an_account_gets_a_mail_and_nothing_else(db: Db) -> None:
    event_id = invite(db, "Zoe@Example.com", "forum.new_thread")
    assert decisions(db, event_id) == {
        "in_app": ["off", "no_account"],
        "email": ["on", "invited"],  # though the type's default is the inbox alone
        "push": ["off", "no_account"],
    }
    row = db.execute(
        "select n.recipient_id, n.address, n.in_inbox, d.recipient_id, d.channel, l.priority"
        " from tocsin.notification n join tocsin.delivery d using (notification_id)"
        " join tocsin.event_queue l on l.event_id = n.event_id"
    ).fetchall()
    assert row == [(None, ZOE, False, None, "email", 1)]


@pytest.mark.parametrize(
    "email", [None, "", "zoe", "zoe@", "a@b, c@d", "a@b\r\nBcc: c@d", f"{'x' * 250}@b.de"]
)
def test_what_is_no_address_is_refused_by_both(db: Db, email: str | None) -> None:
    person(db)
    for statement in (
        "select tocsin.notify_email(%s, 'event.invited', 'x')",
        "select tocsin.claim_email(%s, 'zoe')",
    ):
        with pytest.raises(psycopg.Error) as caught:
            db.execute(statement, (email,))
        assert caught.value.sqlstate == "TC004"
        assert caught.value.diag.column_name == "email"
    assert value(db, "select count(*) from tocsin.event") == 0


def test_an_address_of_a_recipient_is_an_ordinary_notification_to_the_first_of_them(db: Db) -> None:
    person(db, "first", "zoe@Bücher.example")
    person(db, "second", "ZOE@xn--bcher-kva.example")
    invite(db, "Zoe@BÜCHER.example")
    assert (unread(db, "first"), unread(db, "second")) == (1, 0)
    assert value(db, "select recipient_id from tocsin.delivery") == "first"


def test_a_claimed_address_brings_its_notifications_with_their_own_times(db: Db) -> None:
    first, second = invite(db, "Zoe@example.com"), invite(db, "ZOE@EXAMPLE.COM")
    invite(db, "somebody.else@example.com")
    times = db.execute(
        "select created_at from tocsin.event where event_id <= %s", (second,)
    ).fetchall()
    person(db)
    assert claim(db, "zoe@Example.com") == 2
    assert unread(db) == 2
    rows = db.execute(
        "select created_at from tocsin.notification_item where recipient_id = 'zoe' and listed"
        " and not read order by created_at"
    ).fetchall()
    assert rows == times
    assert decisions(db, first)["in_app"] == ["on", "claimed"]
    assert (claim(db), unread(db), assign_invitations(db)) == (0, 2, 0)


def test_a_claim_stands_for_what_comes_later(db: Db) -> None:
    person(db, "zoe", "other@example.com")
    assert claim(db) == 0
    event_id = invite(db)
    assert unread(db) == 1
    assert decisions(db, event_id)["email"] == ["on", "default"]
    assert value(db, "select recipient_id from tocsin.delivery") == "zoe"


def test_a_claim_is_stronger_than_a_recipients_address_and_the_later_claim_than_the_earlier(
    db: Db,
) -> None:
    person(db, "old", ZOE)
    person(db, "zoe")
    person(db, "heir")
    claim(db)
    invite(db)
    claim(db, ZOE, "heir")
    invite(db)
    assert [unread(db, each) for each in ("old", "zoe", "heir")] == [0, 1, 1]


def test_a_claim_for_nobody_is_refused(db: Db) -> None:
    with pytest.raises(psycopg.Error) as caught:
        claim(db, ZOE, "nobody")
    assert caught.value.sqlstate == "TC002"
    assert "upsert_recipient" in (caught.value.diag.message_hint or "")


def test_both_in_one_transaction_are_there_at_its_commit_and_never_were_at_its_rollback(
    db: Db, other: Db
) -> None:
    for commit in (False, True):
        person(other)
        invite(other)
        assert claim(other) == 1
        assert unread(other) == 1
        assert unread(db) == 0
        other.commit() if commit else other.rollback()
    assert unread(db) == 1
    assert value(db, "select count(*) from tocsin.notification") == 1


def test_an_invitation_that_commits_after_the_claim_is_handed_over(db: Db, other: Db) -> None:
    person(db)
    before = snapshot(db)
    invite(other)
    assert claim(db) == 0
    assert assign_invitations(db, before) == 0
    since = snapshot(db)
    other.commit()
    assert unread(db) == 0
    assert assign_invitations(db, since) == 1
    assert (unread(db), assign_invitations(db)) == (1, 0)


def test_a_claim_that_commits_after_the_invitation_is_handed_what_it_missed(
    db: Db, other: Db
) -> None:
    person(db)
    assert claim(other) == 0
    invite(db)
    since = snapshot(db)
    assert assign_invitations(db, since) == 0
    other.commit()
    assert assign_invitations(db, since) == 1
    assert (unread(db), assign_invitations(db)) == (1, 0)


def test_an_open_claim_makes_nobody_wait(db: Db, other: Db, dsn: str) -> None:
    person(db)
    invite(db)
    claim(db, "another@example.com")
    assert claim(other) == 1
    with psycopg.connect(dsn, autocommit=True) as third:
        third.execute("set lock_timeout = '5s'")
        invite(third)
        third.execute("select tocsin.notify('event.invited', array['zoe'], 'x')")
        assert claim(third, "another@example.com") == 0
        assert value(third, "select * from tocsin.mark_all_read('zoe', null, null, null)") == 1
        assert assign_invitations(third) == 0
        # the listener makes jobs of it meanwhile
        third.execute(
            "select tocsin.dispatch_event_queues('email', 1::smallint, array_agg(event_id), array_agg(0), 10, '1 min')"
            " from tocsin.event"
        )
    other.commit()
    assert assign_invitations(db) == 1
    assert unread(db) == 2


def test_two_open_claims_of_two_people_end_with_one_owner(db: Db, other: Db, dsn: str) -> None:
    person(db)
    person(db, "heir")
    invite(db)
    assert claim(other, ZOE, "heir") == 1
    with psycopg.connect(dsn) as third:
        third.execute("set lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            claim(third)
    other.rollback()
    assert claim(db) == 1
    assert (unread(db), unread(db, "heir")) == (1, 0)


def test_what_an_open_claim_gives_back_is_the_next_ones(db: Db, other: Db) -> None:
    """The claim of one address is held for another, whose transaction rolls back."""
    person(db)
    invite(db)
    other.execute("select from tocsin.notification for update")
    assert claim(db) == 0
    addresses = value(db, "select tocsin.assignable_since(null)")
    assert db.execute("select * from tocsin.assign_invitations(%s)", (addresses,)).fetchone() == (
        0,
        [ZOE],
    )
    other.rollback()
    assert db.execute("select * from tocsin.assign_invitations(%s)", (addresses,)).fetchone() == (
        1,
        [],
    )


def test_what_was_taken_back_is_never_handed_over(db: Db) -> None:
    event_id = invite(db)
    person(db)
    assert value(db, "select tocsin.cancel(%s)", event_id) == 1
    assert (claim(db), assign_invitations(db), unread(db)) == (0, 0, 0)
    assert value(db, "select count(*) from tocsin.inbox_change") == 0


def test_a_cancel_waits_for_an_open_claim_and_then_takes_it_out_of_the_inbox(
    db: Db, other: Db, dsn: str
) -> None:
    event_id = invite(db)
    person(db)
    claim(other)
    cancelling = threading.Thread(target=_cancel, args=(dsn, event_id))
    cancelling.start()
    _wait_for_lock(db)
    other.commit()
    cancelling.join()
    assert unread(db) == 0
    assert value(db, "select in_inbox from tocsin.notification") is False


def test_a_claim_passes_by_what_an_open_cancel_holds(db: Db, other: Db) -> None:
    event_id = invite(db)
    person(db)
    other.execute("select tocsin.cancel(%s)", (event_id,))
    assert claim(db) == 0
    other.commit()
    assert (assign_invitations(db), unread(db)) == (0, 0)


def test_an_initiators_own_address_is_skipped_with_the_reason(db: Db) -> None:
    person(db, "zoe", ZOE)
    event_id = invite(db, "Zoe@example.com", initiator="zoe")
    assert value(db, "select count(*) from tocsin.notification") == 0
    skipped = "select initiator_skipped from tocsin.event where event_id = %s"
    assert value(db, skipped, event_id) is True
    later = invite(db, initiator="zoe", send_at="2030-01-01")
    assert value(db, skipped, later) is False
    db.execute("update tocsin.event set send_at = now() where event_id = %s", (later,))
    assert value(db, "select tocsin.fan_out_due_events(10)") == 1
    assert value(db, skipped, later) is True
    assert value(db, skipped, invite(db, "bob@example.com", initiator="zoe")) is False


def test_an_initiator_that_claims_the_invited_address_is_not_notified(db: Db) -> None:
    person(db)
    invite(db, initiator="zoe")
    assert (claim(db), assign_invitations(db), unread(db)) == (0, 0, 0)


def test_the_inbox_turned_off_stays_off(db: Db) -> None:
    event_id = invite(db)
    person(db)
    db.execute("insert into tocsin.preference values ('zoe', 'event.*', 'in_app', false)")
    assert claim(db) == 1
    assert unread(db) == 0
    assert decisions(db, event_id)["in_app"] == ["off", "preference", "event.*"]


def test_a_scheduled_invitation_notifies_the_owner_of_the_address_at_that_time(db: Db) -> None:
    invite(db, send_at="2030-01-01")
    person(db)
    claim(db)
    db.execute("update tocsin.event set send_at = now()")
    assert value(db, "select tocsin.fan_out_due_events(10)") == 1
    assert unread(db) == 1


def test_a_suppressed_address_is_not_mailed_and_the_reason_is_kept(db: Db) -> None:
    db.execute(
        "insert into tocsin.suppression (address, reason) values ('zoe@xn--bcher-kva.example', 'smtp_550')"
    )
    event_id = invite(db, "zoe@bücher.example")
    assert decisions(db, event_id)["email"] == ["off", "suppressed"]
    assert value(db, "select count(*) from tocsin.delivery") == 0
    db.execute("update tocsin.channel set available = false where channel = 'email'")
    assert decisions(db, invite(db))["email"] == ["off", "no_provider"]


def test_one_key_notifies_an_address_once_however_it_is_spelled(db: Db) -> None:
    first = invite(db, "Zoe@example.com", idempotency_key="k")
    assert invite(db, "zoe@EXAMPLE.com", idempotency_key="k") == first
    with pytest.raises(psycopg.Error) as caught:
        invite(db, "bob@example.com", idempotency_key="k")
    assert caught.value.sqlstate == "TC003"


def test_unsubscribing_an_address_becomes_its_claimants_own_choice(db: Db) -> None:
    db.execute(
        "insert into tocsin.suppression (address, reason) values (%s, 'unsubscribed')", (ZOE,)
    )
    person(db, "zoe", ZOE)
    claim(db)
    assert value(db, "select count(*) from tocsin.suppression") == 0
    rows = db.execute("select scope, channel, enabled from tocsin.preference").fetchall()
    assert rows == [("*", "email", False)]


@pytest.mark.parametrize(("chosen", "enabled"), [("1 hour", False), ("-1 hour", True)])
def test_the_later_choice_stands(db: Db, chosen: str, enabled: bool) -> None:
    person(db)
    db.execute(
        "insert into tocsin.suppression (address, reason) values (%s, 'unsubscribed')", (ZOE,)
    )
    db.execute(
        "insert into tocsin.preference (recipient_id, scope, channel, enabled, updated_at)"
        " values ('zoe', '*', 'email', true, now() - %s::interval)",
        (chosen,),
    )
    claim(db)
    assert value(db, "select enabled from tocsin.preference") is enabled


def test_a_bounced_address_stays_suppressed_when_it_is_claimed(db: Db) -> None:
    db.execute(
        "insert into tocsin.suppression (address, reason) values (%s, 'smtp_550_5.1.1')", (ZOE,)
    )
    person(db)
    claim(db)
    assert value(db, "select reason from tocsin.suppression") == "smtp_550_5.1.1"
    assert value(db, "select count(*) from tocsin.preference") == 0


def test_erasing_a_person_erases_the_notifications_of_their_address(db: Db) -> None:
    person(db, "zoe", ZOE)
    claim(db, "second@example.com")
    db.execute("update tocsin.recipient set email = null")
    invite(db)
    invite(db, send_at="2030-01-01")
    invite(db, "second@example.com")
    invite(db, "bob@example.com")
    db.execute("update tocsin.recipient set email = %s", (ZOE,))
    db.execute("select tocsin.erase_recipient('zoe')")
    assert value(db, "select count(*) from tocsin.address_owner") == 0
    for table in ("event", "notification", "delivery", "event_queue"):
        assert value(db, f"select count(*) from tocsin.{table}") == 1, table


def test_another_persons_invitation_outlives_one_with_the_same_address(db: Db) -> None:
    invite(db)
    person(db, "zoe", ZOE)
    person(db, "twin", ZOE)
    db.execute("select tocsin.erase_recipient('zoe')")
    assert claim(db, ZOE, "twin") == 1


def test_what_nobody_claims_is_cleaned_up(db: Db) -> None:
    invite(db)
    db.execute("update tocsin.notification set created_at = now() - interval '91 days'")
    before = "now() - interval '90 days'"
    assert (
        value(db, f"select deleted from tocsin.clean_up_notifications('-infinity', {before}, 10)")
        == 1
    )
    for table in ("event", "notification", "delivery"):
        assert value(db, f"select count(*) from tocsin.{table}") == 0


def test_in_another_cluster_claims_are_found_again(db: Db) -> None:
    person(db)
    claim(db)
    db.execute("update tocsin.address_owner set xid = '999999999'")
    assert value(db, "select tocsin.reset_foreign_xids()") is True
    assert value(db, "select xid::text from tocsin.address_owner") == "3"


def test_the_look_for_claims_reads_only_what_is_new(db: Db) -> None:
    db.execute(
        "insert into tocsin.notification (event_id, address, event_type, created_at, in_inbox, decisions)"
        " select i, i || '@example.com', 'event.invited', now(), false, '{}' from generate_series(1, 20000) i"
    )
    db.execute("analyze tocsin.notification")
    db.execute(load("dispatch")["configure_planner"])
    since = snapshot(db)
    invite(db)
    look = "select tocsin.assignable_since(%(since)s::pg_snapshot)"
    assert pages_read(db, look, {"since": since}) < 50  # all of it are hundreds


def _cancel(dsn: str, event_id: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("select tocsin.cancel(%s)", (event_id,))


def _wait_for_lock(db: Db) -> None:
    waiting = (
        "select count(*) from pg_stat_activity"
        " where datname = current_database() and wait_event_type = 'Lock'"
    )
    for _ in range(5000):
        if value(db, waiting):
            return
        db.execute("select pg_sleep(0.001)")
    raise AssertionError("nobody waits")
