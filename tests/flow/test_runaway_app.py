"""An app with a loop around notify(): 10,000 notifications of one person in a minute, and two workers."""

from __future__ import annotations

from pathlib import Path

import psycopg

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tests.support.phones import IPHONE, device, far_ends
from tests.support.services import mail_catcher, mails, running, until
from tests.support.throttling import move_clock, states
from tocsin.engine.ops.overview import Overviews
from tocsin.engine.store.database import Database

CAP = 60
TIMES = 10_000
RUNAWAY = f"""
do $$
begin
    for number in 1..{TIMES} loop
        perform tocsin.notify('forum.new_reply', '{{alice}}', 'Reply ' || number);
        commit;
    end loop;
end
$$
"""


async def test_a_runaway_app_costs_the_person_the_cap_and_one_message_more(
    db: Db, dsn: str, database: Database, tmp_path: Path
) -> None:
    db.execute("select tocsin.upsert_recipient('alice', 'alice@example.com')")
    # each mail counts, where several would go as one
    db.execute("update tocsin.event_type set alone = true where event_type = 'forum.new_reply'")
    db.execute("update tocsin.channel set available = true")
    device(db, IPHONE, "ios")
    async with mail_catcher(tmp_path / "mails") as catcher, far_ends(tmp_path) as (apns, _, ends):
        settings = ends | {
            "database_url": dsn,
            "data_dir": str(tmp_path),
            "smtp_url": catcher.url,
            "public_url": "https://notify.example",
        }
        logs = [tmp_path / "worker-1.log", tmp_path / "worker-2.log"]
        async with (
            running("worker", log=logs[0], settings=settings) as worker,
            running("worker", log=logs[1], settings=settings),
        ):
            await worker.wait_for_log("working")
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as app:
                await app.execute(RUNAWAY)
            await until(
                lambda: (
                    states(db)
                    == {("sent", None): 2 * CAP, ("deferred", "throttled"): 2 * (TIMES - CAP)}
                )
            )
            assert len(mails(tmp_path / "mails")) == len(apns.received) == CAP

            lines = "".join(log.read_text() for log in logs)
            assert '"caller":"role:' in lines.replace(" ", "")
            assert "forum.new_reply" in lines
            (mail, push) = sorted(
                (await Overviews(database).get("hour")).problems[-2:], key=lambda each: each.what
            )
            assert mail.code == push.code == "throttled"
            assert "The app role:" in mail.what
            assert f"{TIMES - CAP:,} of forum.new_reply" in mail.detail

            move_clock(db, minutes=61)
            db.execute("select tocsin.wake()")
            await until(lambda: states(db) == {("sent", None): 2 * TIMES})
        *_, joined = sorted(mails(tmp_path / "mails"), key=lambda one: one["id"])
        assert joined["subject"] == f"Reply {TIMES} and {TIMES - CAP - 1:,} more".replace(",", "")
        assert len(mails(tmp_path / "mails")) == len(apns.received) == CAP + 1
        alert = apns.received[-1].payload["aps"]
        assert alert["alert"]["title"] == f"{TIMES - CAP} more notifications"
        assert alert["badge"] == TIMES
        assert db.execute("select tocsin.unread_count('alice')").fetchone() == (TIMES,)
