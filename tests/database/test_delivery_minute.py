"""The ledger by the minute: counted once, the same as the ledger itself, and never by a scan."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tests.support.ledger import deliver, plan
from tocsin.engine.ops.overview import merge
from tocsin.engine.store.database import Database
from tocsin.engine.store.operations import (
    channels,
    count_minutes,
    counted_minutes,
    settled_lately,
    unfinished,
)
from tocsin.sql import load


@pytest.fixture(autouse=True)
def everybody(people: None, db: Db) -> None:
    """Alice and Bob are there, and both channels have a provider."""
    db.execute("update tocsin.channel set available = true")


async def keep_all(database: Database, now: datetime | None = None) -> datetime:
    moment = now or datetime.now(UTC)
    while True:
        kept = await count_minutes(database, moment)
        assert kept is not None
        if kept >= moment - timedelta(minutes=2):
            return kept


def value(db: Db, statement: str) -> Any:
    row = db.execute(statement.encode()).fetchone()
    return row and row[0]


async def test_minutes_hold_what_the_ledger_holds(db: Db, database: Database) -> None:
    for minutes in range(2, 90, 7):
        deliver(db, "sent", n=minutes, ago=f"{minutes} minutes")
        deliver(db, "failed", reason="smtp_550_5.1.1", ago=f"{minutes} minutes")
        deliver(db, "skipped", reason="opted_out_since", channel="push", ago=f"{minutes} minutes")
    await keep_all(database)
    counted = db.execute(
        "select minute, channel, state, reason, sum(n) from tocsin.delivery_minute"
        " where state not in ('queued', 'sending', 'deferred') group by 1, 2, 3, 4 order by 1, 2, 3, 4"
    ).fetchall()
    ledger = db.execute(
        "select date_trunc('minute', settled_at), channel, state, coalesce(reason, ''), count(*)"
        " from tocsin.delivery group by 1, 2, 3, 4 order by 1, 2, 3, 4"
    ).fetchall()
    assert counted == ledger


async def test_counting_again_counts_nothing_twice(db: Db, database: Database) -> None:
    deliver(db, n=5, ago="5 minutes")
    await keep_all(database)
    await keep_all(database)
    # even where the mark was lost
    db.execute("update tocsin.delivery_minute_progress set upto = now() - interval '1 hour'")
    await keep_all(database)
    assert value(db, "select sum(n)::int from tocsin.delivery_minute where state = 'sent'") == 5


async def test_a_minute_is_either_kept_or_of_late_and_never_both(
    db: Db, database: Database
) -> None:
    for seconds in range(0, 240, 10):
        deliver(db, ago=f"{seconds} seconds")
    await keep_all(database)
    now = datetime.now(UTC)
    kept = await counted_minutes(database, now - timedelta(hours=1), timedelta(minutes=1))
    lately = await settled_lately(database, now)
    assert sum(sum(each.n) for each in merge(kept, lately) if each.state == "sent") == 24
    # 0 to 50 s ago, or 60 s ago by a hair
    assert sum(each.n for each in lately if each.recent) == 6


async def test_one_process_counts_at_a_time(db: Db, database: Database, dsn: str) -> None:
    with psycopg.connect(dsn) as other:
        other.execute("select from tocsin.delivery_minute_progress for update")
        assert await count_minutes(database, datetime.now(UTC)) is None


async def test_minutes_are_kept_for_two_days(db: Db, database: Database) -> None:
    db.execute(
        "insert into tocsin.delivery_minute values (now() - interval '3 days', 'email', 'sent', '', 3, 7)"
    )
    await keep_all(database)
    assert value(db, "select count(*) from tocsin.delivery_minute where n = 7") == 0


async def test_what_waits_is_sampled_each_minute(db: Db, database: Database) -> None:
    for _ in range(3):
        db.execute("select tocsin.notify('forum.new_reply', array['alice', 'bob'], 'x')")
    await keep_all(database)
    assert value(db, "select sum(n)::int from tocsin.delivery_minute where state = 'queued'") == 6


async def test_that_nothing_waits_is_known_too(db: Db, database: Database) -> None:
    await keep_all(database)
    found = db.execute(
        "select channel, state::text, n from tocsin.delivery_minute order by channel"
    ).fetchall()
    channels = ("chat", "email", "push", "web_push", "webhook")
    assert found == [(channel, "queued", 0) for channel in channels]


# Latency.


async def test_a_latency_is_from_notify_to_the_providers_word(db: Db, database: Database) -> None:
    deliver(db, took="1 second")
    (found,) = await settled_lately(database, datetime.now(UTC))
    assert 2 ** ((found.took - 1) / 4) / 1000 < 1.001
    assert 2 ** (found.took / 4) / 1000 >= 1


@pytest.mark.parametrize(
    "meant",
    [
        "insert into tocsin.quiet_hours (recipient_id, starts, ends) values ('alice', '22:00', '06:00')",
        "update tocsin.event_type set delays = '{\"email\": \"10 minutes\"}' where event_type = 'forum.new_reply'",
        "insert into tocsin.attempt select delivery_id, 0, now(), 'replayed' from tocsin.delivery",
    ],
    ids=["quiet hours", "a delay", "a replay"],
)
async def test_what_was_meant_to_wait_has_none(db: Db, database: Database, meant: str) -> None:
    deliver(db, took="11 minutes")
    db.execute(meant.encode())
    (found,) = await settled_lately(database, datetime.now(UTC))
    assert found.took == -1


async def test_what_failed_has_none(db: Db, database: Database) -> None:
    deliver(db, "failed", reason="smtp_550", took="11 minutes")
    (found,) = await settled_lately(database, datetime.now(UTC))
    assert found.took == -1


# What waits.


async def test_what_waits_is_by_state_and_reason(db: Db, database: Database) -> None:
    db.execute("select tocsin.notify('forum.new_reply', array['alice', 'bob', 'carol'], 'x')")
    db.execute(
        "update tocsin.delivery set state = 'deferred', reason = 'circuit_open', due_at = now() + interval '1 hour'"
        " where recipient_id = 'alice'"
    )
    found = {(each.state, each.reason): each.n for each in await unfinished(database)}
    assert found == {("queued", ""): 2, ("deferred", "circuit_open"): 1}


async def test_a_lane_and_a_due_delivery_are_late(db: Db, database: Database) -> None:
    db.execute("select tocsin.notify('forum.new_reply', array['alice'], 'x')")
    late = {each.channel: each.late for each in await channels(database)}
    assert 0 < late["email"] < 60
    assert late["push"] == 0
    db.execute("update tocsin.event set fanned_out_at = now() - interval '10 minutes'")
    late = {each.channel: each.late for each in await channels(database)}
    assert late["email"] > 599
    db.execute("delete from tocsin.event_queue")
    db.execute(
        "update tocsin.delivery set state = 'deferred', due_at = now() - interval '1 minute'"
    )
    late = {each.channel: each.late for each in await channels(database)}
    assert 59 < late["email"] < 90


# Plans.


@pytest.fixture
def many(db: Db) -> None:
    """A ledger large enough that a scan would be noticed: 40,000 deliveries over a day."""
    deliver(db, n=1)
    db.execute(
        "insert into tocsin.delivery"
        " (notification_id, event_id, recipient_id, channel, state, created_at, settled_at, reason)"
        " select notification_id, event_id, 'alice', 'email', case when i % 20 = 0 then 'failed' else 'sent' end"
        "   ::tocsin.delivery_state, now() - i * interval '2 seconds', now() - i * interval '2 seconds', 'r' || i % 5"
        " from tocsin.delivery, generate_series(1, 40000) i"
    )
    db.execute(
        "insert into tocsin.settled_batch (settled_at, delivery_ids)"
        " select settled_at, array_agg(delivery_id) from tocsin.delivery group by settled_at"
    )
    db.execute("vacuum analyze tocsin.delivery, tocsin.settled_batch")


def test_a_minute_is_read_by_its_index(db: Db, many: None) -> None:
    body = db.execute("select prosrc from pg_proc where proname = 'settled_between'").fetchone()
    assert body is not None
    times = {
        "_since": "now() - interval '1 minute'",
        "_until": "now()",
        "_recent": "now()",
    }
    statement = body[0]
    for name, time in times.items():
        statement = statement.replace(name, time)
    for setting in ("enable_hashjoin", "enable_mergejoin"):
        db.execute(f"set {setting} = off".encode())
    found = plan(db, statement)
    assert "settled_batch_settled_at" in found, found
    assert "delivery_pkey" in found, found
    assert "Seq Scan on delivery" not in found, found


@pytest.mark.parametrize("name", ["dead_letters", "dead_letter_reasons"])
def test_dead_letters_are_read_by_their_index(db: Db, many: None, name: str) -> None:
    arguments = {
        "at": datetime.now(UTC),
        "id": 2**63 - 1,
        "since": datetime.now(UTC) - timedelta(hours=12),
        "channel": "email",
        "reason": "r3",
        "limit": 50,
        "most": 50_000,
    }
    found = plan(db, load("operations")[name], arguments)
    assert "delivery_failed" in found, found
    assert "Seq Scan on delivery" not in found, found


def test_a_person_is_looked_up_by_an_index(db: Db, many: None) -> None:
    db.execute(
        "insert into tocsin.notification (event_id, recipient_id, event_type, created_at, in_inbox, decisions)"
        " select i, case when i < 20 then 'bob' else 'carol' end, 'forum.new_reply', now(), false, '{}'"
        " from generate_series(1000, 21000) i"
    )
    db.execute("vacuum analyze tocsin.notification")
    for name in ("bob", "carol"):
        found = plan(
            db, load("operations")["notifications_of_person"], {"recipient_id": name, "limit": 25}
        )
        assert "notification_xid" in found, found


def test_what_was_replayed_has_its_last_end_alone(db: Db) -> None:
    (id_,) = deliver(db, "failed", reason="smtp_550", ago="5 minutes")
    db.execute(
        "update tocsin.delivery set state = 'sent', reason = null, settled_at = now() - interval '2 minutes'"
    )
    db.execute(
        "insert into tocsin.settled_batch (settled_at, delivery_ids) select settled_at, array[%s::bigint]"
        " from tocsin.delivery",
        (id_,),
    )
    ends = (
        "select state::text, n from tocsin.settled_between(now() - interval '1 hour', now(), now())"
    )
    assert db.execute(ends).fetchall() == [("sent", 1)]


async def test_a_minute_is_kept_five_seconds_after_its_end(database: Database) -> None:
    noon = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    assert await keep_all(database, noon + timedelta(seconds=4)) == noon - timedelta(minutes=1)
    assert await keep_all(database, noon + timedelta(seconds=6)) == noon
    assert await keep_all(database, noon + timedelta(seconds=64)) == noon
