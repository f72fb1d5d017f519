"""Topics: who follows which at what level, and who is notified of an event of one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

import tocsin
from tests.support.crowd import CROWD
from tests.support.topics import *  # noqa: F403 - fixtures
from tests.support.topics import THREAD, Db, reply, value
from tocsin import notify_topic, subscribe, unsubscribe


@pytest.fixture
def other(dsn: str) -> Iterator[Db]:
    """A second app's connection, in a transaction of its own; nothing may keep it waiting."""
    with psycopg.connect(dsn) as connection:
        connection.execute("set statement_timeout = '60s'")
        connection.commit()
        yield connection


def because(db: Db, event_id: int) -> dict[str, str]:
    """Returns why each person was notified of an event, or was not."""
    return dict(
        db.execute(
            "select recipient_id, because from tocsin.notification where event_id = %s", (event_id,)
        ).fetchall()
    )


def notified(db: Db, event_id: int) -> int:
    return int(value(db, "select tocsin.count_notified(%s)", event_id))


def level(db: Db, recipient: str, topic: str = THREAD) -> tuple[str, str] | None:
    return db.execute(
        "select level, because from tocsin.subscription where recipient_id = %s and topic = %s"
        " order by event_id limit 1",
        (recipient, topic),
    ).fetchone()


def skipped(db: Db, event_id: int) -> bool:
    return bool(
        value(db, "select initiator_skipped from tocsin.event where event_id = %s", event_id)
    )


def test_followers_are_notified_and_nobody_else(db: Db) -> None:
    subscribe(db, "alice", THREAD)
    subscribe(db, "bob", "forum.thread:7")
    event_id = reply(db)
    assert because(db, event_id) == {"alice": "followed"}
    assert tocsin.unread_count(db, "alice") == 1
    assert value(db, "select topic from tocsin.event where event_id = %s", event_id) == THREAD
    assert value(db, "select count(*) from tocsin.delivery") == 1


def test_subscribing_returns_whether_it_changed_anything(db: Db) -> None:
    assert subscribe(db, "alice", THREAD) is True
    assert subscribe(db, "alice", THREAD) is False
    assert subscribe(db, "alice", THREAD, "mentions") is True
    assert subscribe(db, "alice", THREAD, "muted") is True
    assert unsubscribe(db, "alice", THREAD) is True
    assert unsubscribe(db, "alice", THREAD) is False
    assert value(db, "select count(*) from tocsin.subscription") == 0


def test_a_topic_that_nobody_follows_notifies_nobody(db: Db) -> None:
    event_id = reply(db, "nobody/here")
    assert notified(db, event_id) == 0
    assert value(db, "select topic from tocsin.event where event_id = %s", event_id)


def test_a_person_that_muted_it_is_not_notified_and_can_see_why(db: Db) -> None:
    subscribe(db, "alice", THREAD, "muted")
    subscribe(db, "bob", THREAD)
    event_id = reply(db, metadata={"mentions": ["alice"]})
    assert because(db, event_id) == {"alice": "muted", "bob": "followed"}
    assert notified(db, event_id) == 1
    assert tocsin.unread_count(db, "alice") == 0
    decisions = value(db, "select decisions from tocsin.notification where recipient_id = 'alice'")
    assert set(map(tuple, decisions.values())) == {("off", "muted")}


@pytest.mark.parametrize(
    ("event_type", "metadata", "expected"),
    [
        ("forum.new_reply", {}, {"alice": "followed", "bob": "not_mentioned"}),
        ("forum.new_reply", {"mentions": ["bob"]}, {"alice": "followed", "bob": "mentioned"}),
        (
            "forum.new_reply",
            {"mentions": ["alice"]},
            {"alice": "mentioned", "bob": "not_mentioned"},
        ),
        ("forum.new_reply", {"mentions": "bob"}, {"alice": "followed", "bob": "not_mentioned"}),
        (
            "forum.new_reply",
            {"mentions": {"bob": 1}},
            {"alice": "followed", "bob": "not_mentioned"},
        ),
        ("forum.new_reply", {"mentions": [None, 7]}, {"alice": "followed", "bob": "not_mentioned"}),
        ("forum.mention", {}, {"alice": "mentioned", "bob": "mentioned"}),
        ("forum.mention", {"mentions": ["alice"]}, {"alice": "mentioned", "bob": "not_mentioned"}),
        ("messages.group_mention", {}, {"alice": "mentioned", "bob": "mentioned"}),
    ],
)
def test_a_follower_for_mentions_is_notified_of_mentions_only(
    db: Db, event_type: str, metadata: dict[str, Any], expected: dict[str, str]
) -> None:
    subscribe(db, "alice", THREAD)
    subscribe(db, "bob", THREAD, "mentions")
    assert because(db, reply(db, event_type=event_type, metadata=metadata)) == expected


