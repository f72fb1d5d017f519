"""What a person chose for a topic after an event: the presend check and digests obey it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.support.services import mail_catcher, mail_count, running, service_dsn, until
from tests.support.topics import *  # noqa: F403 - fixtures
from tests.support.topics import THREAD, Db, reply, value
from tocsin import subscribe, unsubscribe
from tocsin.engine.model import Channel, Mail, Message
from tocsin.engine.store import delivery
from tocsin.engine.store.database import Database


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    """A worker's pool."""
    pool = Database(service_dsn(dsn), max_size=2)
    await pool.open()
    yield pool
    await pool.close()


@pytest.mark.parametrize(
    ("change", "event_type", "metadata", "withheld"),
    [
        (None, "forum.new_reply", {}, None),
        ("muted", "forum.new_reply", {"mentions": ["alice"]}, "muted"),
        ("mentions", "forum.new_reply", {}, "opted_out_since"),
        ("mentions", "forum.new_reply", {"mentions": ["alice"]}, None),
        ("none", "forum.new_reply", {}, "opted_out_since"),
        ("muted", "compliance.overdue", {}, None),
    ],
)
async def test_the_presend_check_obeys_what_was_chosen_since(
    db: Db,
    database: Database,
    change: str | None,
    event_type: str,
    metadata: dict[str, Any],
    withheld: str | None,
) -> None:
    subscribe(db, "alice", THREAD)
    reply(db, event_type=event_type, metadata=metadata)
    (claimed,) = await delivery.claim(
        database,
        Channel.EMAIL,
        [value(db, "select delivery_id from tocsin.delivery where channel = 'email'")],
        claim=uuid4(),
        lease=timedelta(seconds=30),
    )
    assert (claimed.topic, claimed.because) == (
        THREAD,
        "mentioned" if metadata else "followed",
    )
    if change == "none":
        unsubscribe(db, "alice", THREAD)
    elif change:
        subscribe(db, "alice", THREAD, change)
    mail = Mail("<1@x>", "New reply", "text", "<p>html</p>")
    message = Message(
        claimed.delivery_id, claimed.claim, Channel.EMAIL, claimed.priority, content=mail
    )
    (check_result,) = (await delivery.presend_check(database, [message])).values()
    assert (check_result.withheld and check_result.withheld.reason) == withheld


@pytest.mark.parametrize("choice", ["muted", "mentions", "none"])
def test_a_digest_leaves_out_what_was_muted_or_left_since(db: Db, choice: str) -> None:
    db.execute(
        "insert into tocsin.digest_preference (recipient_id, frequency) values ('alice', 'daily')"
    )
    subscribe(db, "alice", THREAD)
    reply(db)
    entries = "select count(*) from tocsin.digest_entry"
    assert value(db, entries) == 1
    if choice == "none":
        unsubscribe(db, "alice", THREAD)
    else:
        subscribe(db, "alice", THREAD, choice)
    assert value(db, entries) == 0


async def test_nothing_leaves_after_a_muting_has_committed(
    db: Db, dsn: str, tmp_path: Path
) -> None:
    db.execute(
        "select tocsin.upsert_recipient('n' || i, 'n' || i || '@example.com')"
        " from generate_series(1, 400) i"
    )
    db.execute("select tocsin.subscribe('n' || i, %s) from generate_series(1, 400) i", (THREAD,))
    settings = {"public_url": "https://notify.example", "database_url": dsn}
    async with mail_catcher(tmp_path / "mails") as mailbox:
        settings |= {"smtp_url": mailbox.url, "data_dir": str(tmp_path)}
        async with running("worker", log=tmp_path / "worker.log", settings=settings) as worker:
            await worker.wait_for_log("leading")
            reply(db)
            await until(lambda: mail_count(tmp_path / "mails") > 20)
            db.execute(
                "select tocsin.subscribe('n' || i, %s, 'muted') from generate_series(1, 400) i",
                (THREAD,),
            )
            committed = value(db, "select clock_timestamp()")
            ends = "select count(*) from tocsin.delivery where settled_at is not null"
            await until(lambda: value(db, ends) == 400)
    muted = value(
        db, "select count(*) from tocsin.delivery where (state, reason) = ('skipped', 'muted')"
    )
    presend_check = value(db, "select max(checked_at) from tocsin.delivery where state = 'sent'")
    assert muted + mail_count(tmp_path / "mails") == 400
    # a check ends as long after its snapshot as it takes, which on a busy machine is more than a moment
    assert presend_check < committed + timedelta(seconds=1)
