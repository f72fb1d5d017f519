"""Clean-up: what is over goes, with what hangs on it, and no badge moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tocsin.engine.store.catalogue_file import parse_catalogue
from tocsin.engine.store.database import Database
from tocsin.engine.store.installation import Retention, clean_up, count_over
from tocsin.engine.store.recipient import list_devices, register_device
from tocsin.migrate import apply_catalogue

Db = psycopg.Connection[Any]
NOW = datetime(2026, 11, 21, 3, 17, tzinfo=UTC)
RETENTION = Retention(90)
TABLES = ("event", "notification", "delivery", "attempt")


def counts(db: Db) -> dict[str, int]:
    return {table: number(db, f"select count(*) from tocsin.{table}") for table in TABLES}


def number(db: Db, statement: str) -> int:
    row = db.execute(statement).fetchone()
    assert row is not None
    return int(row[0])


def notify_people(db: Db, *recipients: str, days_ago: int, **columns: str) -> None:
    """Notifications that were read, archived or made that long ago."""
    for name in recipients:
        db.execute("select tocsin.upsert_recipient(%s, %s)", (name, f"{name}@example.com"))
    event_id = number(db, f"select tocsin.notify('forum.new_reply', array{list(recipients)}, 'x')")
    at = NOW - timedelta(days=days_ago)
    for column, value in {"created_at": "%(at)s", **columns}.items():
        db.execute(
            f"update tocsin.notification set {column} = {value} where event_id = %(event_id)s",
            {"at": at, "event_id": event_id},
        )
    db.execute(
        "insert into tocsin.attempt select delivery_id, 1, now(), 'sent', null from tocsin.delivery"
        " where event_id = %s",
        (event_id,),
    )


async def test_what_was_read_long_ago_goes_with_all_that_hangs_on_it(
    db: Db, database: Database
) -> None:
    notify_people(db, "alice", days_ago=91, read_at="%(at)s")
    notify_people(db, "alice", days_ago=89, read_at="%(at)s")
    notify_people(db, "alice", days_ago=400)
    before = number(db, "select tocsin.unread_count('alice')")
    assert await count_over(database, now=NOW, retention=RETENTION) == 1
    assert counts(db)["notification"] == 3
    assert await clean_up(database, now=NOW, retention=RETENTION) == 1
    assert counts(db) == dict.fromkeys(TABLES, 2)
    assert number(db, "select tocsin.unread_count('alice')") == before
    assert await clean_up(database, now=NOW, retention=RETENTION) == 0


async def test_what_was_archived_or_never_in_an_inbox_goes_too(db: Db, database: Database) -> None:
    notify_people(db, "alice", days_ago=91, archived_at="%(at)s")
    notify_people(db, "alice", days_ago=91, in_inbox="false")
    assert await clean_up(database, now=NOW, retention=RETENTION) == 2
    assert counts(db) == dict.fromkeys(TABLES, 0)


@pytest.mark.parametrize(
    ("columns", "left"),
    [
        ({}, 1),
        ({"read_at": "%(at)s + interval '399 days'"}, 1),
        ({"archived_at": "%(at)s + interval '399 days'"}, 1),
        ({"read_at": "%(at)s + interval '300 days'"}, 0),
        ({"archived_at": "%(at)s + interval '300 days'"}, 0),
        (
            {
                "read_at": "%(at)s + interval '300 days'",
                "archived_at": "%(at)s + interval '399 days'",
            },
            0,
        ),
        ({"in_inbox": "false"}, 0),
        ({"in_inbox": "false", "read_at": "%(at)s + interval '399 days'"}, 1),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else str(value),
)
async def test_retention_counts_from_reading_and_not_from_creation(
    db: Db, database: Database, columns: dict[str, str], left: int
) -> None:
    notify_people(db, "alice", days_ago=400, **columns)
    assert await clean_up(database, now=NOW, retention=RETENTION) == 1 - left
    assert counts(db) == dict.fromkeys(TABLES, left)


async def test_a_place_in_a_digest_goes_with_its_notification(db: Db, database: Database) -> None:
    notify_people(db, "alice", days_ago=100, read_at="%(at)s")
    notify_people(db, "alice", days_ago=1, read_at="%(at)s")
    db.execute(
        "insert into tocsin.digest_item (notification_id, recipient_id)"
        " select notification_id, recipient_id from tocsin.notification"
    )
    await clean_up(database, now=NOW, retention=RETENTION)
    left = (
        "select count(*) from tocsin.digest_item join tocsin.notification using (notification_id)"
    )
    assert number(db, "select count(*) from tocsin.digest_item") == number(db, left) == 1


async def test_digests_of_the_last_weeks_stay(db: Db, database: Database) -> None:
    db.execute("select tocsin.upsert_recipient('alice')")
    for days in (91, 89):
        db.execute(
            "with made as ("
            " insert into tocsin.digest (recipient_id, frequency, due_at, created_at)"
            " values ('alice', 'daily', %(at)s, %(at)s) returning digest_id)"
            " insert into tocsin.delivery (recipient_id, channel, digest_id, state, created_at)"
            " select 'alice', 'email', digest_id, 'sent', %(at)s from made",
            {"at": NOW - timedelta(days=days)},
        )
    await clean_up(database, now=NOW, retention=RETENTION)
    assert number(db, "select count(*) from tocsin.digest") == 1
    assert (
        number(db, "select count(*) from tocsin.delivery join tocsin.digest using (digest_id)") == 1
    )
    assert number(db, "select count(*) from tocsin.delivery") == 1


async def test_reports_on_mails_go_with_their_deliveries_and_unknown_ones_in_time(
    db: Db, database: Database
) -> None:
    notify_people(db, "alice", days_ago=91, read_at="%(at)s")
    notify_people(db, "alice", days_ago=89, read_at="%(at)s")
    report = (
        "insert into tocsin.mail_event (source, key, kind, reason, dead, delivery_id, occurred_at, received_at)"
        " values ('dsn', sha256(%s), 'bounce', 'bounce_5.1.1', true, %s, now(), %s)"
    )
    ids = [row[0] for row in db.execute("select delivery_id from tocsin.delivery order by 1")]
    for key, (delivery_id, days) in enumerate([(ids[0], 1), (ids[1], 100), (None, 91), (None, 89)]):
        db.execute(report, (str(key).encode(), delivery_id, NOW - timedelta(days=days)))
    await clean_up(database, now=NOW, retention=RETENTION)
    left = db.execute("select delivery_id from tocsin.mail_event order by mail_event_id").fetchall()
    assert left == [(ids[1],), (None,)]


async def test_an_old_event_stays_until_it_is_fanned_out_and_while_it_has_notifications(
    db: Db, database: Database
) -> None:
    notify_people(db, "alice", days_ago=400)
    later = (
        "select tocsin.notify('forum.new_reply', '{alice}', 'later', send_at => now() + '1 hour')"
    )
    cancelled = number(db, later)
    db.execute("select tocsin.cancel(%s)", (cancelled,))
    db.execute("select tocsin.notify('forum.new_reply', '{}', 'for nobody')")
    scheduled = number(db, later)
    db.execute("update tocsin.event set created_at = %s", (NOW - timedelta(days=400),))
    await clean_up(database, now=NOW, retention=RETENTION)
    left = db.execute("select title, event_id from tocsin.event order by title").fetchall()
    assert [title for title, _ in left] == ["later", "x"]
    assert left[0][1] == scheduled


async def test_pushes_that_corrected_a_badge_go_two_days_after_their_end(
    db: Db, database: Database
) -> None:
    db.execute("select tocsin.upsert_recipient('alice')")
    now = datetime.now(UTC)
    for created, settled in ((3, None), (3, 1), (3, 2.5)):
        at = now - timedelta(days=settled) if settled else None
        db.execute(
            "insert into tocsin.delivery (recipient_id, channel, state, due_at, created_at, settled_at)"
            " values ('alice', 'push', %s, %s, %s, %s)",
            ("sent" if at else "queued", None if at else now, now - timedelta(days=created), at),
        )
    await clean_up(database, now=now, retention=RETENTION)
    left = db.execute("select state::text from tocsin.delivery order by delivery_id").fetchall()
    assert left == [("queued",), ("sent",)]


async def test_an_event_stays_while_somebody_has_not_read_it(db: Db, database: Database) -> None:
    notify_people(db, "alice", "bob", days_ago=100)
    db.execute("update tocsin.notification set read_at = created_at where recipient_id = 'bob'")
    assert await clean_up(database, now=NOW, retention=RETENTION) == 1
    assert counts(db)["event"] == 1


async def test_one_that_is_just_being_marked_is_not_waited_for(
    db: Db, database: Database, dsn: str
) -> None:
    notify_people(db, "alice", days_ago=100, read_at="%(at)s")
    with psycopg.connect(dsn) as other:
        other.execute("select from tocsin.notification for update")
        assert await clean_up(database, now=NOW, retention=RETENTION) == 0
    assert await clean_up(database, now=NOW, retention=RETENTION) == 1


async def test_many_batches_go_in_one_run(db: Db, database: Database) -> None:
    notify_people(db, *(f"p{i}" for i in range(2500)), days_ago=100, read_at="%(at)s")
    assert await clean_up(database, now=NOW, retention=RETENTION) == 2500
    assert counts(db)["event"] == 0


async def test_keys_and_tickets_of_yesterday_go(db: Db, database: Database) -> None:
    db.execute("insert into tocsin.idempotency values ('c', 'old', '', 1, now() - interval '25 h')")
    db.execute(
        "insert into tocsin.idempotency values ('c', 'not yet', '', 3, now() - interval '23 h 50 min')"
    )
    db.execute("insert into tocsin.idempotency values ('c', 'new', '', 2, now())")
    db.execute(
        "insert into tocsin.stream_ticket values ('a', 'alice', now() - interval '1 min', now(), null),"
        " ('b', 'alice', now() + interval '1 min', now(), null)"
    )
    await clean_up(database, now=datetime.now(UTC), retention=RETENTION)
    assert db.execute("select key from tocsin.idempotency order by key").fetchall() == [
        ("new",),
        ("not yet",),
    ]
    assert db.execute("select count(*) from tocsin.stream_ticket").fetchone() == (1,)


PHONES = {"old": "01" * 32, "older": "02" * 32, "dead": "03" * 32}


async def test_a_device_that_was_not_registered_again_for_270_days_is_stale(
    db: Db, database: Database
) -> None:
    db.execute("select tocsin.upsert_recipient('alice')")
    for token in ("old", "older", "dead"):
        await register_device(
            database,
            "alice",
            token=PHONES[token],
            platform="ios",
            provider="apns",
            environment="production",
        )
    db.execute(
        "update tocsin.device set disabled_at = now(), disabled_reason = 'Unregistered' where token like '0303%'"
    )
    today = datetime.now(UTC)
    await clean_up(database, now=today + timedelta(days=269), retention=RETENTION)
    assert await reasons(database) == {"old": None, "older": None, "dead": "Unregistered"}
    db.execute(
        "update tocsin.device set registered_at = now() - interval '2 d' where token like '0202%'"
    )
    await clean_up(database, now=today + timedelta(days=269), retention=RETENTION)
    assert await reasons(database) == {"old": None, "older": "stale", "dead": "Unregistered"}
    # one that was disabled already keeps its reason; and registering it again enables it
    await clean_up(database, now=today + timedelta(days=600), retention=RETENTION)
    assert await reasons(database) == {"old": "stale", "older": "stale", "dead": "Unregistered"}
    await register_device(
        database,
        "alice",
        token=PHONES["older"],
        platform="ios",
        provider="apns",
        environment="production",
    )
    await clean_up(database, now=today + timedelta(days=269), retention=RETENTION)
    assert await reasons(database) == {"old": "stale", "older": None, "dead": "Unregistered"}
    db.execute("update tocsin.channel set available = true where channel = 'push'")
    db.execute("select tocsin.notify('messages.new_dm', array['alice'], 'x')")
    assert number(db, "select count(*) from tocsin.delivery where channel = 'push'") == 1


async def reasons(database: Database) -> dict[str, str | None]:
    names = {token[-6:]: name for name, token in PHONES.items()}
    devices = await list_devices(database, "alice")
    return {names[each.token]: each.disabled_reason for each in devices}


async def test_unread_ones_are_kept_for_ever_unless_a_time_is_set(
    db: Db, database: Database
) -> None:
    notify_people(db, "alice", "bob", days_ago=400)
    notify_people(db, "alice", days_ago=20)
    kept = Retention(90, unread_days=365)
    assert await count_over(database, now=NOW, retention=RETENTION) == 0
    assert await clean_up(database, now=NOW, retention=RETENTION) == 0
    assert await count_over(database, now=NOW, retention=kept) == 2
    assert await clean_up(database, now=NOW, retention=kept) == 2
    assert await clean_up(database, now=NOW, retention=kept) == 0
    assert counts(db)["notification"] == number(db, "select tocsin.unread_count('alice')") == 1
    assert counts(db)["event"] == number(db, "select count(distinct event_id) from tocsin.delivery")
    assert number(db, "select tocsin.unread_count('bob')") == 0
    changed = db.execute(
        "select recipient_id, change, cardinality(notification_ids) from tocsin.inbox_change"
        " where change = 'archived' order by 1"
    ).fetchall()
    assert changed == [("alice", "archived", 1), ("bob", "archived", 1)]


CATALOGUE = """[event_types]
"forum.new_reply" = { label = "Reply", channels = ["in_app"], unread_retention = "3d" }
"""


async def test_an_event_type_has_a_time_of_its_own_for_unread_ones(
    db: Db, database: Database, dsn: str
) -> None:
    notify_people(db, "alice", days_ago=4)
    notify_people(db, "alice", days_ago=2)
    notify_people(db, "alice", days_ago=4, read_at="%(at)s")
    db.execute("select tocsin.notify('forum.mention', array['alice'], 'x')")
    apply_catalogue(dsn, parse_catalogue(CATALOGUE, "shop.toml"))
    before = number(db, "select tocsin.unread_count('alice')")
    kept = Retention(90, unread_days=365)
    assert await clean_up(database, now=NOW, retention=kept) == 1
    assert counts(db)["notification"] == 3
    assert number(db, "select tocsin.unread_count('alice')") == before - 1


async def test_many_unread_ones_are_deleted_in_batches_past_those_that_stay(
    db: Db, database: Database
) -> None:
    people = [f"p{number}" for number in range(1_200)]
    notify_people(db, *people, days_ago=400, read_at="'2026-11-20T00:00:00Z'")
    notify_people(db, *people, days_ago=400)
    notify_people(db, *people, days_ago=1)
    notify_people(db, "alice", days_ago=400)
    unread = "select sum(tocsin.unread_count(recipient_id)) from tocsin.recipient"
    before = number(db, unread)
    assert await clean_up(database, now=NOW, retention=Retention(90, unread_days=30)) == 1_201
    assert counts(db)["notification"] == 2_400
    assert number(db, unread) == before - 1_201


async def test_an_unread_one_that_an_app_has_locked_is_left_for_the_next_time(
    db: Db, database: Database, dsn: str
) -> None:
    notify_people(db, "alice", "bob", days_ago=400)
    kept = Retention(90, unread_days=30)
    with psycopg.connect(dsn) as app:
        app.execute("update tocsin.notification set read_at = now() where recipient_id = 'bob'")
        assert await clean_up(database, now=NOW, retention=kept) == 1
    assert await clean_up(database, now=NOW, retention=kept) == 0
    assert counts(db)["notification"] == 1
