"""Digests: one mail in place of many, once a person and period, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from datetime import time as clock
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import httpx
import psycopg
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db, Tell
from tests.support.services import mail_catcher, mails, running, service_dsn, until
from tocsin.cli import main
from tocsin.dev.mail_catcher import MailCatcher
from tocsin.engine.model import Channel
from tocsin.engine.store.database import Database
from tocsin.engine.store.delivery import claim
from tocsin.engine.store.digest import make_digests
from tocsin.engine.store.installation import clean_up

PREFERENCES = "/api/digest-preferences/"
WEEKDAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


def tomorrow(hour: int = 6) -> datetime:
    """The next digest's hour of tomorrow: later than any that is due today."""
    day = datetime.now(UTC).date() + timedelta(days=1)
    return datetime.combine(day, clock(hour), UTC)


def waiting(db: Db) -> int:
    row = db.execute("select count(*) from tocsin.digest_item where digest_id is null").fetchone()
    assert row is not None
    return int(row[0])


def digests(db: Db) -> list[tuple[Any, ...]]:
    return db.execute(
        "select g.recipient_id, d.state::text, d.reason from tocsin.digest g"
        " join tocsin.delivery d using (digest_id) order by g.digest_id"
    ).fetchall()


def channel(why: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in why["channels"] if each["channel"] == name)


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
    answer = await alice.patch(PREFERENCES, json={"frequency": "daily"} | body)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"].rstrip("[]0123456789.") == field or field in error["message"]
    assert cure in error["message"]
    assert (await alice.get(PREFERENCES)).json()["frequency"] == "off"


# What waits for it.


