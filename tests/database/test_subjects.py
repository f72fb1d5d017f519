"""Subjects: mark_read(), withdraw(), replaces and inbox(), also beside open transactions of others."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support.dispatching import dispatcher
from tests.support.services import until

Db = psycopg.Connection[Any]
THREAD = "forum.thread:42"


@pytest.fixture(autouse=True)
def people(db: Db) -> None:
    for name in ("alice", "bob"):
        db.execute("select tocsin.upsert_recipient(%s, %s)", (name, f"{name}@example.com"))
    db.execute("update tocsin.channel set available = true")


@pytest.fixture
def other(dsn: str) -> Iterator[Db]:
    """Another app's connection, in a transaction."""
    with psycopg.connect(dsn) as connection:
        yield connection


def notify(db: Db, recipients: list[str], title: str = "New reply", **named: Any) -> int:
    arguments = {"subject": THREAD, **named}
    event_type = arguments.pop("event_type", "forum.new_reply")
    listed = "".join(f", {name} => %({name})s" for name in arguments)
    row = db.execute(
        f"select tocsin.notify(%(event_type)s, %(recipients)s, %(title)s{listed})",
        {"event_type": event_type, "recipients": recipients, "title": title, **arguments},
    ).fetchone()
    assert row is not None
    return int(row[0])


def value(db: Db, statement: str, *arguments: Any) -> Any:
    row = db.execute(statement, arguments).fetchone()
    return row[0] if row else None


def unread(db: Db, recipient: str = "alice") -> int:
    """The badge, which has to be the number of unread rows of the inbox."""
    shown = int(value(db, "select tocsin.unread_count(%s)", recipient))
    counted = value(
        db,
        "select count(*) from tocsin.notification where recipient_id = %s and in_inbox"
        " and read_at is null and archived_at is null",
        recipient,
    )
    assert shown == counted
    return shown


def apply(db: Db) -> int:
    """As the leader does; returns how many changes are left."""
    return int(value(db, "select tocsin.apply_pending_changes()"))


def apply_last(db: Db) -> int:
    """The same a second later, when all changes are over whose transactions have ended."""
    db.execute("update tocsin.pending_change set made_at = made_at - interval '2 seconds'")
    return apply(db)


def titles(db: Db, recipient: str = "alice") -> list[str]:
    rows = db.execute("select title from tocsin.inbox(%s)", (recipient,)).fetchall()
    return [title for (title,) in rows]


# mark_read


def test_an_app_marks_what_is_about_a_subject_as_read(db: Db) -> None:
    notify(db, ["alice", "bob"])
    notify(db, ["alice"], "Another reply")
    notify(db, ["alice"], "Elsewhere", subject="forum.thread:43")
    assert value(db, "select tocsin.mark_read('alice', %s)", THREAD) == 2
    assert (unread(db), unread(db, "bob")) == (1, 1)
    assert value(db, "select tocsin.mark_read('alice', %s)", THREAD) == 0
    changes = db.execute("select recipient_id, change from tocsin.inbox_change").fetchall()
    assert changes == [("alice", "read")]


def test_a_topics_event_has_its_topic_as_subject(db: Db) -> None:
    db.execute("select tocsin.subscribe('alice', %s)", (THREAD,))
    db.execute("select tocsin.notify_topic(%s, 'forum.new_reply', 'New reply')", (THREAD,))
    assert value(db, "select tocsin.mark_read('alice', %s)", THREAD) == 1


def test_a_mark_waits_for_no_other_mark_and_survives_its_rollback(db: Db, other: Db) -> None:
    notify(db, ["alice"])
    db.execute("set lock_timeout = '5s'")
    assert value(other, "select tocsin.mark_read('alice', %s)", THREAD) == 1
    assert value(db, "select tocsin.mark_read('alice', %s)", THREAD) == 0
    assert apply(db) == 1  # the row is still locked
    other.rollback()
    assert unread(db) == 1
    apply(db)
    assert unread(db) == 0
    assert apply_last(db) == 0


async def test_the_leader_applies_what_an_open_transaction_held_back(
    db: Db, dsn: str, other: Db
) -> None:
    """A rollback sends no wake-up signal, so the leader has to check again."""
    notify(db, ["alice"])
    async with dispatcher(dsn):
        value(other, "select tocsin.mark_read('alice', %s)", THREAD)
        value(db, "select tocsin.mark_read('alice', %s)", THREAD)
        await until(lambda: value(db, "select horizon is not null from tocsin.pending_change"))
        other.rollback()
        await until(lambda: value(db, "select tocsin.unread_count('alice')") == 0)
    assert unread(db) == 0


# withdraw