def test_a_mandatory_channel_is_on_even_where_it_is_muted(db: Db) -> None:
    subscribe(db, "alice", THREAD, "muted")
    reply(db, event_type="compliance.overdue")
    decisions = value(db, "select decisions from tocsin.notification")
    assert decisions["email"] == ["on", "mandatory"]
    assert decisions["in_app"] == ["off", "muted"]


def test_the_initiator_is_never_notified(db: Db) -> None:
    subscribe(db, "alice", THREAD)
    subscribe(db, "bob", THREAD)
    event_id = reply(db, initiator="bob", metadata={"mentions": ["bob"]})
    assert because(db, event_id) == {"alice": "followed"}
    assert skipped(db, event_id)
    assert not skipped(db, reply(db, initiator="carol"))
    subscribe(db, "bob", THREAD, "muted")
    assert not skipped(db, reply(db, initiator="bob"))


def test_a_reply_subscribes_its_author_to_the_next_ones(db: Db) -> None:
    first = reply(db, initiator="alice", subscribe_initiator=True)
    assert because(db, first) == {}
    second = reply(db, initiator="bob", subscribe_initiator=True)
    assert because(db, second) == {"alice": "replied"}
    assert because(db, reply(db)) == {"alice": "replied", "bob": "replied"}
    assert level(db, "alice") == ("all", "replied")


def test_a_reply_changes_no_choice(db: Db) -> None:
    subscribe(db, "alice", THREAD, "muted")
    subscribe(db, "bob", THREAD, "mentions")
    for name in ("alice", "bob"):
        reply(db, initiator=name, subscribe_initiator=True)
    assert level(db, "alice") == ("muted", "followed")
    assert level(db, "bob") == ("mentions", "followed")
    assert value(db, "select count(*) from tocsin.subscription") == 2


def test_a_choice_after_a_reply_counts_and_remembers_it(db: Db) -> None:
    reply(db, initiator="alice", subscribe_initiator=True)
    assert subscribe(db, "alice", THREAD) is False
    assert subscribe(db, "alice", THREAD, "muted") is True
    assert level(db, "alice") == ("muted", "replied")
    assert value(db, "select tocsin.unmute('alice', %s)", THREAD) is True
    assert level(db, "alice") == ("all", "replied")
    assert unsubscribe(db, "alice", THREAD) is True
    assert level(db, "alice") is None


def test_taking_a_muting_back_brings_back_what_it_took_the_place_of(db: Db) -> None:
    unmute = "select tocsin.unmute(%s, %s)"
    subscribe(db, "alice", THREAD, "mentions")
    subscribe(db, "alice", THREAD, "muted")
    subscribe(db, "bob", THREAD, "muted")
    assert value(db, unmute, "alice", THREAD) is True
    assert value(db, unmute, "bob", THREAD) is True
    assert value(db, unmute, "alice", THREAD) is False
    assert level(db, "alice") == ("mentions", "followed")
    assert level(db, "bob") is None


def test_open_replies_of_one_person_to_one_topic_never_wait(db: Db, other: Db, dsn: str) -> None:
    subscribe(db, "bob", THREAD)
    with psycopg.connect(dsn) as third:
        reply(third, initiator="alice", subscribe_initiator=True)
        reply(other, initiator="alice", subscribe_initiator=True)
        third.rollback()
    other.commit()
    assert level(db, "alice") == ("all", "replied")
    assert because(db, reply(db)) == {"alice": "replied", "bob": "followed"}


def test_two_replies_that_were_open_at_once_are_one_follower(db: Db, other: Db, dsn: str) -> None:
    with psycopg.connect(dsn) as third:
        reply(third, initiator="alice", subscribe_initiator=True)
        reply(other, initiator="alice", subscribe_initiator=True)
        third.commit()
    other.commit()
    assert value(db, "select count(*) from tocsin.subscription") == 2
    assert notified(db, reply(db)) == 1
    subscribe(db, "alice", THREAD, "muted")
    assert value(db, "select count(*) from tocsin.subscription") == 1
    assert notified(db, reply(db)) == 0


