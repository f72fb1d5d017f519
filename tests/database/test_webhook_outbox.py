"""App webhooks are sent what happened: from an outbox that the same transaction writes, and only where one wants it."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.support.notifying import *  # noqa: F403 - fixtures
from tests.support.notifying import Db, count, notify, value

ALL = [
    *("notification.created", "notification.read", "notification.acted", "delivery.sent"),
    *("delivery.failed", "delivery.bounced", "preference.changed", "recipient.unsubscribed"),
]


def put(db: Db, name: str = "app", events: list[str] = ALL, recipient: str | None = None) -> int:
    return int(
        value(
            db,
            "insert into tocsin.target (channel, name, url, events, recipient_id) "
            "values ('webhook', %s, 'https://a.test/', %s, %s) returning target_id",
            *(name, events, recipient),
        )
    )


def messages(db: Db) -> list[tuple[str, dict[str, Any]]]:
    """All that webhooks are to be sent, once the outbox is empty."""
    while value(db, "select tocsin.queue_webhooks(100)"):
        pass
    statement = "select type, data from tocsin.webhook_message order by delivery_id"
    return db.execute(statement).fetchall()


def settle(db: Db, state: str, channel: str = "email", *, dead: bool = False) -> None:
    """Settles all queued deliveries of a channel, as a worker does."""
    db.execute(
        "update tocsin.delivery set state = 'sending', claim = gen_random_uuid(), attempts = 1 "
        "where state = 'queued' and channel = %s",
        (channel,),
    )
    db.execute(
        "select tocsin.settle(array_agg(delivery_id), array_agg(claim), array_agg(%s::tocsin.delivery_state), "
        "array_agg('smtp_554'::text), array_agg(null::interval), array_agg(%s::text), array_agg('smtp_554'::text), "
        "array_agg('https://a.test/'::text), array_agg(now()), array_agg(null::text), array_agg(%s), "
        "array_agg(null::timestamptz), array_agg(null::text)) from tocsin.delivery where state = 'sending'",
        (state, "sent" if state == "sent" else "rejected", dead),
    )


def test_without_an_app_webhook_nothing_is_written(db: Db) -> None:
    put(db, "alices", [], recipient="alice")
    notify(db, ["alice"])
    notify(db, ["alice", "bob"])
    settle(db, "sent")
    value(db, "select tocsin.mark_all_read('alice', null, null, null)")
    db.execute("insert into tocsin.preference values ('alice', '*', 'email', false)")
    assert count(db, "webhook_outbox") == 0


def test_a_notification_is_reported_for_each_person(db: Db) -> None:
    put(db)
    event_id = notify(db, ["alice"], "forum.new_reply")
    notify(db, ["alice", "bob", "carol"])
    found = messages(db)
    assert [type_ for type_, _ in found] == ["notification.created"] * 4
    first = found[0][1]
    assert first.pop("notification_id")
    assert first == {
        "event_id": event_id,
        "event_type": "forum.new_reply",
        "recipient": "alice",
        "subject": None,
        "topic": None,
        "title": "New reply",
        "action_url": None,
        "in_inbox": True,
    }
    assert sorted(data["recipient"] for _, data in found[1:]) == ["alice", "bob", "carol"]
    # the delivery belongs to the event
    assert (
        value(
            db,
            "select count(*) from tocsin.delivery where channel = 'webhook' and event_id = %s",
            event_id,
        )
        == 1
    )


def test_a_fan_out_writes_rows_of_five_hundred(db: Db) -> None:
    put(db)
    db.execute(
        "insert into tocsin.recipient (recipient_id) select 'p' || i from generate_series(1, 2600) i"
    )
    notify(db, [f"p{i}" for i in range(1, 2601)], "recognition.received")
    assert count(db, "webhook_outbox") == 6
    assert value(db, "select tocsin.queue_webhooks(4)") == 4
    assert count(db, "webhook_message") == 2000
    assert len(messages(db)) == 2600
    assert (
        value(db, "select count(distinct data ->> 'recipient') from tocsin.webhook_message") == 2600
    )


def test_what_a_transaction_commits_late_is_reported_then(db: Db, other: Db) -> None:
    put(db)
    with other.transaction():
        notify(other, ["alice"])
        notify(db, ["bob"])
        assert [data["recipient"] for _, data in messages(db)] == ["bob"]
    assert [data["recipient"] for _, data in messages(db)] == ["bob", "alice"]


def test_a_rollback_reports_nothing(db: Db, other: Db) -> None:
    put(db)
    with other.transaction(force_rollback=True):
        notify(other, ["alice"])
    assert messages(db) == []


def test_a_worker_that_dies_while_it_queues_loses_and_repeats_nothing(db: Db, other: Db) -> None:
    put(db)
    notify(db, ["alice"])
    with other.transaction(force_rollback=True):
        assert value(other, "select tocsin.queue_webhooks(10)") == 1
        # another worker takes none of what this one has
        assert value(db, "select tocsin.queue_webhooks(10)") == 0
    assert len(messages(db)) == 1


def test_reading_is_reported_however_it_happens(db: Db) -> None:
    put(db, events=["notification.read"])
    for title in ("one", "two", "three", "four"):
        notify(db, ["alice"], title=title, subject="thread:1")
    ids = [
        row[0] for row in db.execute("select notification_id from tocsin.notification order by 1")
    ]
    value(db, "select tocsin.mark_read('alice', %s, true)", ids[0])
    value(db, "select tocsin.mark_read('alice', %s, true)", ids[0])  # it was read already
    value(db, "select tocsin.mark_all_read('alice', null, null, null)")
    notify(db, ["alice"], title="five", subject="thread:1")
    value(db, "select tocsin.mark_read('alice', 'thread:1')")
    assert [data["title"] for _, data in messages(db)] == ["one", "two", "three", "four", "five"]


def test_a_mail_without_a_place_in_the_inbox_is_reported_as_read_too(db: Db) -> None:
    put(db, events=["notification.read"])
    db.execute("insert into tocsin.preference values ('alice', '*', 'in_app', false)")
    notify(db, ["alice"])
    value(db, "select tocsin.mark_read('alice', notification_id, true) from tocsin.notification")
    assert [data["in_inbox"] for _, data in messages(db)] == [False]


def test_a_pressed_button_is_reported_with_its_key(db: Db) -> None:
    put(db, events=["notification.acted"])
    notify(db, ["alice"], actions=Jsonb([{"key": "yes", "label": "Yes"}]))
    value(
        db, "select tocsin.press_action('alice', notification_id, 'yes') from tocsin.notification"
    )
    assert [data["key"] for _, data in messages(db)] == ["yes"]


@pytest.mark.parametrize("state", ["sent", "failed"])
def test_what_became_of_a_delivery_is_reported(db: Db, state: str) -> None:
    put(db, events=[f"delivery.{state}"])
    notify(db, ["alice"])
    settle(db, state)
    ((type_, data),) = messages(db)
    assert type_ == f"delivery.{state}"
    assert (data["channel"], data["recipient"], data["attempts"]) == ("email", "alice", 1)
    assert "address" not in data


def test_a_delivery_that_used_up_its_attempts_is_reported(db: Db) -> None:
    put(db, events=["delivery.failed"])
    notify(db, ["alice"])
    db.execute("update tocsin.delivery set state = 'deferred', due_at = now(), attempts = 10")
    value(db, "select tocsin.dispatch_due('email', 10, interval '1 minute')")
    assert [data["reason"] for _, data in messages(db)] == ["attempts_exhausted"]


def test_webhooks_get_nothing_about_their_own_deliveries(db: Db) -> None:
    put(db)
    notify(db, ["alice"], "recognition.received")
    assert len(messages(db)) == 1
    settle(db, "sent", "webhook")
    assert count(db, "webhook_outbox") == 0


def test_a_bounce_is_reported_with_its_reason(db: Db) -> None:
    put(db, events=["delivery.bounced"])
    notify(db, ["alice"])
    db.execute("select tocsin.report_bounced(delivery_id, 'bounced_5.1.1') from tocsin.delivery")
    assert [(data["recipient"], data["reason"]) for _, data in messages(db)] == [
        ("alice", "bounced_5.1.1")
    ]


def test_a_mail_that_comes_back_is_reported_once_it_is_tied_to_its_delivery(db: Db) -> None:
    put(db, events=["delivery.bounced"])
    notify(db, ["alice"])
    settle(db, "sent")
    db.execute(
        "insert into tocsin.mail_event (source, key, kind, reason, dead, delivery_id, occurred_at) "
        "select 'generic', 'k', 'bounce', 'bounce_5.1.1', true, delivery_id, now() from tocsin.delivery"
    )
    for _ in range(2):
        value(db, "select tocsin.apply_mail_events('0')")
    assert [(data["recipient"], data["reason"]) for _, data in messages(db)] == [
        ("alice", "bounce_5.1.1")
    ]


def test_changed_preferences_are_reported_as_they_changed(db: Db) -> None:
    put(db, events=["preference.changed"])
    db.execute(
        "insert into tocsin.preference values ('alice', '*', 'email', false), ('alice', '*', 'push', true)"
    )
    db.execute("update tocsin.preference set enabled = true where channel = 'email'")
    db.execute("delete from tocsin.preference where channel = 'push'")
    assert [data["overrides"] for _, data in messages(db)] == [
        {"*": {"email": False, "push": True}},
        {"*": {"email": True}},
        {"*": {"push": None}},
    ]


def test_each_webhook_gets_what_it_wants(db: Db) -> None:
    put(db, "created", ["notification.created"])
    put(db, "both", ["notification.created", "delivery.sent"])
    put(db, "alices", [], recipient="alice")
    notify(db, ["bob"])
    settle(db, "sent")
    messages(db)
    sent = "select name, array_agg(type order by delivery_id) from tocsin.webhook_message "
    sent += "join tocsin.delivery using (delivery_id) join tocsin.target using (target_id) group by 1 order by 1"
    assert db.execute(sent).fetchall() == [
        ("both", ["notification.created", "delivery.sent"]),
        ("created", ["notification.created"]),
    ]


def test_a_disabled_webhook_stops_the_outbox(db: Db) -> None:
    put(db)
    put(db, "other", ["delivery.sent"])
    db.execute("update tocsin.target set disabled_at = now() where name = 'app'")
    notify(db, ["alice"])
    assert count(db, "webhook_outbox") == 0
    settle(db, "sent")
    assert [type_ for type_, _ in messages(db)] == ["delivery.sent"]
    db.execute("delete from tocsin.target")
    notify(db, ["alice"])
    assert count(db, "webhook_outbox") == 0


def test_a_new_event_type_is_reported_too(db: Db) -> None:
    put(db)
    db.execute(
        "insert into tocsin.event_type (event_type, category, label, position, default_channels) "
        "values ('forum.pinned', 'forum', 'Pinned', 99, '{in_app}')"
    )
    notify(db, ["alice"], "forum.pinned")
    assert len(messages(db)) == 1


def test_a_cancelled_event_stops_no_message_about_it(db: Db) -> None:
    put(db)
    event_id = notify(db, ["alice"], "recognition.received")
    messages(db)
    assert value(db, "select tocsin.cancel(%s)", event_id) == 0
    withheld = "select withheld from tocsin.delivery, tocsin.delivery_snapshot(delivery_id) where channel = 'webhook'"
    assert value(db, withheld) is None


def test_an_invitation_is_reported_without_a_recipient(db: Db) -> None:
    put(db)
    value(db, "select tocsin.notify_email('zoe@example.org', 'event.invited', 'Come')")
    assert [data["recipient"] for _, data in messages(db)] == [None]


def test_erasing_a_person_erases_what_webhooks_would_be_sent(db: Db) -> None:
    put(db)
    notify(db, ["alice", "bob"], "recognition.received")
    messages(db)
    db.execute("insert into tocsin.preference values ('alice', '*', 'email', false)")
    value(db, "select tocsin.erase_recipient('alice')")
    assert [data["recipient"] for _, data in messages(db)] == ["bob"]
    assert value(db, "select count(*) from tocsin.delivery where channel = 'webhook'") == 1


def test_messages_are_cleaned_up_with_their_deliveries(db: Db) -> None:
    put(db)
    notify(db, ["alice"], "recognition.received")
    messages(db)
    assert value(db, "select tocsin.clean_up_webhooks(now() - interval '1 day', 10)") == 0
    assert value(db, "select tocsin.clean_up_webhooks(now() + interval '1 day', 10)") == 1
    assert count(db, "webhook_message") == 0
    assert value(db, "select count(*) from tocsin.delivery where channel = 'webhook'") == 0


def test_an_endpoint_that_is_gone_is_disabled_and_nothing_is_written_for_it(db: Db) -> None:
    put(db, events=["notification.created"])
    notify(db, ["alice"], "recognition.received")
    messages(db)
    settle(db, "failed", "webhook", dead=True)
    assert value(db, "select disabled_reason from tocsin.target") == "smtp_554"
    assert count(db, "wanted_webhook_type") == 0
