"""notify(): what one SQL call does, and what it refuses."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support.crowd import CROWD
from tests.support.notifying import *  # noqa: F403 - fixtures
from tests.support.notifying import Db, count, decisions, notify, unread, value


def test_each_recipient_gets_one_notification_and_the_initiator_none(db: Db) -> None:
    event_id = notify(db, ["alice", "bob", "alice", "carol"], initiator="bob")
    notified = db.execute("select recipient_id from tocsin.notification order by 1").fetchall()
    assert notified == [("alice",), ("carol",)]
    assert unread(db, "alice") == 1
    assert unread(db, "bob") == 0
    assert value(db, "select initiator_skipped from tocsin.event where event_id = %s", event_id)


def test_rollback_leaves_nothing(db: Db, other: Db) -> None:
    notify(other, ["alice"], idempotency_key="k")
    assert unread(other, "alice") == 1
    assert unread(db, "alice") == 0
    other.rollback()
    for table in (
        "event",
        "notification",
        "delivery",
        "event_queue",
        "unread_delta",
        "idempotency",
    ):
        assert count(db, table) == 0


def test_unknown_event_type_names_the_nearest(db: Db) -> None:
    with pytest.raises(psycopg.Error) as caught:
        notify(db, ["alice"], "forum.new_repyl")
    assert caught.value.sqlstate == "TC001"
    assert "forum.new_reply" in (caught.value.diag.message_hint or "")
    assert count(db, "event") == 0


def test_unknown_recipients_are_named_and_nothing_is_stored(db: Db) -> None:
    with pytest.raises(psycopg.Error) as caught:
        notify(db, ["alice", "mallory", "trent"])
    assert caught.value.sqlstate == "TC002"
    assert "'mallory', 'trent'" in (caught.value.diag.message_primary or "")
    assert "upsert_recipient" in (caught.value.diag.message_hint or "")
    assert count(db, "notification") == 0


@pytest.mark.parametrize(
    ("field", "named"),
    [
        ("title", {"title": ""}),
        ("title", {"title": "   "}),
        ("title", {"title": "a\nb"}),
        ("title", {"title": "x" * 501}),
        ("body", {"body": "bell\x07"}),
        ("action_url", {"action_url": "javascript:alert(1)"}),
        ("action_url", {"action_url": "//evil.example"}),
        ("action_url", {"action_url": "/\\evil.example"}),
        ("action_url", {"action_url": "https://user@evil.example/"}),
        ("action_url", {"action_url": "/a\nb"}),
        ("metadata", {"metadata": Jsonb([1])}),
        ("metadata", {"metadata": None}),
        ("idempotency_key", {"idempotency_key": ""}),
        ("initiator", {"initiator": ""}),
        ("send_at", {"send_at": "infinity"}),
        ("send_at", {"send_at": "4000-01-01 BC"}),
        ("send_at", {"send_at": "20000-01-01"}),
    ],
)
def test_bad_input_is_refused_with_its_field_and_cure(
    db: Db, field: str, named: dict[str, Any]
) -> None:
    with pytest.raises(psycopg.Error) as caught:
        notify(db, ["alice"], **named)
    assert caught.value.sqlstate == "TC004"
    assert caught.value.diag.column_name == field
    assert caught.value.diag.message_hint
    assert count(db, "event") == 0


@pytest.mark.parametrize(
    ("named", "fault"),
    [
        ({}, None),
        ({"title": "x" * 500}, None),
        ({"title": "x" * 501}, "title"),
        ({"title": None}, "title"),
        ({"title": " \t"}, "title"),
        ({"title": "a\x85b"}, "title"),
        ({"body": "a\tb\r\nc"}, None),
        ({"body": "x" * 100_000}, None),
        ({"body": "x" * 100_001}, "body"),
        ({"body": "a\x7f"}, "body"),
        ({"body": None}, "body"),
        ({"body_html": "x" * 200_000}, None),
        ({"body_html": "x" * 200_001}, "body_html"),
        ({"action_url": "/" + "x" * 1999}, None),
        ({"action_url": "/" + "x" * 2000}, "action_url"),
        ({"action_url": "https://example.com?a#b"}, None),
        ({"action_url": ""}, "action_url"),
        ({"metadata": Jsonb({"a": "x" * 65_000})}, None),
        ({"metadata": Jsonb({"a": "x" * 66_000})}, "metadata"),
        ({"metadata": Jsonb("a")}, "metadata"),
        ({"metadata": Jsonb([])}, "metadata"),
        ({"metadata": None}, "metadata"),
        ({"initiator": "x" * 200}, None),
        ({"initiator": "x\ny"}, "initiator"),
        ({"initiator": "\u200b"}, "initiator"),
        ({"initiator": "Zoë"}, None),
        ({"title": "Größe"}, None),
        ({"title": "\u200bx"}, None),
        ({"title": "\u200b\ufeff"}, "title"),
        ({"title": "a\u2028b"}, "title"),
        ({"action_url": "https://bücher.example/a?b"}, None),
        ({"action_url": "https://[::1"}, "action_url"),
        ({"initiator": "x" * 201}, "initiator"),
        ({"initiator": ""}, "initiator"),
    ],
)
def test_content_is_fine_where_it_has_no_fault(
    db: Db, named: dict[str, Any], fault: str | None
) -> None:
    usual = {"title": "t", "body": "", "body_html": None, "action_url": None}
    content = usual | {"metadata": Jsonb({}), "initiator": None} | named
    found = db.execute(
        "select tocsin.is_valid_content(t, b, h, u, m, i), (tocsin.find_content_fault(t, b, h, u, m, i))[1]"
        " from (select %(title)s::text as t, %(body)s::text as b, %(body_html)s::text as h, %(action_url)s::text as u,"
        " %(metadata)s::jsonb as m, %(initiator)s::text as i) c",
        content,
    ).fetchone()
    assert found is not None
    assert (found[0] is True, found[1]) == (fault is None, fault)


def test_an_array_with_a_null_is_refused(db: Db) -> None:
    with pytest.raises(psycopg.Error, match="null"):
        db.execute("select tocsin.notify('forum.new_reply', array['alice', null], 't')")
    with pytest.raises(psycopg.Error, match="null"):
        db.execute("select tocsin.notify('forum.new_reply', array[null], 't')")


def test_an_array_of_arrays_is_refused(db: Db) -> None:
    with pytest.raises(psycopg.Error, match="more than one dimension") as caught:
        db.execute("select tocsin.notify('forum.new_reply', array[['alice'], ['bob']], 't')")
    assert caught.value.sqlstate == "TC004"
    with pytest.raises(psycopg.Error, match="more than one dimension"):
        db.execute("select tocsin.notify('forum.new_reply', array[['alice']], 't')")


def test_an_array_may_begin_anywhere(db: Db) -> None:
    db.execute("select tocsin.notify('forum.new_reply', '[7:7]={alice}', 't')")
    assert count(db, "notification") == 1


def test_an_event_is_kept_the_same_by_either_way(db: Db) -> None:
    """The usual call has a shorter way, which a key or a second person leaves."""
    given: dict[str, Any] = {
        "body": "b",
        "body_html": "<b>b</b>",
        "action_url": "/a",
        "metadata": Jsonb({"a": 1}),
        "initiator": "carol",
    }
    short, long = (
        notify(db, ["alice"], **given),
        notify(db, ["alice"], **given, idempotency_key="k"),
    )
    rows = db.execute(
        "select to_jsonb(e) - array['event_id', 'xid', 'created_at', 'fanned_out_at', 'expires_at'],"
        " e.fanned_out_at = e.created_at, e.expires_at - e.created_at"
        " from tocsin.event e where event_id in (%s, %s)",
        (short, long),
    ).fetchall()
    assert rows[0] == rows[1]


def test_a_callers_own_settings_change_nothing(db: Db) -> None:
    db.execute("set standard_conforming_strings = off")
    assert notify(db, ["alice"], action_url="/a")
    with pytest.raises(psycopg.Error, match="not an address"):
        db.execute("select tocsin.upsert_recipient('x', 'no address')")


def test_what_commits_after_its_person_was_erased_is_swept(db: Db, other: Db) -> None:
    notify(other, ["alice", "bob"])
    db.execute("select tocsin.erase_recipient('alice')")
    other.commit()
    assert unread(db, "alice") == 1
    assert value(db, "select tocsin.finish_erasures()") == 0  # nothing is still open
    assert unread(db, "alice") == 0
    assert value(db, "select count(*) from tocsin.notification") == 1


def test_somebody_new_by_an_erased_persons_id_finds_nothing_of_theirs(db: Db, other: Db) -> None:
    notify(other, ["alice"])
    db.execute("select tocsin.erase_recipient('alice')")
    other.commit()
    db.execute("select tocsin.upsert_recipient('alice', 'new@example.com')")
    assert unread(db, "alice") == 0
    assert count(db, "notification") == 0
    notify(db, ["alice"])
    assert unread(db, "alice") == 1


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], ["on", "default"]),
        ([("*", False)], ["off", "preference", "*"]),
        ([("*", False), ("forum.*", True)], ["on", "preference", "forum.*"]),
        ([("forum.*", True), ("forum.new_reply", False)], ["off", "preference", "forum.new_reply"]),
        ([("billing.*", False)], ["on", "default"]),
    ],
)
def test_the_nearest_preference_decides(
    db: Db, overrides: list[tuple[str, bool]], expected: list[str]
) -> None:
    for scope, enabled in overrides:
        db.execute(
            "insert into tocsin.preference values ('alice', %s, 'email', %s)", (scope, enabled)
        )
    notify(db, ["alice", "bob"])
    assert decisions(db, "alice")["email"] == expected
    assert decisions(db, "bob")["email"] == ["on", "default"]
    assert count(db, "delivery") == (2 if expected[0] == "on" else 1)


def test_mandatory_channels_stay_on(db: Db) -> None:
    db.execute("insert into tocsin.preference values ('alice', '*', 'email', false)")
    notify(db, ["alice"], "compliance.overdue")
    assert decisions(db, "alice")["email"] == ["on", "mandatory"]


def test_in_app_off_keeps_it_out_of_the_badge(db: Db) -> None:
    db.execute("insert into tocsin.preference values ('alice', 'forum.*', 'in_app', false)")
    notify(db, ["alice"])
    assert unread(db, "alice") == 0
    assert count(db, "notification") == 1


def test_each_negative_decision_has_its_reason(db: Db) -> None:
    db.execute("select tocsin.upsert_recipient('dave')")
    db.execute("select tocsin.upsert_recipient('erin', 'Erin@Example.com')")
    db.execute(
        "insert into tocsin.suppression (address, reason) values ('erin@example.com', 'smtp_550')"
    )
    notify(db, ["alice", "dave", "erin"])
    assert decisions(db, "dave")["email"] == ["off", "no_address"]
    assert decisions(db, "erin")["email"] == ["off", "suppressed"]
    assert decisions(db, "alice")["push"] == ["off", "no_provider"]
    notify(db, ["alice"], "forum.new_thread")
    assert decisions(db, "alice")["email"] == ["off", "default"]


@pytest.mark.parametrize("recipients", [["alice"], ["alice", "bob"]])
def test_a_retired_event_type_notifies_nobody(db: Db, recipients: list[str]) -> None:
    db.execute("update tocsin.event_type set retired_at = now() where event_type = 'forum.mention'")
    with pytest.raises(psycopg.Error) as caught:
        notify(db, recipients, "forum.mention")
    assert caught.value.sqlstate == "TC001"
    assert count(db, "event") == 0


def test_open_transactions_to_one_person_never_wait(db: Db, other: Db, dsn: str) -> None:
    notify(db, ["alice"])
    notify(other, ["alice", "bob"])
    with psycopg.connect(dsn) as third:
        third.execute("set statement_timeout = '60s'")
        notify(third, ["bob", "alice"])
        assert (
            value(third, "select marked from tocsin.mark_all_read('alice', null, null, null)") == 2
        )
        assert value(third, "select tocsin.mark_read('bob', 0, true)") is False
        third.commit()
    other.commit()
    assert unread(db, "alice") == 1
    assert unread(db, "bob") == 2


def test_overlapping_fan_outs_do_not_deadlock(db: Db, dsn: str) -> None:
    people = [f"p{i}" for i in range(200)]
    db.execute("insert into tocsin.recipient (recipient_id) select unnest(%s::text[])", (people,))
    failures: list[BaseException] = []

    def fan_out(order: int) -> None:
        try:
            with psycopg.connect(dsn) as connection:
                for _ in range(10):
                    notify(connection, people[::order])
                    notify(connection, people[::-order])
                    connection.commit()
        except psycopg.Error as error:
            failures.append(error)

    threads = [threading.Thread(target=fan_out, args=(order,)) for order in (1, -1, 1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert unread(db, "p7") == 80


@pytest.mark.crowd
def test_a_crowd_is_one_call(db: Db) -> None:
    db.execute(
        "insert into tocsin.recipient (recipient_id, email)"
        " select 'n' || i, 'n' || i || '@example.com' from generate_series(1, %s) i",
        (CROWD,),
    )
    db.execute("insert into tocsin.preference values ('n7', '*', 'email', false)")
    people = [f"n{i}" for i in range(1, CROWD + 1)]
    notify(db, people, "bulletin.new_org")
    assert count(db, "notification") == CROWD
    assert count(db, "delivery") == CROWD - 1
    assert count(db, "event_queue") == 1
    assert count(db, "event") == 1
    assert unread(db, people[-1]) == 1


def test_the_app_role_can_call_and_nothing_else(db: Db, dsn: str) -> None:
    db.execute("drop role if exists shop")
    db.execute("create role shop login password 'shop'")
    db.execute("grant tocsin_app to shop")
    try:
        with psycopg.connect(dsn, user="shop", password="shop", autocommit=True) as shop:
            shop.execute("select tocsin.upsert_recipient('zoe', 'zoe@example.com')")
            event_id = notify(shop, ["zoe"], idempotency_key="k")
            assert unread(shop, "zoe") == 1
            assert value(shop, "select tocsin.cancel(%s)", event_id) == 1
            for statement in (
                "select * from tocsin.notification",
                "select * from tocsin.secret",
                "insert into tocsin.preference values ('zoe', '*', 'email', false)",
                (
                    "select tocsin.create_event('role:other', 'forum.new_reply', array['zoe'], null, null, 't', '',"
                    " null, '{}', null, null, null, null)"
                ),
                "select tocsin.mark_read('zoe', 1, true)",
                "select tocsin.erase_personal_data('zoe', '{}', now())",
                "select * from tocsin_queue.procrastinate_jobs",
                "create table tocsin.mine (a int)",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    shop.execute(statement)
            assert value(db, "select caller from tocsin.event") == "role:shop"
            # a hostile search_path of the caller's own changes nothing
            shop.execute("create temp table pg_class (a int)")
            shop.execute("set search_path = pg_temp")
            assert notify(shop, ["zoe"])
            shop.execute("drop table pg_temp.pg_class")
    finally:
        db.execute("drop role shop")


def test_upsert_leaves_what_is_null(db: Db) -> None:
    db.execute("select tocsin.upsert_recipient('alice', timezone => 'Europe/Rome')")
    db.execute("select tocsin.upsert_recipient('alice', name => 'Alice L.')")
    row = db.execute(
        "select email, name, timezone from tocsin.recipient where recipient_id = 'alice'"
    ).fetchone()
    assert row == ("alice@example.com", "Alice L.", "Europe/Rome")


@pytest.mark.parametrize(
    ("field", "named"),
    [
        ("email", "email => 'nobody'"),
        ("email", "email => 'a@b, c@d'"),
        ("email", "email => E'a@b\\r\\nBcc: x@y'"),
        ("timezone", "timezone => 'Mars/Olympus'"),
        ("timezone", "timezone => 'FOO+3'"),
        ("locale", "locale => 'english please'"),
        ("name", "name => E'a\\nb'"),
    ],
)
def test_a_recipient_that_cannot_be_is_refused(db: Db, field: str, named: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        db.execute(f"select tocsin.upsert_recipient('frank', {named})")
    assert caught.value.sqlstate == "TC004"
    assert caught.value.diag.column_name == field


def test_the_functions_of_an_inbox_change_ones_own_alone(db: Db) -> None:
    notify(db, ["alice"])
    theirs = value(db, "select notification_id from tocsin.notification")
    assert value(db, "select tocsin.mark_read('bob', %s, true)", theirs) is False
    assert value(db, "select tocsin.archive('bob', %s)", theirs) is False
    assert value(db, "select marked from tocsin.mark_all_read('bob', null, null, null)") == 0
    assert unread(db, "alice") == 1
    assert unread(db, "bob") == 0
    at = value(db, "select read_at from tocsin.mark_all_read('alice', null, null, null)")
    assert value(db, "select tocsin.undo_mark_all_read('bob', %s)", at) == 0
    assert unread(db, "alice") == 0
    assert value(db, "select tocsin.undo_mark_all_read('alice', %s)", at) == 1


@pytest.mark.parametrize(
    ("category", "event_type", "left"),
    [
        (None, None, []),
        ("forum", None, ["messages.new_dm"]),
        (None, "forum.mention", ["forum.new_reply", "messages.new_dm"]),
        ("messages", "forum.mention", ["forum.mention", "forum.new_reply", "messages.new_dm"]),
    ],
)
def test_mark_all_marks_what_its_filters_name(
    db: Db, category: str | None, event_type: str | None, left: list[str]
) -> None:
    for each in ("forum.mention", "forum.new_reply", "messages.new_dm"):
        notify(db, ["alice"], each)
    db.execute("select tocsin.mark_all_read('alice', %s, %s, null)", (category, event_type))
    found = db.execute(
        "select event_type from tocsin.notification where read_at is null order by event_type"
    )
    assert [each for (each,) in found.fetchall()] == left
    assert unread(db, "alice") == len(left)


def test_mark_all_leaves_what_is_archived(db: Db) -> None:
    notify(db, ["alice"])
    db.execute("select tocsin.archive('alice', (select notification_id from tocsin.notification))")
    assert value(db, "select marked from tocsin.mark_all_read('alice', null, null, null)") == 0
    assert unread(db, "alice") == 0


@pytest.mark.parametrize("recipients", [["alice"], ["alice", "bob"]])
def test_a_disabled_device_gets_no_push_beside_a_live_one(db: Db, recipients: list[str]) -> None:
    db.execute("update tocsin.channel set available = true where channel = 'push'")
    db.execute(
        "insert into tocsin.device (token, recipient_id, platform, provider, disabled_at)"
        " values ('live', 'alice', 'ios', 'apns', null), ('dead', 'alice', 'ios', 'apns', now())"
    )
    notify(db, recipients, "messages.new_dm")
    pushed = db.execute(
        "select d.token from tocsin.delivery join tocsin.device d using (device_id)"
    )
    assert pushed.fetchall() == [("live",)]