def test_an_open_choice_keeps_no_event_waiting(db: Db, other: Db, dsn: str) -> None:
    subscribe(db, "alice", THREAD)
    with psycopg.connect(dsn) as third:
        subscribe(third, "alice", THREAD, "muted")
        subscribe(third, "bob", THREAD)
        tocsin.upsert_recipient(third, "bob", name="Bob")
        assert because(other, reply(other, initiator="bob", subscribe_initiator=True)) == {
            "alice": "followed"
        }
        other.commit()
        third.commit()
    assert level(db, "alice") == ("muted", "followed")
    assert level(db, "bob") == ("all", "followed")


def test_rollback_leaves_neither_event_nor_follower(db: Db, other: Db) -> None:
    subscribe(other, "bob", THREAD)
    reply(other, initiator="alice", subscribe_initiator=True)
    assert tocsin.unread_count(other, "bob") == 1
    other.rollback()
    assert level(db, "alice") is level(db, "bob") is None
    assert value(db, "select count(*) from tocsin.event") == 0
    assert tocsin.unread_count(db, "bob") == 0


def test_a_scheduled_event_is_for_those_who_follow_by_then(db: Db) -> None:
    subscribe(db, "alice", THREAD)
    event_id = reply(
        db,
        initiator="dave",
        subscribe_initiator=True,
        send_at=datetime.now(UTC) + timedelta(hours=1),
    )
    assert level(db, "dave") is None
    unsubscribe(db, "alice", THREAD)
    subscribe(db, "bob", THREAD)
    subscribe(db, "carol", THREAD, "mentions")
    assert notified(db, event_id) == 0
    db.execute("update tocsin.event set send_at = now()")
    assert value(db, "select tocsin.fan_out_due_events(10)") == 1
    assert because(db, event_id) == {"bob": "followed", "carol": "not_mentioned"}
    assert level(db, "dave") == ("all", "replied")


def test_a_scheduled_event_that_is_cancelled_makes_no_follower(db: Db) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    event_id = reply(db, initiator="dave", subscribe_initiator=True, send_at=later)
    tocsin.cancel(db, event_id)
    db.execute("update tocsin.event set send_at = now()")
    assert value(db, "select tocsin.fan_out_due_events(10)") == 0
    assert level(db, "dave") is None


def test_a_key_covers_topic_and_following(db: Db) -> None:
    subscribe(db, "alice", THREAD)
    first = reply(db, initiator="bob", idempotency_key="k")
    assert reply(db, initiator="bob", idempotency_key="k") == first
    assert tocsin.unread_count(db, "alice") == 1
    with pytest.raises(tocsin.IdempotencyConflict):
        reply(db, "forum.thread:7", initiator="bob", idempotency_key="k")
    with pytest.raises(tocsin.IdempotencyConflict):
        reply(db, initiator="bob", idempotency_key="k", subscribe_initiator=True)
    with pytest.raises(tocsin.IdempotencyConflict):
        tocsin.notify(
            db,
            recipient=[],
            event_type="forum.new_reply",
            title="New reply",
            initiator="bob",
            idempotency_key="k",
        )


@pytest.mark.parametrize(
    "topic", ["", " ", "two words", "ümlaut", "a\nb", "a\n", "x" * 201, "a%2Fb", "a?b", None]
)
def test_a_topic_that_cannot_be_is_refused_with_the_cure(db: Db, topic: Any) -> None:
    with pytest.raises(tocsin.InvalidArgument, match="200 characters") as refused:
        subscribe(db, "alice", topic)
    assert (refused.value.argument, refused.value.sqlstate) == ("topic", "TC004")
    assert THREAD in refused.value.hint
    with pytest.raises(tocsin.InvalidArgument, match="200 characters"):
        reply(db, topic)
    assert value(db, "select count(*) from tocsin.event") == 0


@pytest.mark.parametrize("topic", ["x", "x" * 200, "a/b:c.d-e_F9", "..", "/", "a//b/"])
def test_any_other_topic_is_taken(db: Db, topic: str) -> None:
    subscribe(db, "alice", topic)
    assert notified(db, reply(db, topic)) == 1


@pytest.mark.parametrize("level", ["loud", "", "ALL", None])
def test_a_level_that_is_none_is_refused_with_all_that_are(db: Db, level: Any) -> None:
    with pytest.raises(tocsin.InvalidArgument) as refused:
        subscribe(db, "alice", THREAD, level)
    assert refused.value.argument == "level"
    assert "all, mentions, muted" in refused.value.hint


