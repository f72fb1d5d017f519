"""Digests: one mail in place of many, once a person and period, and nothing waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import httpx
import psycopg
import pytest
from click.testing import CliRunner

from tests.support.digests import PREFERENCES, channel, digests, tomorrow, waiting
from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db, NewNotification
from tests.support.services import mail_catcher, mails, running, until
from tocsin.cli import main
from tocsin.dev.mail_catcher import MailCatcher
from tocsin.engine.model import Channel
from tocsin.engine.store.database import Database
from tocsin.engine.store.delivery import claim
from tocsin.engine.store.digest import make_digests
from tocsin.engine.store.installation import Retention, clean_up

# Preferences.


async def test_it_is_off_until_a_person_turns_it_on(alice: httpx.AsyncClient) -> None:
    found = (await alice.get(PREFERENCES)).json()
    assert found["frequency"] == "off"
    assert found["next_at"] is None
    assert (found["send_at"], found["timezone"], found["weekday"]) == ("06:00", "UTC", "monday")
    assert {"forum", "bulletin"} <= set(found["categories"])

    changed = (await alice.patch(PREFERENCES, json={"frequency": "daily"})).json()

    next_at = datetime.fromisoformat(changed["next_at"])
    assert next_at.hour == 6
    assert timedelta(0) < next_at - datetime.now(UTC) <= timedelta(days=1)


async def test_changes_merge_and_move_the_next_one(alice: httpx.AsyncClient) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "weekly", "weekday": "friday"})
    changed = (
        await alice.patch(PREFERENCES, json={"send_at": "18:30", "timezone": "America/New_York"})
    ).json()
    assert (changed["frequency"], changed["weekday"]) == ("weekly", "friday")
    local = datetime.fromisoformat(changed["next_at"]).astimezone(ZoneInfo("America/New_York"))
    assert (local.weekday(), f"{local:%H:%M}") == (4, "18:30")
    assert (await alice.patch(PREFERENCES, json={"frequency": "off"})).json()["next_at"] is None


async def test_its_categories_can_be_all_again(alice: httpx.AsyncClient) -> None:
    before = (await alice.get(PREFERENCES)).json()
    assert before["all_categories"] is True
    body = {"frequency": "daily", "categories": ["forum"]}
    chosen = (await alice.patch(PREFERENCES, json=body)).json()
    assert (chosen["categories"], chosen["all_categories"]) == (["forum"], False)
    again = (await alice.patch(PREFERENCES, json={"categories": None})).json()
    assert (again["categories"], again["all_categories"]) == (before["categories"], True)
    none = (await alice.patch(PREFERENCES, json={"categories": []})).json()
    assert (none["categories"], none["next_at"]) == ([], None)
    assert (await alice.patch(PREFERENCES, json={"categories": ["*"]})).status_code == 422


@pytest.mark.parametrize(
    ("body", "field", "cure"),
    [
        ({"frequency": "hourly"}, "frequency", "'hourly'"),
        ({"categories": ["forun"]}, "categories", "Did you mean forum?"),
        ({"send_at": "25:00"}, "send_at", ""),
        ({"send_at": "06:00\n"}, "send_at", ""),
        ({"timezone": "Mars/Olympus"}, "timezone", "Europe/Rome"),
        ({"weekday": "caturday"}, "weekday", ""),
        ({"hour": 6}, "hour", ""),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_kept(
    alice: httpx.AsyncClient, body: dict[str, Any], field: str, cure: str
) -> None:
    response = await alice.patch(PREFERENCES, json={"frequency": "daily"} | body)
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["field"].rstrip("[]0123456789.") == field or field in error["message"]
    assert cure in error["message"]
    assert (await alice.get(PREFERENCES)).json()["frequency"] == "off"


# What waits for it.


async def test_what_it_covers_waits_and_the_rest_goes_alone(
    alice: httpx.AsyncClient, new_notification: NewNotification, db: Db
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily", "categories": ["forum", "election"]})
    covered = [
        new_notification(),
        new_notification(event_type="forum.new_thread"),
    ]  # the latter has no email by default
    alone = [
        new_notification(event_type="bulletin.new_chapter"),
        new_notification(event_type="election.reminder"),
    ]

    whys = [(await alice.get(f"/api/notifications/{id_}/why/")).json() for id_ in covered + alone]

    emails = [channel(why, "email") for why in whys]
    assert [(each["decision"], each["reason"]) for each in emails] == [
        ("off", "digest"),
        ("off", "digest"),
        ("on", "default"),
        ("on", "default"),
    ]
    assert [len(each["deliveries"]) for each in emails] == [0, 0, 1, 1]
    assert waiting(db) == 2
    assert (await alice.get("/api/notifications/unread-count/")).json() == {"count": 4, "unseen": 4}


async def test_with_email_turned_off_there_is_neither(
    alice: httpx.AsyncClient, new_notification: NewNotification, db: Db
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    overrides = {"overrides": {"forum.new_reply": {"email": False}}}
    await alice.patch("/api/notification-preferences/", json=overrides)
    why = (await alice.get(f"/api/notifications/{new_notification()}/why/")).json()
    assert channel(why, "email")["reason"] == "preference"
    assert waiting(db) == 0


# What the mail contains.


@pytest.fixture
async def mailbox(tmp_path: Path) -> AsyncIterator[MailCatcher]:
    async with mail_catcher(tmp_path / "mails") as catcher:
        yield catcher


async def test_the_mail_groups_what_is_new_and_leaves_out_what_was_taken_back(
    alice: httpx.AsyncClient,
    new_notification: NewNotification,
    db: Db,
    dsn: str,
    mailbox: MailCatcher,
    tmp_path: Path,
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    new_notification(title="Older reply", body="With some text.", action_url="/forums/7")
    new_notification(title="Newer <reply>")
    read = new_notification(title="Seen", event_type="forum.mention")
    gone = new_notification(title="Withdrawn")
    new_notification(title="A chapter", event_type="bulletin.new_chapter")
    await alice.patch(f"/api/notifications/{read}/read/")
    command = ["digest", "run", "--now", tomorrow().isoformat()]
    environ = {"TOCSIN_DATABASE_URL": dsn}
    preview = await asyncio.to_thread(
        CliRunner().invoke, main, ["digest", "preview", "alice"], env=environ
    )
    assert "Newer <reply>" in preview.output
    assert "Withdrawn" in preview.output
    ran = await asyncio.to_thread(CliRunner().invoke, main, command, env=environ)
    assert "1 digest made" in ran.output, ran.output
    db.execute("select tocsin.cancel(event_id) from tocsin.event where title = 'Withdrawn'")

    settings = {
        "database_url": dsn,
        "smtp_url": mailbox.url,
        "public_url": "https://notify.example",
        "data_dir": str(tmp_path),
    }
    async with running("worker", log=tmp_path / "worker.log", settings=settings):
        await until(lambda: digests(db)[0][1] == "sent")

    (mail,) = mails(tmp_path / "mails")
    assert mail["subject"] == "A chapter and 2 more"
    text = mail["text"]
    places = [text.index(part) for part in ("A chapter", "FORUM", "Newer <reply>", "Older reply")]
    assert places == sorted(places)
    assert "Seen (read)" in text
    assert "Withdrawn" not in text + mail["html"]
    assert "Newer &lt;reply&gt;" in mail["html"]
    assert "https://notify.example/c/" in mail["html"]
    assert mail["headers"]["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    why = (await alice.get(f"/api/notifications/{gone}/why/")).json()
    assert "It was taken back" in str(why)
    email = channel((await alice.get(f"/api/notifications/{gone - 1}/why/")).json(), "email")
    assert email["deliveries"][0]["state"] == "sent"


async def test_why_tells_what_the_mail_left_out_from_what_was_in_it(
    alice: httpx.AsyncClient,
    db: Db,
    dsn: str,
    database: Database,
    mailbox: MailCatcher,
    tmp_path: Path,
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    db.execute("select tocsin.upsert_recipient('alice', 'alice@example.com')")
    db.execute("select tocsin.subscribe('alice', 'forum.thread:1')")
    event_ids = [
        row[0]
        for call in (
            "notify('election.opened', array['alice'], 'Kept')",
            "notify('election.opened', array['alice'], 'Cancelled')",
            "notify('learning.assigned', array['alice'], 'Withdrawn', subject => 'course:1')",
            "notify('forum.new_reply', array['alice'], 'Turned off')",
            "notify_topic('forum.thread:1', 'forum.mention', 'Muted')",
        )
        if (row := db.execute(f"select tocsin.{call}").fetchone())
    ]
    db.execute("select tocsin.cancel(%s)", (event_ids[1],))
    db.execute("select tocsin.withdraw('course:1')")
    overrides = {"forum.new_reply": {"email": False}}
    await alice.patch("/api/notification-preferences/", json={"overrides": overrides})
    db.execute("select tocsin.subscribe('alice', 'forum.thread:1', 'muted')")
    await make_digests(database, tomorrow())
    settings = {
        "database_url": dsn,
        "smtp_url": mailbox.url,
        "public_url": "https://notify.example",
        "data_dir": str(tmp_path),
    }
    async with running("worker", log=tmp_path / "worker.log", settings=settings):
        await until(lambda: digests(db)[0][1] == "sent")
    # what comes after the mail changes nothing of it
    overrides = {"election.opened": {"email": False}}
    await alice.patch("/api/notification-preferences/", json={"overrides": overrides})

    (mail,) = mails(tmp_path / "mails")
    assert mail["subject"] == "Kept"
    emails = []
    for event_id in event_ids:
        row = db.execute(
            "select notification_id from tocsin.notification where event_id = %s", (event_id,)
        ).fetchone()
        assert row
        why = (await alice.get(f"/api/notifications/{row[0]}/why/")).json()
        emails.append(channel(why, "email"))
    ends = [
        (each["state"], each["reason"], len(each["attempts"]))
        for email in emails
        for each in email["deliveries"]
    ]
    assert ends == [
        ("sent", None, 1),
        ("cancelled", "cancelled", 0),
        ("cancelled", "withdrawn", 0),
        ("skipped", "opted_out_since", 0),
        ("skipped", "muted", 0),
    ]
    assert ["The digest was sent." in email["sentence"] for email in emails] == [True] + [False] * 4
    assert "you turned it off in the meantime" in emails[3]["sentence"]


async def test_one_that_somebody_is_just_changing_keeps_no_other_waiting(
    alice: httpx.AsyncClient,
    bob: httpx.AsyncClient,
    new_notification: NewNotification,
    dsn: str,
    database: Database,
) -> None:
    for person, name in ((alice, "alice"), (bob, "bob")):
        await person.patch(PREFERENCES, json={"frequency": "daily"})
        new_notification(name)
    with psycopg.connect(dsn) as other:
        other.execute(
            "select from tocsin.digest_preference where recipient_id = 'alice' for update"
        )
        made = await make_digests(database, tomorrow())
        assert (made.people, made.digests) == (1, 1)
    assert (await make_digests(database, tomorrow())).digests == 1


async def test_its_times_are_in_its_own_zone_else_in_its_persons(
    alice: httpx.AsyncClient,
    new_notification: NewNotification,
    db: Db,
    dsn: str,
    database: Database,
) -> None:
    async def zone() -> str | None:
        new_notification(title="It is noon")
        db.execute("update tocsin.digest_preference set next_at = now()")
        await make_digests(database, tomorrow(), at_once=True)
        row = db.execute("select max(delivery_id) from tocsin.delivery where digest_id > 0")
        ids = [int(id_) for (id_,) in row.fetchall()]
        (claimed,) = await claim(
            database, Channel.EMAIL, ids, claim=uuid4(), lease=timedelta(seconds=30)
        )
        return claimed.timezone

    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    db.execute("update tocsin.recipient set timezone = null")
    assert await zone() is None
    db.execute("update tocsin.recipient set timezone = 'Asia/Tokyo'")
    assert await zone() == "Asia/Tokyo"
    await alice.patch(PREFERENCES, json={"timezone": "America/New_York"})
    assert await zone() == "America/New_York"

    new_notification(title="It is noon")
    db.execute("update tocsin.notification set created_at = '2026-07-01 12:00+00'")
    environ = {"TOCSIN_DATABASE_URL": dsn}
    command = ["digest", "preview", "alice"]
    shown = await asyncio.to_thread(CliRunner().invoke, main, command, env=environ)
    assert "1 Jul, 08:00" in shown.output


def test_a_preview_gives_the_reason_why_there_would_be_none(db: Db, dsn: str, people: None) -> None:
    environ = {"TOCSIN_DATABASE_URL": dsn}
    shown = CliRunner().invoke(main, ["digest", "preview", "alice"], env=environ)
    assert "Nothing waits for alice's digest" in shown.output
    unknown = CliRunner().invoke(main, ["digest", "preview", "nobody"], env=environ)
    assert unknown.exit_code == 1


async def test_it_is_exported_erased_and_cleaned_up_with_its_person(
    alice: httpx.AsyncClient,
    machine: httpx.AsyncClient,
    new_notification: NewNotification,
    db: Db,
    database: Database,
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    await alice.patch(f"/api/notifications/{new_notification()}/read/")
    await make_digests(database, tomorrow())
    new_notification()
    held = (await machine.get("/api/recipients/alice/export/")).json()
    assert held["digest"]["frequency"] == "daily"
    later = datetime.now(UTC) + timedelta(days=91)
    assert await clean_up(database, now=later, retention=Retention(90)) == 1
    assert digests(db) == []
    assert waiting(db) == 1
    await machine.delete("/api/recipients/alice/")
    left = db.execute(
        "select (select count(*) from tocsin.digest_item), (select count(*) from tocsin.digest_preference),"
        " (select count(*) from tocsin.delivery)"
    ).fetchone()
    assert left == (0, 0, 0)