def test_a_thing_that_is_gone_takes_its_notifications_along(db: Db) -> None:
    first = notify(db, ["alice", "bob"])
    notify(db, ["alice"], send_at="2030-01-01T00:00:00Z")
    notify(db, ["alice"], "Mention", event_type="forum.mention")
    other_subject = notify(db, ["alice"], "Elsewhere", subject="forum.thread:43")
    assert value(db, "select tocsin.withdraw(%s, 'forum.new_reply')", THREAD) == 2
    assert (titles(db), unread(db), unread(db, "bob")) == (["Elsewhere", "Mention"], 2, 0)
    assert value(db, "select tocsin.withdraw(%s)", THREAD) == 1
    assert value(db, "select tocsin.withdraw(%s)", THREAD) == 0
    states = db.execute(
        "select event_id, array_agg(distinct state::text) from tocsin.delivery group by 1 order by 1"
    ).fetchall()
    assert dict(states)[first] == ["cancelled"]
    assert dict(states)[other_subject] == ["queued"]


@pytest.mark.parametrize("withdrawn_first", [True, False])
def test_a_withdrawal_matches_events_that_were_reported_before_it_and_commit_later(
    db: Db, dsn: str, other: Db, withdrawn_first: bool
) -> None:
    notify(other, ["alice"], "Reported before")
    with psycopg.connect(dsn) as moderator:
        assert value(moderator, "select tocsin.withdraw(%s)", THREAD) == 0
        if withdrawn_first:
            moderator.commit()
            assert apply(db) == 1  # as long as the other transaction can be open
            other.commit()
        else:
            other.commit()
            moderator.commit()
    notify(db, ["alice"], "Reported after")
    apply(db)
    assert titles(db) == ["Reported after"]
    assert unread(db) == 1
    assert apply_last(db) == 0
    assert titles(db) == ["Reported after"]


def test_an_event_that_is_reported_before_the_commit_of_a_withdrawal_is_gone(
    db: Db, other: Db
) -> None:
    db.execute("select 1")
    value(other, "select tocsin.withdraw(%s)", THREAD)
    notify(db, ["alice"], "After the call, before its commit")
    other.commit()
    apply(db)
    assert (titles(db), unread(db)) == ([], 0)


def test_what_a_withdrawals_own_transaction_reports_afterwards_stays(db: Db, dsn: str) -> None:
    notify(db, ["alice"], "Before")
    with psycopg.connect(dsn) as app:
        notify(app, ["alice"], "In the transaction, before the withdrawal")
        assert value(app, "select tocsin.withdraw(%s)", THREAD) == 2
        with app.transaction():  # a savepoint
            notify(app, ["alice"], "Moved to six")
    apply(db)
    assert (titles(db), unread(db)) == (["Moved to six"], 1)


@pytest.mark.parametrize("found", [True, False])
def test_deliveries_of_a_withdrawn_event_have_the_reason_withdrawn(
    db: Db, other: Db, found: bool
) -> None:
    notify(other, ["alice"])
    if found:
        other.commit()
    db.execute("select tocsin.withdraw(%s)", (THREAD,))
    other.commit()
    apply(db)
    rows = db.execute("select distinct state, reason from tocsin.delivery").fetchall()
    assert rows == [("cancelled", "withdrawn")]


def test_a_withdrawal_that_is_rolled_back_changes_nothing(db: Db, other: Db) -> None:
    notify(db, ["alice"])
    assert value(other, "select tocsin.withdraw(%s)", THREAD) == 1
    other.rollback()
    assert apply(db) == 0
    assert unread(db) == 1


def test_an_event_that_is_rolled_back_leaves_nothing_of_a_withdrawal(db: Db, other: Db) -> None:
    notify(other, ["alice"])
    value(db, "select tocsin.withdraw(%s)", THREAD)
    other.rollback()
    assert apply(db) == 1
    assert apply_last(db) == 0
    assert unread(db) == 0


def test_a_withdrawal_is_kept_while_an_older_transaction_is_open(db: Db, other: Db) -> None:
    notify(other, ["alice"])
    value(db, "select tocsin.withdraw(%s)", THREAD)
    assert apply_last(db) == 1
    other.rollback()
    assert apply_last(db) == 0


def test_two_withdrawals_at_once(db: Db, dsn: str, other: Db) -> None:
    notify(db, ["alice"])
    assert value(other, "select tocsin.withdraw(%s)", THREAD) == 1
    found: list[int] = []

    def second() -> None:
        with psycopg.connect(dsn) as connection:
            found.append(value(connection, "select tocsin.withdraw(%s)", THREAD))

    thread = threading.Thread(target=second)
    thread.start()
    other.commit()
    thread.join()
    assert found == [0]
    apply(db)
    assert (apply_last(db), unread(db)) == (0, 0)