def test_following_needs_somebody_who_is_known(db: Db) -> None:
    with pytest.raises(tocsin.UnknownRecipient) as unknown:
        subscribe(db, "nobody", THREAD)
    assert unknown.value.argument == "recipient"
    assert "upsert_recipient" in unknown.value.hint
    with pytest.raises(tocsin.UnknownRecipient) as unknown:
        reply(db, initiator="nobody", subscribe_initiator=True)
    assert unknown.value.argument == "initiator"
    with pytest.raises(tocsin.InvalidArgument) as refused:
        reply(db, subscribe_initiator=True)
    assert refused.value.argument == "subscribe_initiator"
    with pytest.raises(tocsin.UnknownEventType):
        reply(db, event_type="forum.new_repyl")
    assert notified(db, reply(db, initiator="nobody")) == 0
    assert value(db, "select count(*) from tocsin.event") == 1


def test_the_app_role_may_follow_and_notify(db: Db, dsn: str) -> None:
    db.execute("drop role if exists shop")
    db.execute("create role shop login password 'shop'")
    db.execute("grant tocsin_app to shop")
    try:
        with psycopg.connect(dsn, user="shop", password="shop", autocommit=True) as shop:
            shop.execute("set search_path = pg_temp")
            assert subscribe(shop, "alice", THREAD)
            event_id = reply(shop, initiator="bob", subscribe_initiator=True)
            assert unsubscribe(shop, "bob", THREAD)
            assert value(db, "select caller from tocsin.event") == "role:shop"
            assert because(db, event_id) == {"alice": "followed"}
            for statement in (
                "select * from tocsin.subscription",
                "select tocsin.unmute('alice', 'x')",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    shop.execute(statement)
    finally:
        db.execute("drop role shop")


async def test_an_async_connection_is_awaited(db: Db, dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        assert await subscribe(connection, "alice", THREAD) is True
        event_id = await notify_topic(
            connection, topic=THREAD, event_type="forum.new_reply", title="Hi"
        )
        assert await unsubscribe(connection, "alice", THREAD) is True
    assert notified(db, event_id) == 1


def test_an_erased_person_follows_nothing(db: Db, other: Db) -> None:
    subscribe(db, "alice", THREAD)
    reply(other, "forum.thread:7", initiator="alice", subscribe_initiator=True)
    db.execute("select tocsin.erase_recipient('alice')")
    assert level(db, "alice") is None
    other.commit()
    assert level(db, "alice", "forum.thread:7")
    assert notified(db, reply(db, "forum.thread:7")) == 0
    assert value(db, "select tocsin.finish_erasures()") == 0  # nothing is still open
    assert level(db, "alice", "forum.thread:7") is None


@pytest.mark.crowd
def test_a_crowd_of_followers_is_one_call(db: Db) -> None:
    db.execute(
        "insert into tocsin.recipient (recipient_id, email)"
        " select 'n' || i, 'n' || i || '@example.com' from generate_series(1, %s) i",
        (CROWD,),
    )
    db.execute(
        "insert into tocsin.subscription (topic, recipient_id, level, because)"
        " select %s, 'n' || i, (array['muted', 'mentions', 'all'])[least(i, 3)], 'followed'"
        " from generate_series(1, %s) i",
        (THREAD, CROWD),
    )
    event_id = reply(db, initiator="n3", event_type="bulletin.new_org")
    assert notified(db, event_id) == CROWD - 3
    assert value(db, "select count(*) from tocsin.notification") == CROWD - 1
    assert value(db, "select count(*) from tocsin.delivery") == CROWD - 3
    assert value(db, "select count(*) from tocsin.event_queue") == 1
    assert (tocsin.unread_count(db, f"n{CROWD}"), tocsin.unread_count(db, "n3")) == (1, 0)


def test_followers_are_found_by_an_index(db: Db) -> None:
    db.execute(
        "insert into tocsin.subscription (topic, recipient_id, level, because)"
        " select 'topic:' || i % 2000, 'n' || i, 'all', 'followed' from generate_series(1, 40000) i"
    )
    db.execute("analyze tocsin.subscription")
    reply(db, "topic:7")
    event = value(db, "select e::text from tocsin.event e")
    # as functions keep their plans
    db.execute("set plan_cache_mode = force_generic_plan")
    db.execute("prepare followers (tocsin.event) as select * from tocsin.followers($1)")
    lines = psycopg.ClientCursor(db).execute("explain execute followers (%s)", (event,)).fetchall()
    plan = "\n".join(line for (line,) in lines)
    assert "subscription_pkey" in plan, plan
    assert "Seq Scan on subscription" not in plan, plan
