"""Time zones: due times and the times in mails follow the same rules, those of PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

from tests.support.services import mail_catcher, mails, running, until
from tocsin.dev.mail_catcher import MailCatcher
from tocsin.engine.mail.loader import DEFAULT
from tocsin.engine.mail.samples import preview
from tocsin.engine.store.database import Database
from tocsin.engine.store.delivery import zone_rules

Db = psycopg.Connection[Any]

ZONES = (
    "UTC",
    "Europe/Rome",
    "Africa/Casablanca",
    "America/Vancouver",
    "America/St_Johns",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
)


@pytest.fixture
async def mailbox(tmp_path: Path) -> AsyncIterator[MailCatcher]:
    async with mail_catcher(tmp_path / "mails") as catcher:
        yield catcher


@pytest.fixture
def other_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's Rome, for processes that are started from here: seven or eight hours ahead of PostgreSQL's."""
    folder = tmp_path / "zoneinfo" / "Europe"
    folder.mkdir(parents=True)
    (folder / "Rome").write_bytes((files("tzdata") / "zoneinfo" / "Asia" / "Tokyo").read_bytes())
    monkeypatch.setenv("PYTHONTZPATH", str(folder.parent))


async def test_the_rules_of_a_zone_are_postgresqls(db: Db, database: Database) -> None:
    random = Random(7)
    years = timedelta(days=80 * 365)
    begin = datetime(1970, 1, 1, tzinfo=UTC)
    moments = [begin + random.random() * years for _ in range(3000)]
    rules = {zone.name: zone for zone in await zone_rules(database, [*ZONES, "Mars/Olympus"])}
    assert set(rules) == set(ZONES)
    for name, zone in rules.items():
        expected = db.execute(
            "select at at time zone %s from unnest(%s::timestamptz[]) with ordinality u (at, n) order by n",
            (name, moments),
        ).fetchall()
        assert [(zone.local(at).replace(tzinfo=None),) for at in moments] == expected


@pytest.mark.usefixtures("other_rules")
async def test_mails_show_times_by_the_rules_by_which_they_are_due(
    db: Db, dsn: str, database: Database, mailbox: MailCatcher, tmp_path: Path
) -> None:
    db.execute(
        "select tocsin.upsert_recipient('alice', 'alice@example.com', timezone => 'Europe/Rome')"
    )
    settings = {
        "database_url": dsn,
        "smtp_url": mailbox.url,
        "public_url": "https://notify.example",
        "data_dir": str(tmp_path),
    }
    async with running("worker", log=tmp_path / "worker.log", settings=settings):
        db.execute(
            "select tocsin.notify('event.invited', array['alice'], 'Picnic', '', null, %s)",
            ('{"starts_at": "2026-07-10T10:00:00Z"}',),
        )
        await until(lambda: len(mails(tmp_path / "mails")) == 1)
        db.execute(
            "select tocsin.set_digest_preference('alice', 'daily', '{*}', '06:00', 'Europe/Rome', null)"
        )
        db.execute("select tocsin.notify('forum.new_reply', array['alice'], 'Reply')")
        shown = db.execute(
            "select to_char(created_at at time zone 'Europe/Rome', 'HH24:MI') from tocsin.notification"
            " where event_type = 'forum.new_reply'"
        ).fetchone()
        assert shown is not None
        assert shown[0] in await preview(database, "alice", "Tocsin <n@example.com>", DEFAULT)
        db.execute("update tocsin.digest_preference set next_at = clock_timestamp()")
        db.execute("select tocsin.assemble_digests(clock_timestamp(), 10)")
        await until(lambda: len(mails(tmp_path / "mails")) == 2)
    by_subject = {mail["subject"]: mail["text"] for mail in mails(tmp_path / "mails")}
    picnic = by_subject.pop("Picnic")
    assert "12:00" in picnic
    assert "19:00" not in picnic
    (digest,) = by_subject.values()
    assert shown[0] in digest
