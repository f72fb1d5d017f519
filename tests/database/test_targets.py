"""Targets: what reaches a person's webhook or chat, and that of a topic, and what becomes of the deliveries."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db, NewNotification
from tocsin.engine.model import Channel, CheckResult, Claimed, DeliveryState
from tocsin.engine.store import delivery as store
from tocsin.engine.store.database import Database
from tocsin.engine.store.delivery import SettledDelivery

URL_OF_A_CHAT = "https://hooks.example.com/services/T0/B0/secret"
TOPIC = "forum.thread:42"


@pytest.fixture(autouse=True)
def available(db: Db, people: None) -> None:
    db.execute("update tocsin.channel set available = true")


def put_target(db: Db, name: str = "team", *, channel: str = "chat", **columns: Any) -> None:
    given = {"url": URL_OF_A_CHAT, "kind": "slack", "recipient_id": None, "topic": None, **columns}
    db.execute(
        "insert into tocsin.target (channel, name, kind, url, recipient_id, topic)"
        " values (%(channel)s, %(name)s, %(kind)s, %(url)s, %(recipient_id)s, %(topic)s)",
        {"channel": channel, "name": name, **given},
    )


def notify_topic(db: Db, **arguments: Any) -> int:
    given = {"topic": TOPIC, "event_type": "forum.new_reply", "title": "New reply", **arguments}
    names = ", ".join(f"{name} => %({name})s" for name in given)
    row = db.execute(f"select tocsin.notify_topic({names})".encode(), given).fetchone()
    assert row is not None
    return int(row[0])


def chats(db: Db) -> list[tuple[Any, ...]]:
    return db.execute(
        "select event_id, notification_id, recipient_id, state::text, reason, address"
        " from tocsin.delivery where channel = 'chat' order by delivery_id"
    ).fetchall()


async def claim(db: Db, database: Database) -> Claimed:
    (delivery_id,) = db.execute(
        "select max(delivery_id) from tocsin.delivery where channel = 'chat'"
    ).fetchone() or (0,)
    (claimed,) = await store.claim(
        database, Channel.CHAT, [delivery_id], claim=uuid4(), lease=timedelta(seconds=30)
    )
    return claimed


async def settle(
    database: Database, claimed: Claimed, state: DeliveryState, **outcome: Any
) -> None:
    check_result = claimed.check_result
    assert check_result is not None
    await store.settle(
        database,
        [
            SettledDelivery(
                claimed.delivery_id,
                claimed.claim,
                state,
                address=check_result.address,
                checked_at=check_result.checked_at,
                **outcome,
            )
        ],
    )


async def test_a_topics_target_gets_each_event_whoever_follows_it(
    db: Db, machine: httpx.AsyncClient
) -> None:
    put_target(db, topic=TOPIC)
    put_target(db, "other", topic="forum.thread:43")
    event_id = notify_topic(db)
    assert chats(db) == [(event_id, None, None, "queued", None, None)]
    queued = db.execute("select event_id, channel from tocsin.event_queue").fetchall()
    assert queued == [(event_id, "chat")]
    event = (await machine.get(f"/api/events/{event_id}/")).json()
    assert event["notifications"] == 0
    assert event["deliveries"] == {"chat": {"queued": 1}}


async def test_a_scheduled_event_reaches_the_targets_of_its_time(db: Db) -> None:
    notify_topic(db, send_at="2030-01-01")
    put_target(db, topic=TOPIC)
    assert chats(db) == []
    db.execute("update tocsin.event set send_at = now()")
    db.execute("select tocsin.fan_out_due_events(10)")
    assert [state for _, _, _, state, *_ in chats(db)] == ["queued"]


async def test_a_claim_has_the_address_and_what_the_actor_needs_of_it(
    db: Db, database: Database
) -> None:
    put_target(db, topic=TOPIC)
    notify_topic(db, content='{"chat": {"body": "For the team"}}')
    claimed = await claim(db, database)
    assert (claimed.title, claimed.body, claimed.withheld) == ("New reply", "For the team", None)
    checked = claimed.check_result
    assert isinstance(checked, CheckResult)
    assert checked.address == URL_OF_A_CHAT
    assert checked.options == {"name": "team", "kind": "slack", "secrets": None, "replaces": None}


@pytest.mark.parametrize(
    "gone",
    [
        "delete from tocsin.target",
        "update tocsin.target set disabled_at = now()",
        "update tocsin.target set recipient_id = 'bob', topic = null",
    ],
)
async def test_nothing_is_sent_to_a_target_that_is_gone(
    db: Db, database: Database, gone: str
) -> None:
    put_target(db, topic=TOPIC)
    notify_topic(db)
    db.execute(gone.encode())
    assert (await claim(db, database)).withheld == "no_target"


async def test_the_ledger_has_the_name_of_a_target_and_never_its_address(
    db: Db, database: Database, alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    put_target(db, recipient_id="alice")
    created = new_notification()
    await settle(database, await claim(db, database), DeliveryState.SENT)
    (found,) = [
        each
        for each in (await alice.get(f"/api/notifications/{created}/why/")).json()["channels"]
        if each["channel"] == "chat"
    ]
    assert found["deliveries"][0]["address"] == "team"
    assert found["sentence"] == "Chat is on for New reply by default. It was sent."
    everything = db.execute("select string_agg(d::text, ' ') from tocsin.delivery d").fetchone()
    assert everything is not None
    assert "secret" not in everything[0]


async def test_a_dead_target_is_disabled_with_the_reason_and_suppresses_no_address(
    db: Db, database: Database
) -> None:
    put_target(db, recipient_id="alice")
    db.execute("select tocsin.notify('forum.new_reply', '{alice}', 'x')")
    await settle(
        database,
        await claim(db, database),
        DeliveryState.FAILED,
        reason="slack_no_service",
        outcome="rejected",
        attempt_reason="slack_no_service",
        address_dead=True,
    )
    row = db.execute(
        "select disabled_at is not null, disabled_reason,"
        " (select count(*) from tocsin.suppression),"
        " (select further_channels from tocsin.recipient where recipient_id = 'alice')"
        " from tocsin.target"
    ).fetchone()
    assert row == (True, "slack_no_service", 0, [])


async def test_a_target_that_was_put_again_is_not_disabled_by_an_earlier_refusal(
    db: Db, database: Database
) -> None:
    put_target(db, recipient_id="alice")
    db.execute("select tocsin.notify('forum.new_reply', '{alice}', 'x')")
    claimed = await claim(db, database)
    db.execute("update tocsin.target set url = 'https://hooks.example.com/new', updated_at = now()")
    await settle(
        database,
        claimed,
        DeliveryState.FAILED,
        reason="slack_no_service",
        outcome="rejected",
        attempt_reason="slack_no_service",
        address_dead=True,
    )
    assert db.execute("select disabled_at from tocsin.target").fetchone() == (None,)


async def test_what_replaces_another_knows_the_message_that_it_replaces(
    db: Db, database: Database
) -> None:
    put_target(db, topic=TOPIC)
    for provider_id in ("m1", None, "m3"):
        notify_topic(db, replaces=True)
        claimed = await claim(db, database)
        await settle(database, claimed, DeliveryState.SENT, outcome="sent", provider_id=provider_id)
    notify_topic(db, subject="forum.thread:9", replaces=True)
    other = (await claim(db, database)).options
    notify_topic(db)
    not_replacing = (await claim(db, database)).options
    notify_topic(db, replaces=True)
    replacing = (await claim(db, database)).options
    assert [each and each["replaces"] for each in (other, not_replacing, replacing)] == [
        None,
        None,
        "m3",
    ]


async def test_why_states_that_there_is_no_subscription_and_no_target(
    db: Db, alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    created = new_notification()
    channels = {
        each["channel"]: each
        for each in (await alice.get(f"/api/notifications/{created}/why/")).json()["channels"]
    }
    assert list(channels) == ["in_app", "email", "push", "web_push", "webhook", "chat"]
    assert channels["web_push"]["reason"] == "no_subscription"
    assert channels["web_push"]["sentence"] == "No browser of yours gets pushes."
    assert channels["chat"]["reason"] == channels["webhook"]["reason"] == "no_target"
    by_sql = db.execute("select channel, reason from tocsin.why('alice')").fetchall()
    assert by_sql[3:] == [
        ("web_push", "no_subscription"),
        ("webhook", "no_target"),
        ("chat", "no_target"),
    ]
    db.execute("update tocsin.channel set available = false where channel = 'chat'")
    absent = (await alice.get(f"/api/notifications/{created}/why/")).json()["channels"]
    assert [each["channel"] for each in absent][3:] == ["web_push", "webhook"]


async def test_preferences_show_a_further_channel_only_to_those_who_have_it(
    db: Db, alice: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    put_target(db, recipient_id="alice")
    path = "/api/notification-preferences/"
    shown = (await alice.get(path)).json()
    assert shown["event_types"]["forum.new_thread"] == {
        "in_app": True,
        "email": False,
        "push": False,
        "chat": True,
    }
    assert shown["sources"]["forum.new_thread"]["chat"] == "default"
    assert set((await bob.get(path)).json()["event_types"]["forum.new_thread"]) == {
        "in_app",
        "email",
        "push",
    }
    changed = await alice.patch(path, json={"overrides": {"forum.*": {"chat": False}}})
    assert changed.json()["event_types"]["forum.new_thread"]["chat"] is False
    db.execute("select tocsin.notify('forum.new_thread', '{alice}', 'x')")
    assert chats(db) == []


async def test_an_opt_out_and_a_cancel_after_the_fan_out_are_obeyed(
    db: Db, database: Database, machine: httpx.AsyncClient
) -> None:
    put_target(db, recipient_id="alice")
    db.execute("select tocsin.notify('forum.new_reply', '{alice}', 'x')")
    db.execute(
        "insert into tocsin.preference (recipient_id, scope, channel, enabled) values ('alice', '*', 'chat', false)"
    )
    assert (await claim(db, database)).withheld == "opted_out_since"
    put_target(db, "topic", topic=TOPIC)
    event_id = notify_topic(db)
    cancelled = await machine.post(f"/api/events/{event_id}/cancel/")
    assert cancelled.json() == {"cancelled": 1}
    assert chats(db)[-1][3:5] == ("cancelled", "cancelled")


def test_old_deliveries_of_a_topics_target_are_deleted_with_their_event(db: Db) -> None:
    put_target(db, topic=TOPIC)
    db.execute("select tocsin.subscribe('alice', %s)", (TOPIC,))
    notify_topic(db)
    db.execute("select tocsin.unsubscribe('alice', %s)", (TOPIC,))
    notify_topic(db)
    db.execute(
        "insert into tocsin.attempt select delivery_id, 1, now(), 'sent' from tocsin.delivery"
    )
    db.execute("update tocsin.notification set read_at = now()")
    db.execute("select tocsin.clean_up_notifications('-infinity', now() + interval '1 hour', 10)")
    db.execute("select tocsin.clean_up_events('-infinity', 0, now() + interval '1 hour', 10)")
    for table in ("event", "delivery", "attempt"):
        assert db.execute(f"select count(*) from tocsin.{table}".encode()).fetchone() == (0,)


async def test_an_erased_persons_targets_and_what_was_sent_to_them_are_gone(
    db: Db, machine: httpx.AsyncClient
) -> None:
    put_target(db, recipient_id="alice")
    db.execute("select tocsin.notify('forum.new_reply', '{alice}', 'x')")
    assert (await machine.delete("/api/recipients/alice/")).status_code == 204
    assert chats(db) == []
    assert db.execute("select count(*) from tocsin.target").fetchone() == (0,)


def test_a_target_is_of_one_person_or_of_one_topic(db: Db) -> None:
    for wrong in ({}, {"recipient_id": "alice", "topic": TOPIC}, {"topic": TOPIC, "kind": None}):
        with pytest.raises(psycopg.errors.CheckViolation):
            put_target(db, **wrong)
    put_target(db, channel="webhook", kind=None)