def test_notify_waits_for_none_of_them(db: Db, other: Db) -> None:
    notify(db, ["alice"], replaces=True)
    db.execute("set lock_timeout = '5s'")
    value(other, "select tocsin.mark_read('alice', %s)", THREAD)
    value(other, "select tocsin.withdraw(%s)", THREAD)
    notify(other, ["alice"], "Of an open transaction", replaces=True)
    notify(db, ["alice"], "At once", replaces=True)
    other.rollback()
    apply(db)
    assert titles(db) == ["At once"]


# replaces


def test_a_thousand_replacements_are_one_unread_notification(db: Db) -> None:
    for number in range(1, 1001):
        notify(db, ["alice"], f"Build {number} of 1000", subject="build:7", replaces=True)
        if number % 100 == 1:
            assert unread(db) == 1
    assert titles(db) == ["Build 1000 of 1000"]
    states = db.execute(
        "select channel, state::text, reason, count(*) from tocsin.delivery group by 1, 2, 3 order by 2"
    ).fetchall()
    assert states == [("email", "cancelled", "replaced", 999), ("email", "queued", None, 1)]


def test_only_earlier_unread_ones_of_the_same_person_type_and_subject_leave(db: Db) -> None:
    notify(db, ["alice", "bob"], "Read")
    value(db, "select tocsin.mark_read('alice', %s)", THREAD)
    notify(db, ["alice"], "Other type", event_type="forum.mention")
    notify(db, ["alice"], "Other subject", subject="forum.thread:43")
    notify(db, ["alice"], "Unread")
    notify(db, ["alice"], "Newest", replaces=True)
    assert titles(db) == ["Newest", "Other subject", "Other type", "Read"]
    assert (titles(db, "bob"), unread(db)) == (["Read"], 3)


def test_a_replacement_of_what_the_inbox_does_not_list_leaves_the_badge(db: Db) -> None:
    db.execute("insert into tocsin.preference values ('alice', '*', 'in_app', false)")
    notify(db, ["alice"], "By mail only")
    db.execute("delete from tocsin.preference")
    notify(db, ["alice"], "Newest", replaces=True)
    assert (titles(db), unread(db)) == (["Newest"], 1)


def test_a_scheduled_event_replaces_when_its_time_comes(db: Db) -> None:
    notify(db, ["alice"], "Scheduled", replaces=True, send_at="2030-01-01T00:00:00Z")
    notify(db, ["alice"], "Earlier")
    assert titles(db) == ["Earlier"]
    db.execute("update tocsin.event set send_at = now() where fanned_out_at is null")
    value(db, "select tocsin.fan_out_due_events(5)")
    assert (titles(db), unread(db)) == (["Scheduled"], 1)


def test_waiting_digest_entries_of_what_was_replaced_stop(db: Db) -> None:
    db.execute("select tocsin.set_digest_preference('alice', 'daily', null, '08:00', 'UTC', null)")
    notify(db, ["alice"], "First")
    notify(db, ["alice"], "Second", replaces=True)
    assert value(db, "select count(*) from tocsin.digest_item") == 1


@pytest.mark.parametrize("order", ["first", "second"])
def test_of_two_replacements_at_once_the_later_one_stays(
    db: Db, dsn: str, other: Db, order: str
) -> None:
    notify(db, ["alice"], "Old")
    notify(other, ["alice"], "Earlier", replaces=True)
    with psycopg.connect(dsn) as third:
        notify(third, ["alice"], "Later", replaces=True)
        for connection in (other, third) if order == "first" else (third, other):
            connection.commit()
    apply(db)
    assert (titles(db), unread(db)) == (["Later"], 1)


def test_random_calls_in_open_transactions_end_as_if_one_after_the_other(db: Db, dsn: str) -> None:
    """At rest the badge is exact, and of each subject no unread one is older than a replacement."""
    generator = random.Random(7)
    for _ in range(8):
        with (
            psycopg.connect(dsn) as one,
            psycopg.connect(dsn) as two,
            psycopg.connect(dsn) as three,
        ):
            sessions = [one, two, three]
            for connection in sessions:
                connection.execute("set lock_timeout = '2s'")
            for _ in range(12):
                session = generator.choice(sessions)
                match generator.randrange(5):
                    case 0 | 1:
                        notify(session, ["alice"], replaces=generator.random() < 0.5)
                    case 2:
                        value(session, "select tocsin.mark_read('alice', %s)", THREAD)
                    case 3:
                        session.commit()
                    case _:
                        session.rollback()
            for connection in sessions:
                connection.commit()
        apply(db)
        apply(db)
        unread(db)
        stale = value(
            db,
            "select count(*) from tocsin.notification n join tocsin.event e using (event_id)"
            " where n.in_inbox and n.read_at is null and exists ("
            "  select from tocsin.notification m join tocsin.event f on f.event_id = m.event_id"
            "  where f.replaces and m.recipient_id = n.recipient_id and m.subject = n.subject"
            "    and m.event_type = n.event_type and m.notification_id > n.notification_id)",
        )
        assert stale == 0


