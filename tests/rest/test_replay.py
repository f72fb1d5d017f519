"""Dead letters: their list, and what a replay changes."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tests.support.ledger import deliver
from tests.support.services import mail_catcher, mails, running, until
from tocsin.cli import main
from tocsin.engine.explain.why import explain_in_lines
from tocsin.engine.store.database import Database
from tocsin.engine.store.delivery import claim
from tocsin.engine.store.operations import (
    DeadFilter,
    Replayed,
    dead_letter_reasons,
    dead_letters,
    replay,
    replay_all,
    replay_batch,
)

YESTERDAY = datetime.now(UTC) - timedelta(days=1)
ALL = DeadFilter(YESTERDAY)


@pytest.fixture(autouse=True)
def everybody(people: None, db: Db) -> None:
    """Alice and Bob are there, and both channels have a provider."""
    db.execute("update tocsin.channel set available = true")


def row(db: Db, statement: str, *arguments: Any) -> Any:
    return db.execute(statement.encode(), arguments).fetchone()


async def test_a_dead_letter_shows_the_reply_to_its_last_attempt(
    db: Db, database: Database
) -> None:
    (delivery_id,) = deliver(db, "failed", reason="smtp_451")
    db.execute("update tocsin.delivery set reason = 'attempts_exhausted'")
    deliver(db, "sent")
    (found,), following = await dead_letters(database, ALL, cursor=None, limit=20)
    assert (found.delivery_id, found.reason, found.last_reason) == (
        delivery_id,
        "attempts_exhausted",
        "smtp_451",
    )
    assert found.title == "New reply"
    assert found.held is None
    assert following is None


async def test_pages_have_each_once_newest_first(db: Db, database: Database) -> None:
    wanted = deliver(db, "failed", reason="a", n=7)  # all of one moment
    wanted += deliver(db, "failed", reason="a", ago="1 hour")
    found: list[int] = []
    cursor = None
    while True:
        page, cursor = await dead_letters(database, ALL, cursor=cursor, limit=3)
        found += [each.delivery_id for each in page]
        if cursor is None:
            break
    assert found == [*reversed(wanted[:7]), wanted[7]]


async def test_filters_and_counts(db: Db, database: Database) -> None:
    deliver(db, "failed", reason="a", n=3)
    deliver(db, "failed", reason="b", channel="push")
    deliver(db, "failed", reason="a", ago="2 days")
    by_reason, _ = await dead_letters(
        database, DeadFilter(YESTERDAY, "email", "a"), cursor=None, limit=9
    )
    assert len(by_reason) == 3
    counted = await dead_letter_reasons(database, YESTERDAY)
    assert [(each.channel, each.reason, each.n) for each in counted] == [
        ("email", "a", 3),
        ("push", "b", 1),
    ]


async def test_a_replay_is_a_fresh_set_of_attempts(db: Db, database: Database) -> None:
    (delivery_id,) = deliver(db, "failed", reason="smtp_451")
    db.execute(
        "insert into tocsin.attempt select %s, i, now(), 'deferred', 'smtp_451' from generate_series(2, 10) i",
        (delivery_id,),
    )
    db.execute("update tocsin.delivery set attempts = 10, reason = 'attempts_exhausted'")
    done = await replay(database, [delivery_id], lift=False)
    assert (done.replayed, done.kept) == (1, {})
    assert row(
        db, "select state::text, reason, attempts, due_at <= now(), settled_at from tocsin.delivery"
    ) == (
        "queued",
        "replayed",
        0,
        True,
        None,
    )
    # again, and again
    for _ in range(2):
        db.execute(
            "insert into tocsin.attempt select %s, i, now(), 'deferred', 'smtp_451' from generate_series(1, 10) i",
            (delivery_id,),
        )
        db.execute(
            "update tocsin.delivery set state = 'failed', settled_at = now(), failed_at = now(), due_at = null,"
            " attempts = 10"
        )
        assert (await replay(database, [delivery_id], lift=False)).replayed == 1
    story = db.execute("select outcome from tocsin.attempt order by attempt").fetchall()
    # the first of the ten was written by `deliver`
    first = ["rejected", *["deferred"] * 9, "replayed"]
    again = [*["deferred"] * 10, "replayed"]
    assert [outcome for (outcome,) in story] == [*first, *again, *again]
    assert row(db, "select max(attempt) from tocsin.attempt") == (0,)


async def test_why_shows_the_replay(db: Db, database: Database) -> None:
    (delivery_id,) = deliver(db, "failed", reason="smtp_451")
    await replay(database, [delivery_id], lift=False)
    (notification_id,) = row(db, "select notification_id from tocsin.notification")
    lines = await explain_in_lines(database, notification_id)
    assert any("on its way" in line for line in lines)


async def test_a_mail_that_was_tried_alone_stays_alone(db: Db, database: Database) -> None:
    first, second = deliver(db, "failed", reason="a", n=2)
    await replay(database, [first, second], lift=False)
    claimed = await claim(
        database,
        "email",  # type: ignore[arg-type]
        [first, second],
        claim="6f1ed002-ab55-4b5f-8d33-1a2b3c4d5e6f",  # type: ignore[arg-type]
        lease=timedelta(seconds=30),
    )
    assert {each.burst_id for each in claimed} == {first, second}


@pytest.mark.parametrize(
    ("since", "kept"),
    [
        ("update tocsin.event set cancelled_at = now()", "cancelled"),
        ("update tocsin.event set expires_at = now()", "expired"),
        (
            "insert into tocsin.suppression (address, reason) values ('alice@example.com', 'smtp_550_5.1.1')",
            "suppressed",
        ),
        ("update tocsin.channel set available = false", "no_provider"),
    ],
    ids=lambda each: each if " " not in each else None,
)
async def test_what_would_be_in_vain_stays(
    db: Db, database: Database, since: str, kept: str
) -> None:
    ids = deliver(db, "failed", reason="smtp_550_5.1.1")
    db.execute(since.encode())
    assert await replay(database, ids, lift=False) == Replayed(0, {kept: 1})
    assert row(db, "select state::text from tocsin.delivery") == ("failed",)


async def test_lift_opens_the_address_that_this_refusal_closed(db: Db, database: Database) -> None:
    ids = deliver(db, "failed", reason="smtp_550_5.1.1")
    db.execute(
        "insert into tocsin.suppression (address, reason) values ('alice@example.com', 'smtp_550_5.1.1')"
    )
    assert (await replay(database, ids, lift=True)).replayed == 1
    assert row(db, "select count(*) from tocsin.suppression") == (0,)


async def test_lift_opens_no_address_that_its_reader_closed(db: Db, database: Database) -> None:
    ids = deliver(db, "failed", reason="smtp_550_5.1.1")
    db.execute(
        "insert into tocsin.suppression (address, reason) values ('alice@example.com', 'unsubscribed')"
    )
    assert (await replay(database, ids, lift=True)).kept == {"suppressed": 1}
    assert row(db, "select count(*) from tocsin.suppression") == (1,)


async def test_devices_are_like_addresses(db: Db, database: Database) -> None:
    gone, moved, closed, stale = (
        deliver(db, "failed", channel="push", reason="apns_BadDeviceToken")[0] for _ in range(4)
    )
    for delivery_id, owner, disabled in (
        (moved, "bob", None),
        (closed, "alice", "apns_BadDeviceToken"),
        (stale, "alice", "stale"),
    ):
        db.execute(
            "with v as (insert into tocsin.device"
            " (token, recipient_id, platform, provider, disabled_at, disabled_reason)"
            " values (%s, %s, 'ios', 'apns', now(), %s) returning device_id)"
            " update tocsin.delivery set device_id = v.device_id from v where delivery_id = %s",
            (f"t{delivery_id}", owner, disabled, delivery_id),
        )
    done = await replay(database, [gone, moved, closed, stale], lift=False)
    assert (done.replayed, done.kept) == (0, {"device_moved": 2, "no_device": 2})
    done = await replay(database, [gone, moved, closed, stale], lift=True)
    assert (done.replayed, done.kept) == (1, {"device_moved": 2, "no_device": 1})
    still = db.execute("select disabled_reason from tocsin.device where recipient_id = 'alice'")
    assert sorted(still.fetchall(), key=str) == [("stale",), (None,)]


async def test_only_what_failed_is_replayed(db: Db, database: Database) -> None:
    ids = [deliver(db, state)[0] for state in ("sent", "skipped", "cancelled", "expired")]
    assert (await replay(database, ids, lift=True)).replayed == 0


async def test_all_that_match_are_replayed_batch_by_batch(db: Db, database: Database) -> None:
    deliver(db, "failed", reason="a", n=1203)
    deliver(db, "failed", reason="b", n=3)
    wanted = DeadFilter(YESTERDAY, "email", "a")
    first = await replay_batch(database, wanted, cursor=None, lift=False)
    assert first.replayed == 500
    # one that fails again meanwhile is newer than the place where it goes on
    db.execute(
        "update tocsin.delivery set state = 'failed', settled_at = now(), failed_at = now(), due_at = null"
        " where delivery_id ="
        " (select min(delivery_id) from tocsin.delivery where reason = 'replayed')"
    )
    db.execute(
        "update tocsin.delivery set reason = 'a' where state = 'failed' and reason = 'replayed'"
    )
    second = await replay_batch(database, wanted, cursor=first.next, lift=False)
    third = await replay_batch(database, wanted, cursor=second.next, lift=False)
    assert (second.replayed, third.replayed, third.next) == (500, 203, None)
    rest = await replay_all(database, ALL, lift=False)
    assert rest.replayed == 4


def test_operators_replay_from_the_shell(db: Db, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(db, "failed", reason="smtp_550_5.7.1", n=2)
    db.execute(
        "insert into tocsin.suppression (address, reason) values ('bob@example.com', 'smtp_550_5.1.1')"
    )
    (other,) = deliver(db, "failed", reason="smtp_550_5.1.1", recipient="bob")
    monkeypatch.setenv("TOCSIN_DATABASE_URL", dsn)

    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["deliveries", *words])
        return result.exit_code, result.output

    assert re.search(r"2 +email +smtp_550_5.7.1 .*policy", run("failed")[1])
    assert run("replay")[0] == 2
    assert run("replay", "--all", str(other))[0] == 2
    assert run("replay", str(other)) == (0, "0 due again, 1 stay (suppressed).\n")
    assert run("replay", "--all") == (0, "2 due again, 1 stay (suppressed).\n")
    assert run("replay", "--channel", "email", "--lift") == (0, "1 due again.\n")


async def test_a_replayed_mail_is_sent_under_the_same_message_id(
    db: Db, dsn: str, database: Database, tmp_path: Path
) -> None:
    folder = tmp_path / "mails"
    async with mail_catcher(folder) as mailbox:
        settings = {
            "database_url": dsn,
            "smtp_url": mailbox.url,
            "public_url": "https://notify.example",
            "data_dir": str(tmp_path),
        }
        async with running("worker", log=tmp_path / "worker.log", settings=settings) as worker:
            await worker.wait_for_log("leading")
            db.execute("select tocsin.notify('forum.new_reply', array['alice'], 'x')")
            await until(lambda: row(db, "select state = 'sent' from tocsin.delivery")[0])
            # as if its outcome had been lost, and then its attempts
            db.execute("update tocsin.delivery set state = 'failed', reason = 'attempts_exhausted'")
            (delivery_id,) = row(db, "select delivery_id from tocsin.delivery")
            assert (await replay(database, [delivery_id], lift=False)).replayed == 1
            await until(lambda: row(db, "select state = 'sent' from tocsin.delivery")[0])
            first, second = mails(folder)
            assert first["headers"]["Message-ID"] == second["headers"]["Message-ID"]


async def test_an_opt_out_since_is_obeyed(
    db: Db, dsn: str, database: Database, tmp_path: Path
) -> None:
    ids = deliver(db, "failed", reason="smtp_451")
    db.execute("insert into tocsin.preference values ('alice', '*', 'email', false)")
    async with mail_catcher(tmp_path / "mails") as mailbox:
        settings = {
            "database_url": dsn,
            "smtp_url": mailbox.url,
            "public_url": "https://notify.example",
            "data_dir": str(tmp_path),
        }
        async with running("worker", log=tmp_path / "worker.log", settings=settings) as worker:
            await worker.wait_for_log("leading")
            await replay(database, ids, lift=False)
            await until(lambda: row(db, "select state = 'skipped' from tocsin.delivery")[0])
    assert row(db, "select reason from tocsin.delivery") == ("opted_out_since",)
