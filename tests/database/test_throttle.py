"""The limits of messages to one person: what is beyond is deferred, joined and sent as one; the ledger is real."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tests.support.throttling import installation, notify, states
from tocsin.engine.explain.why import explain_in_lines
from tocsin.engine.model import Channel, Deferred, Unknown
from tocsin.engine.store import delivery as store
from tocsin.engine.store.database import Database

PHONE = "select tocsin.register_push_token('alice', repeat('ab', 32), 'ios')"


@pytest.fixture(autouse=True)
def known(db: Db) -> None:
    db.execute("select tocsin.upsert_recipient('alice', 'alice@example.com')")


def alone(db: Db) -> None:
    """Mails of replies are sent alone, so that the limits are what joins them."""
    db.execute("update tocsin.event_type set alone = true where event_type = 'forum.new_reply'")


def titles(*numbers: int) -> list[str]:
    return [f"Reply {n}" for n in range(*numbers)]


async def test_what_is_beyond_the_cap_comes_as_one_mail_after_an_hour(
    db: Db, dsn: str, database: Database
) -> None:
    alone(db)
    async with installation(db, dsn, database) as (running, actors):
        notify(db, "forum.new_reply", *titles(12))
        await running.work()
        assert [mail.subject for mail in actors["email"].sent] == titles(5)
        assert states(db) == {("sent", None): 5, ("deferred", "throttled"): 7}
        assert db.execute("select max(attempts) from tocsin.delivery").fetchone() == (1,)
        (last,) = db.execute("select max(notification_id) from tocsin.notification").fetchone() or (
            0,
        )
        why = "\n".join(await explain_in_lines(database, last))
        assert (
            "You got many in a short time, so it waits to be part of one message with others" in why
        )

        # an hour after the first was sent, not before, and those that came since go with them
        running.wait(minutes=55)
        notify(db, "forum.new_reply", "Reply 12")
        await running.work()
        assert len(actors["email"].sent) == 5
        running.wait(minutes=6)
        await running.work()
        assert [mail.subject for mail in actors["email"].sent[5:]] == ["Reply 12 and 7 more"]
        assert states(db) == {("sent", None): 13}
        assert db.execute(
            "select count(distinct delivery_id) from tocsin.attempt where outcome = 'sent'"
        ).fetchone() == (13,)


async def test_the_message_of_thousands_shows_the_newest_and_counts_the_others(
    db: Db, dsn: str, database: Database
) -> None:
    alone(db)
    async with installation(db, dsn, database) as (running, actors):
        notify(db, "forum.new_reply", *titles(700))
        await running.work()
        assert states(db) == {("sent", None): 5, ("deferred", "throttled"): 695}
        db.execute("select tocsin.cancel(event_id) from tocsin.event where title = 'Reply 100'")
        db.execute("update tocsin.event set cancelled_at = now() where title = 'Reply 101'")
        running.wait(minutes=61)
        del running.jobs[:]
        await running.work()
        (mail,) = actors["email"].sent[5:]
        assert mail.subject == "Reply 699 and 692 more"
        assert "and 663 more" in mail.text
        assert [len(job) for job in running.jobs] == [1]
        assert states(db) == {("sent", None): 698, ("cancelled", "cancelled"): 2}
        assert db.execute("select count(*) from tocsin.lease").fetchone() == (1,)


async def test_mandatory_and_urgent_ones_have_ten_times_the_cap(
    db: Db, dsn: str, database: Database
) -> None:
    alone(db)
    async with installation(db, dsn, database, cap=2) as (running, actors):
        notify(db, "forum.new_reply", *titles(4))
        notify(db, "compliance.overdue", *(f"Overdue {n}" for n in range(10)))
        notify(db, "billing.payment_due", *(f"Due {n}" for n in range(12)))
        await running.work()
        assert len(actors["email"].sent) == 20
        found = db.execute(
            "select e.event_type, count(*) from tocsin.delivery d join tocsin.event e using (event_id)"
            " where d.channel = 'email' and d.state = 'deferred' group by 1 order by 1"
        ).fetchall()
        assert sum(n for _, n in found) == 6
        running.wait(minutes=61)
        await running.work()
        assert len(actors["email"].sent) == 21
        assert ("deferred", "throttled") not in states(db)


async def test_a_burst_counts_one_and_a_digest_none(db: Db, dsn: str, database: Database) -> None:
    async with installation(db, dsn, database, cap=2) as (running, actors):
        for n in range(2):
            notify(db, "forum.new_reply", *titles(10 * n, 10 * n + 10))
            await running.work()
        assert [mail.subject for mail in actors["email"].sent] == [
            "Reply 9 and 9 more",
            "Reply 19 and 9 more",
        ]
        assert states(db) == {("sent", None): 20}
        notify(db, "forum.new_reply", "One more")
        await running.work()
        assert states(db) == {("sent", None): 20, ("deferred", "throttled"): 1}


async def test_pushes_are_joined_to_a_summary_in_the_persons_language(
    db: Db, dsn: str, database: Database
) -> None:
    db.execute(PHONE)
    db.execute("select tocsin.upsert_recipient('alice', locale => 'de-AT')")
    async with installation(db, dsn, database, cap=2) as (running, actors):
        notify(db, "messages.new_dm", *titles(7))
        await running.work()
        assert [push.title for push in actors["apns"].sent] == titles(2)
        running.wait(minutes=61)
        await running.work()
        (summary,) = actors["apns"].sent[2:]
        assert summary.title == "5 weitere Benachrichtigungen"
        assert summary.body == "Reply 6 · Reply 5 · Reply 4 …"
        assert summary.data == {"notifications": "5"}
        assert states(db) == {("sent", None): 7}


async def test_a_summary_of_one_subject_has_the_line_of_its_group(
    db: Db, dsn: str, database: Database
) -> None:
    db.execute(PHONE)
    db.execute(
        'update tocsin.event_type set title_many = \'{"en": {"other": "{count} messages in “{about}”"}}\''
        " where event_type = 'messages.new_dm'"
    )
    async with installation(db, dsn, database, cap=1) as (running, actors):
        for n in range(4):
            notify(
                db,
                "messages.new_dm",
                f"Dan: {n}",
                subject="chat:7",
                body=f"Hello {n}",
                metadata='{"about": "Picnic"}',
            )
        await running.work()
        running.wait(minutes=61)
        await running.work()
        summary = actors["apns"].sent[-1]
        assert (summary.title, summary.body) == ("3 messages in “Picnic”", "Hello 3")


async def test_a_type_has_a_throttle_of_its_own_for_each_subject(
    db: Db, dsn: str, database: Database
) -> None:
    alone(db)
    db.execute(
        "update tocsin.event_type set throttle_most = 2, throttle_within = '10 minutes'"
        " where event_type = 'forum.new_reply'"
    )
    async with installation(db, dsn, database, cap=60) as (running, actors):
        for subject in ("thread:1", "thread:2"):
            notify(db, "forum.new_reply", *titles(5), subject=subject)
            await running.work()
        notify(db, "bulletin.new_chapter", *(f"Chapter {n}" for n in range(3)))
        await running.work()
        assert sorted(mail.subject for mail in actors["email"].sent) == [
            "Chapter 2 and 2 more",
            *sorted(2 * titles(2)),
        ]
        assert states(db) == {("sent", None): 7, ("deferred", "throttled"): 6}
        running.wait(minutes=9)
        await running.work()
        assert len(actors["email"].sent) == 5
        running.wait(minutes=2)
        await running.work()
        assert [mail.subject for mail in actors["email"].sent[5:]] == 2 * ["Reply 4 and 2 more"]
        assert states(db) == {("sent", None): 13}


async def test_a_joined_message_waits_for_the_end_of_quiet_hours(
    db: Db, dsn: str, database: Database
) -> None:
    alone(db)
    async with installation(db, dsn, database, cap=1) as (running, actors):
        notify(db, "forum.new_reply", *titles(4))
        await running.work()
        # they begin while it waits
        db.execute(
            "insert into tocsin.quiet_hours (recipient_id, starts, ends, timezone)"
            " select 'alice', t::time, (t + interval '3 hours')::time, 'UTC'"
            " from (select now() at time zone 'UTC' - interval '1 hour' as t) t"
        )
        running.wait(minutes=61)
        await running.work()
        assert states(db) == {("sent", None): 1, ("deferred", "throttled"): 3}
        (until,) = db.execute(
            "select distinct due_at > now() + interval '100 minutes' from tocsin.delivery where state = 'deferred'"
        ).fetchone() or (None,)
        assert until
        db.execute("delete from tocsin.quiet_hours")
        running.wait(minutes=121)
        await running.work()
        assert [mail.subject for mail in actors["email"].sent[1:]] == ["Reply 3 and 2 more"]


async def test_a_joined_message_is_repeated_as_it_was(db: Db, dsn: str, database: Database) -> None:
    alone(db)
    async with installation(db, dsn, database, cap=1) as (running, actors):
        notify(db, "forum.new_reply", *titles(400))
        await running.work()
        actors["email"].outcome = Unknown("smtp_timeout_data")
        running.wait(minutes=61)
        await running.work()
        assert states(db) == {("sent", None): 1, ("deferred", "smtp_timeout_data"): 399}
        # although the limit is reached by then
        notify(db, "bulletin.new_chapter", "A chapter")
        actors["email"].outcome = Deferred("smtp_421")
        running.wait(minutes=1)
        actors["email"].outcome = Deferred("smtp_421")
        await running.work()
        running.wait(hours=2)
        actors["email"].outcome = actors["fcm"].outcome
        await running.work()
        assert states(db) == {("sent", None): 401}
        joined = [mail for mail in actors["email"].sent if mail.subject.endswith("398 more")]
        assert len(joined) >= 2
        assert len({mail.message_id for mail in joined}) == 1


async def test_the_deliveries_of_a_dead_worker_stay_together(
    db: Db, dsn: str, database: Database
) -> None:
    alone(db)
    async with installation(db, dsn, database, cap=1) as (running, actors):
        notify(db, "forum.new_reply", *titles(30))
        await running.work()
        running.wait(minutes=61)
        await running._dispatched()  # the job is lost
        db.execute("update tocsin.delivery set due_at = now() where state = 'queued'")
        await running.work()
        assert [mail.subject for mail in actors["email"].sent[1:]] == ["Reply 29 and 28 more"]


async def test_no_cap_is_no_limit(db: Db, dsn: str, database: Database) -> None:
    alone(db)
    async with installation(db, dsn, database, cap=0) as (running, actors):
        notify(db, "forum.new_reply", *titles(100))
        await running.work()
        assert len(actors["email"].sent) == 100


async def test_of_two_workers_that_claim_at_once_the_first_that_counts_sends(
    db: Db, dsn: str, database: Database
) -> None:
    alone(db)
    db.execute("update tocsin.channel set available = true")
    notify(db, "forum.new_reply", *titles(8))
    ids = [one for (one,) in db.execute("select delivery_id from tocsin.delivery order by 1")]
    tokens = uuid4(), uuid4()
    lease = timedelta(seconds=30)
    for token, mine in zip(tokens, (ids[:4], ids[4:]), strict=True):
        claimed = await store.claim(database, Channel.EMAIL, mine, claim=token, lease=lease, cap=5)
        assert all(one.near_limit for one in claimed)
    held = [
        [one.held for one in await store.throttle(database, token, mine, withheld=[], cap=5)]
        for token, mine in zip(tokens, (ids[:4], ids[4:]), strict=True)
    ]
    assert held == [[], ["throttled"] * 3]
    # repeated, since its result was lost: nothing of what it deferred is sent
    again = await store.throttle(database, tokens[1], ids[4:], withheld=[], cap=5)
    assert {one.delivery_id for one in again if one.held} >= set(ids[5:])