async def test_what_it_covers_waits_and_the_rest_goes_alone(
    alice: httpx.AsyncClient, tell: Tell, db: Db
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily", "categories": ["forum", "election"]})
    covered = [tell(), tell(event_type="forum.new_thread")]  # the latter has no email by default
    alone = [tell(event_type="bulletin.new_chapter"), tell(event_type="election.reminder")]

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
    assert (await alice.get("/api/notifications/unread-count/")).json() == {"count": 4}


async def test_with_email_turned_off_there_is_neither(
    alice: httpx.AsyncClient, tell: Tell, db: Db
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    overrides = {"overrides": {"forum.new_reply": {"email": False}}}
    await alice.patch("/api/notification-preferences/", json=overrides)
    why = (await alice.get(f"/api/notifications/{tell()}/why/")).json()
    assert channel(why, "email")["reason"] == "preference"
    assert waiting(db) == 0


# When it comes.


async def test_one_a_person_and_period_however_often_it_runs(
    alice: httpx.AsyncClient, tell: Tell, db: Db, database: Database
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    tell()
    assert (await make_digests(database, datetime.now(UTC))).people == 0  # not due yet
    first = await make_digests(database, tomorrow())
    assert (first.people, first.digests, first.unsent) == (1, 1, 0)
    tell()
    assert (await make_digests(database, tomorrow())).people == 0
    assert waiting(db) == 1
    # after two days without anybody at work there is one, not two
    late = await make_digests(database, tomorrow() + timedelta(days=2, hours=5))
    assert (late.people, late.digests) == (1, 1)
    assert digests(db) == [("alice", "queued", None)] * 2
    next_at = (await alice.get(PREFERENCES)).json()["next_at"]
    assert datetime.fromisoformat(next_at) == tomorrow() + timedelta(days=3)


async def test_one_whose_hour_is_exactly_now_is_made_and_the_next_one_comes_a_day_later(
    alice: httpx.AsyncClient, tell: Tell, db: Db, database: Database
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    tell()
    hour = tomorrow()
    db.execute("update tocsin.digest_preference set next_at = %s", (hour,))
    early = await make_digests(database, hour - timedelta(microseconds=1))
    assert (early.people, waiting(db)) == (0, 1)
    made = await make_digests(database, hour)
    assert (made.people, made.digests, waiting(db)) == (1, 1, 0)
    assert db.execute("select next_at from tocsin.digest_preference").fetchone() == (
        hour + timedelta(days=1),
    )


async def test_a_new_hour_brings_no_second_one_on_the_same_day(
    alice: httpx.AsyncClient, tell: Tell, db: Db, database: Database
) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=1)
    later = soon + timedelta(minutes=5)
    if later.date() != soon.date():
        soon = later
    await alice.patch(PREFERENCES, json={"frequency": "daily", "send_at": f"{soon:%H:%M}"})
    tell()
    made = await make_digests(database, soon + timedelta(minutes=1))
    assert made.digests == 1
    changed = (await alice.patch(PREFERENCES, json={"send_at": f"{later:%H:%M}"})).json()
    assert datetime.fromisoformat(changed["next_at"]).date() > soon.date()


async def test_one_that_is_due_comes_whatever_is_chosen_before_it_is_made(
    alice: httpx.AsyncClient, tell: Tell, db: Db, database: Database
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    tell()
    db.execute("update tocsin.digest_preference set next_at = now() - interval '2 minutes'")
    await alice.patch(PREFERENCES, json={"categories": ["bulletin", "forum"], "send_at": "07:00"})
    assert (await make_digests(database, datetime.now(UTC))).digests == 1
    next_at = datetime.fromisoformat((await alice.get(PREFERENCES)).json()["next_at"])
    assert (next_at > datetime.now(UTC), next_at.hour) == (True, 7)


async def test_off_and_on_again_is_one_a_day_too(
    alice: httpx.AsyncClient, tell: Tell, db: Db, database: Database
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    tell()
    await alice.patch(PREFERENCES, json={"frequency": "off"})
    db.execute("update tocsin.digest_preference set next_at = now()")
    assert (await make_digests(database, datetime.now(UTC))).digests == 1
    again = {"frequency": "daily", "send_at": "23:59"}
    changed = (await alice.patch(PREFERENCES, json=again)).json()
    assert datetime.fromisoformat(changed["next_at"]).date() > datetime.now(UTC).date()


async def test_what_comes_after_it_was_turned_off_goes_alone(
    alice: httpx.AsyncClient, tell: Tell, db: Db
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    await alice.patch(PREFERENCES, json={"frequency": "off"})
    tell()
    assert waiting(db) == 0
    assert db.execute("select channel from tocsin.delivery").fetchall() == [("email",)]


async def test_a_zone_is_one_that_every_part_knows(
    alice: httpx.AsyncClient, machine: httpx.AsyncClient
) -> None:
    for zone in ("europe/rome", "PST", "Z", "Factory", "posix/Europe/Rome"):
        put = await machine.put("/api/recipients/alice/", json={"timezone": zone})
        chosen = await alice.patch(PREFERENCES, json={"timezone": zone})
        assert (put.status_code, chosen.status_code) == (422, 422), zone
    assert (await machine.put("/api/recipients/alice/", json={"timezone": "EST5EDT"})).is_success
    assert (await alice.patch(PREFERENCES, json={"timezone": "EST5EDT"})).is_success


@pytest.mark.parametrize(("method", "path"), [("PATCH", "read/"), ("DELETE", "")])
async def test_nothing_unread_is_no_mail_and_the_reason_is_kept(
    alice: httpx.AsyncClient, tell: Tell, db: Db, database: Database, method: str, path: str
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    id_ = tell()
    await alice.request(method, f"/api/notifications/{id_}/{path}")
    made = await make_digests(database, tomorrow())
    assert (made.people, made.digests, made.unsent) == (1, 0, 1)
    assert digests(db) == [("alice", "skipped", "already_read")]
    email = channel((await alice.get(f"/api/notifications/{id_}/why/")).json(), "email")
    assert "you had read it by then" in email["sentence"]
    # and with nothing waiting at all
    made = await make_digests(database, tomorrow() + timedelta(days=1))
    assert (made.people, made.digests, made.unsent) == (1, 0, 0)


async def test_what_waits_goes_out_in_a_last_one_when_it_is_turned_off(
    alice: httpx.AsyncClient, tell: Tell, db: Db, database: Database
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    tell()
    assert (await alice.patch(PREFERENCES, json={"frequency": "off"})).json()["next_at"] is None
    assert (await make_digests(database, tomorrow())).digests == 1
    assert waiting(db) == 0


async def test_what_commits_after_the_last_one_goes_out_too(
    alice: httpx.AsyncClient, tell: Tell, db: Db, dsn: str, database: Database
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    with psycopg.connect(dsn) as late:
        late.execute("select tocsin.notify('forum.new_reply', array['alice'], 'late')")
        await alice.patch(PREFERENCES, json={"frequency": "off"})
        assert (await make_digests(database, tomorrow())).digests == 0
    assert waiting(db) == 1
    assert (await make_digests(database, tomorrow())).digests == 1
    assert waiting(db) == 0


async def test_an_unsubscribe_link_ends_it_at_once(
    alice: httpx.AsyncClient, tell: Tell, db: Db, database: Database
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    tell()
    assert db.execute("select tocsin.turn_digest_off('alice')").fetchone() == (True,)
    made = await make_digests(database, tomorrow())
    assert (made.digests, made.unsent) == (0, 1)
    assert digests(db) == [("alice", "skipped", "opted_out_since")]
    assert waiting(db) == 0


async def test_many_runs_at_once_make_each_digest_once(
    db: Db, dsn: str, database: Database
) -> None:
    count = 300
    db.execute(
        "select tocsin.upsert_recipient('p' || i, 'p' || i || '@example.com') from generate_series(1, %s) i",
        (count,),
    )
    db.execute(
        "select tocsin.set_digest_preference('p' || i, 'daily', null, null, null, null)"
        " from generate_series(1, %s) i",
        (count,),
    )
    everyone = "array(select 'p' || i from generate_series(1, 300) i)"
    db.execute(f"select tocsin.notify('forum.new_reply', {everyone}, 'one')")
    stop = threading.Event()

    def keep_telling() -> None:
        with psycopg.connect(dsn) as app:
            for _ in range(20):
                if stop.is_set():
                    return
                app.execute(f"select tocsin.notify('forum.new_reply', {everyone}, 'more')")
                app.commit()

    telling = asyncio.to_thread(keep_telling)
    pools = [Database(service_dsn(dsn), max_size=1) for _ in range(4)]
    for pool in pools:
        await pool.open()
    busy = asyncio.ensure_future(telling)
    made = await asyncio.gather(
        *(make_digests(pool, tomorrow(), leftovers=False) for pool in pools)
    )
    stop.set()
    await busy
    for pool in pools:
        await pool.close()
    assert sum(each.people for each in made) == count
    assert sum(each.digests for each in made) == count
    assert db.execute(
        "select count(*), count(distinct recipient_id) from tocsin.digest"
    ).fetchone() == (count, count)
    # each notification is in one at most, and the late ones wait for the next
    assert db.execute(
        "select count(*) from tocsin.notification n left join tocsin.digest_item i using (notification_id)"
        " where i.notification_id is null"
    ).fetchone() == (0,)


# What it says.


@pytest.fixture
async def mailbox(tmp_path: Path) -> AsyncIterator[MailCatcher]:
    async with mail_catcher(tmp_path / "mails") as catcher:
        yield catcher


async def test_the_mail_groups_what_is_new_and_leaves_out_what_was_taken_back(
    alice: httpx.AsyncClient, tell: Tell, db: Db, dsn: str, mailbox: MailCatcher, tmp_path: Path
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    tell(title="Older reply", body="With some text.", action_url="/forums/7")
    tell(title="Newer <reply>")
    read = tell(title="Seen", event_type="forum.mention")
    gone = tell(title="Withdrawn")
    tell(title="A chapter", event_type="bulletin.new_chapter")
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


async def test_one_that_somebody_is_just_changing_keeps_no_other_waiting(
    alice: httpx.AsyncClient,
    bob: httpx.AsyncClient,
    tell: Tell,
    dsn: str,
    database: Database,
) -> None:
    for person, name in ((alice, "alice"), (bob, "bob")):
        await person.patch(PREFERENCES, json={"frequency": "daily"})
        tell(name)
    with psycopg.connect(dsn) as other:
        other.execute(
            "select from tocsin.digest_preference where recipient_id = 'alice' for update"
        )
        made = await make_digests(database, tomorrow())
        assert (made.people, made.digests) == (1, 1)
    assert (await make_digests(database, tomorrow())).digests == 1


async def test_its_times_are_in_its_own_zone_else_in_its_persons(
    alice: httpx.AsyncClient, tell: Tell, db: Db, dsn: str, database: Database
) -> None:
    async def zone() -> str | None:
        tell(title="It is noon")
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

    tell(title="It is noon")
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
    tell: Tell,
    db: Db,
    database: Database,
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    await alice.patch(f"/api/notifications/{tell()}/read/")
    await make_digests(database, tomorrow())
    tell()
    held = (await machine.get("/api/recipients/alice/export/")).json()
    assert held["digest"]["frequency"] == "daily"
    later = datetime.now(UTC) + timedelta(days=91)
    assert await clean_up(database, now=later, retention=timedelta(days=90)) == 1
    assert digests(db) == []
    assert waiting(db) == 1
    await machine.delete("/api/recipients/alice/")
    left = db.execute(
        "select (select count(*) from tocsin.digest_item), (select count(*) from tocsin.digest_preference),"
        " (select count(*) from tocsin.delivery)"
    ).fetchone()
    assert left == (0, 0, 0)


# When it is due, against a naive model: of years that no new version of the zones' rules changes.

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "America/Sao_Paulo",
    "Pacific/Apia",
    "Asia/Tehran",
    "America/St_Johns",
]


def naive_next(frequency: str, at: clock, zone: str, weekday: int, after: datetime) -> datetime:
    """Day by day, by the zone's clock."""
    local = ZoneInfo(zone)
    day = after.astimezone(local).date() - timedelta(days=1)
    while True:
        if frequency == "daily" or day.isoweekday() == weekday:
            # a time that comes twice is the later one; one that is skipped comes as much later
            wall = datetime.combine(day, at, local)
            there = wall.replace(fold=1).astimezone(UTC).astimezone(local)
            exists = there.replace(tzinfo=None) == wall.replace(tzinfo=None)
            moment = wall.replace(fold=1 if exists else 0).astimezone(UTC)
            if moment > after:
                return moment
        day += timedelta(days=1)


@hypothesis_settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    frequency=st.sampled_from(["daily", "weekly"]),
    at=st.times(timezones=st.none()).map(lambda t: t.replace(second=0, microsecond=0)),
    zone=st.sampled_from(ZONES),
    weekday=st.integers(1, 7),
    after=st.datetimes(datetime(2012, 1, 1), datetime(2025, 1, 1)).map(  # noqa: DTZ001
        lambda t: t.replace(microsecond=0, tzinfo=UTC)
    ),
)
def test_due_times_agree_with_a_naive_model(
    db: Db, frequency: str, at: clock, zone: str, weekday: int, after: datetime
) -> None:
    row = db.execute(
        "select tocsin.next_digest_at("
        "row('x', %s, null, %s, %s, %s, null, false, now())::tocsin.digest_preference, %s)",
        (frequency, at, weekday, zone, after),
    ).fetchone()
    assert row is not None
    assert row[0] == naive_next(frequency, at, zone, weekday, after)