# unknown


def test_unknown_recipients_are_an_error_created_or_skipped(db: Db) -> None:
    with pytest.raises(psycopg.Error, match="unknown recipient 'zoe'"):
        notify(db, ["alice", "zoe"])
    event_id = notify(db, ["alice", "zoe", "yan"], unknown="skip")
    row = db.execute(
        "select unknown_skipped, tocsin.count_notified(event_id) from tocsin.event where event_id = %s",
        (event_id,),
    ).fetchone()
    assert row == (2, 1)
    notify(db, ["alice", "zoe"], unknown="create")
    assert unread(db, "zoe") == 1


def test_creating_a_recipient_waits_for_no_open_transaction(db: Db, other: Db) -> None:
    db.execute("set lock_timeout = '5s'")
    for ends in ("commit", "rollback"):
        name = f"zoe-{ends}"
        other.execute("select tocsin.upsert_recipient(%s)", (name,))
        notify(db, ["alice", name], unknown="create")
        getattr(other, ends)()
        apply(db)
        assert unread(db, name) == 1
    assert value(db, "select count(*) from tocsin.pending_change") == 0


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"subject": "a b"}, "subject is not 1 to 200 characters"),
        ({"subject": ""}, "subject is not 1 to 200 characters"),
        ({"subject": None, "replaces": True}, "replaces is true without a subject"),
        ({"unknown": "ignore"}, "unknown 'ignore' is not known"),
        ({"content": Jsonb([])}, "content is not a JSON object"),
        ({"content": Jsonb({"sms": {}})}, "content has an unknown key 'sms'"),
        (
            {"content": Jsonb({"email": {"subject": "x"}})},
            "content.email has an unknown field 'subject'",
        ),
        ({"content": Jsonb({"push": {"title": ""}})}, "content.push.title is empty"),
        ({"content": Jsonb({"push": {"data": 7}})}, "content.push.data is not a JSON object"),
        ({"content": Jsonb({"translations": {"german": {}}})}, "which is not a language tag"),
        (
            {"content": Jsonb({"translations": {"de": {"title": 7}}})},
            "content.translations.de.title is not a text",
        ),
        ({"actions": Jsonb([])}, "actions is not a list of 1 to 3 objects"),
        ({"actions": Jsonb([{"key": "A", "label": "x"}])}, r"actions\[0\].key is not 1 to 40"),
        ({"actions": Jsonb([{"key": "a"}])}, r"actions\[0\].label is not 1 to 40"),
        (
            {"actions": Jsonb([{"key": "a", "label": "x"}] * 2)},
            r"actions\[1\].key is that of another",
        ),
        (
            {"actions": Jsonb([{"key": "a", "label": "x", "url": "ftp://x"}])},
            r"actions\[0\].url is neither",
        ),
        (
            {"actions": Jsonb([{"key": "a", "label": "x", "style": "big"}])},
            r"actions\[0\].style is not known",
        ),
    ],
)
def test_wrong_options_are_refused_with_the_cure_and_nothing_is_stored(
    db: Db, named: dict[str, Any], message: str
) -> None:
    with pytest.raises(psycopg.Error, match=message) as refused:
        notify(db, ["alice"], **named)
    assert refused.value.diag.message_hint
    assert value(db, "select count(*) from tocsin.event") == 0


# inbox


def test_a_server_renders_pages_of_the_inbox(db: Db) -> None:
    for number in range(5):
        notify(db, ["alice"], f"Reply {number}")
    first = db.execute("select title, cursor from tocsin.inbox('alice', 2)").fetchall()
    assert [title for title, _ in first] == ["Reply 4", "Reply 3"]
    second = db.execute(
        "select title from tocsin.inbox('alice', 2, %s)", (first[-1][1],)
    ).fetchall()
    assert second == [("Reply 2",), ("Reply 1",)]
    value(db, "select tocsin.mark_read('alice', %s)", THREAD)
    notify(db, ["alice"], "Unread")
    assert titles(db)[0] == "Unread"
    assert db.execute("select title from tocsin.inbox('alice', unread => true)").fetchall() == [
        ("Unread",)
    ]
    assert len(db.execute("select from tocsin.inbox('alice', unread => false)").fetchall()) == 5
    for wrong, message in (
        ("'alice', 0", "max_rows"),
        ("'alice', 2, 'x'", "before"),
        ("'zoe'", "unknown recipient"),
    ):
        with pytest.raises(psycopg.Error, match=message):
            db.execute(f"select from tocsin.inbox({wrong})")
