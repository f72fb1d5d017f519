"""A mail that a worker sent comes back: its report is tied to it by what the mail itself carries."""

from __future__ import annotations

from pathlib import Path

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tests.support.services import mail_catcher, mails, running, until
from tocsin.dev.mail_catcher import returned
from tocsin.engine.explain.why import explain_in_lines
from tocsin.engine.mail.links import find_tagged_delivery
from tocsin.engine.mail.returned import read_report, to_mail_events
from tocsin.engine.store.database import Database
from tocsin.engine.store.installation import get_secret
from tocsin.engine.store.mail_event import record_mail_events


async def test_a_mail_that_comes_back_suppresses_its_address_once_it_is_no_mass_rejection(
    db: Db, dsn: str, database: Database, people: None, tmp_path: Path
) -> None:
    folder = tmp_path / "mails"
    async with mail_catcher(folder) as mailbox:
        settings = {
            "database_url": dsn,
            "smtp_url": mailbox.url,
            "public_url": "https://notify.example",
            "data_dir": str(tmp_path),
            "return_path": "bounces+{tag}@notify.example",
        }
        async with running("worker", log=tmp_path / "worker.log", settings=settings) as worker:
            await worker.wait_for_log("leading")
            db.execute("select tocsin.notify('forum.new_reply', array['alice'], 'New reply')")
            await until(
                lambda: db.execute("select 1 from tocsin.delivery where state = 'sent'").fetchone()
            )
            (mail,) = mails(folder)
            key = await get_secret(database, "link_key")
            row = db.execute("select delivery_id, notification_id from tocsin.delivery").fetchone()
            assert row is not None
            delivery_id, notification_id = row
            for carried in ("Message-ID", "X-Tocsin-Delivery"):
                assert find_tagged_delivery(key, mail["headers"][carried]) == delivery_id
            assert find_tagged_delivery(key, mail["envelope_from"]) == delivery_id
            source = (folder / f"{mail['id']}.eml").read_bytes()
            report = read_report(
                returned(source, "bounce", sender=mail["envelope_from"], address="x@example.com")
            )
            assert report is not None
            await record_mail_events(database, "dsn", to_mail_events([report], key))
            assert db.execute("select 1 from tocsin.suppression").fetchone() is None
            # decided by a task of the worker
            await until(
                lambda: db.execute(
                    "select 1 from tocsin.suppression where address = 'alice@example.com'"
                ).fetchone()
            )
    lines = await explain_in_lines(database, notification_id)
    assert any("The mailbox does not exist (bounced " in line for line in lines)
