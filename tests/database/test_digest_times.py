"""When a person's digest is due, however often it is made or changed."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from datetime import time as clock
from zoneinfo import ZoneInfo

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.support.digests import PREFERENCES, channel, digests, tomorrow, waiting
from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db, NewNotification
from tests.support.services import service_dsn
from tocsin.engine.store.database import Database
from tocsin.engine.store.digest import make_digests

# When it comes.


async def test_one_a_person_and_period_however_often_it_runs(
    alice: httpx.AsyncClient, new_notification: NewNotification, db: Db, database: Database
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    new_notification()
    assert (await make_digests(database, datetime.now(UTC))).people == 0  # not due yet
    first = await make_digests(database, tomorrow())
    assert (first.people, first.digests, first.unsent) == (1, 1, 0)
    new_notification()
    assert (await make_digests(database, tomorrow())).people == 0
    assert waiting(db) == 1
    # after two days without anybody at work there is one, not two
    late = await make_digests(database, tomorrow() + timedelta(days=2, hours=5))
    assert (late.people, late.digests) == (1, 1)
    assert digests(db) == [("alice", "queued", None)] * 2
    next_at = (await alice.get(PREFERENCES)).json()["next_at"]
    assert datetime.fromisoformat(next_at) == tomorrow() + timedelta(days=3)


async def test_one_whose_hour_is_exactly_now_is_made_and_the_next_one_comes_a_day_later(
    alice: httpx.AsyncClient, new_notification: NewNotification, db: Db, database: Database
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    new_notification()
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
    alice: httpx.AsyncClient, new_notification: NewNotification, db: Db, database: Database
) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=1)
    later = soon + timedelta(minutes=5)
    if later.date() != soon.date():
        soon = later
    await alice.patch(PREFERENCES, json={"frequency": "daily", "send_at": f"{soon:%H:%M}"})
    new_notification()
    made = await make_digests(database, soon + timedelta(minutes=1))
    assert made.digests == 1
    changed = (await alice.patch(PREFERENCES, json={"send_at": f"{later:%H:%M}"})).json()
    assert datetime.fromisoformat(changed["next_at"]).date() > soon.date()


async def test_one_that_is_due_comes_whatever_is_chosen_before_it_is_made(
    alice: httpx.AsyncClient, new_notification: NewNotification, db: Db, database: Database
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    new_notification()
    db.execute("update tocsin.digest_preference set next_at = now() - interval '2 minutes'")
    await alice.patch(PREFERENCES, json={"categories": ["bulletin", "forum"], "send_at": "07:00"})
    assert (await make_digests(database, datetime.now(UTC))).digests == 1
    next_at = datetime.fromisoformat((await alice.get(PREFERENCES)).json()["next_at"])
    assert (next_at > datetime.now(UTC), next_at.hour) == (True, 7)


async def test_off_and_on_again_is_one_a_day_too(
    alice: httpx.AsyncClient, new_notification: NewNotification, db: Db, database: Database
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    new_notification()
    await alice.patch(PREFERENCES, json={"frequency": "off"})
    db.execute("update tocsin.digest_preference set next_at = now()")
    assert (await make_digests(database, datetime.now(UTC))).digests == 1
    again = {"frequency": "daily", "send_at": "23:59"}
    changed = (await alice.patch(PREFERENCES, json=again)).json()
    assert datetime.fromisoformat(changed["next_at"]).date() > datetime.now(UTC).date()


async def test_what_comes_after_it_was_turned_off_goes_alone(
    alice: httpx.AsyncClient, new_notification: NewNotification, db: Db
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    await alice.patch(PREFERENCES, json={"frequency": "off"})
    new_notification()
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
    alice: httpx.AsyncClient,
    new_notification: NewNotification,
    db: Db,
    database: Database,
    method: str,
    path: str,
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    id_ = new_notification()
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
    alice: httpx.AsyncClient, new_notification: NewNotification, db: Db, database: Database
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    new_notification()
    assert (await alice.patch(PREFERENCES, json={"frequency": "off"})).json()["next_at"] is None
    assert (await make_digests(database, tomorrow())).digests == 1
    assert waiting(db) == 0


async def test_what_commits_after_the_last_one_goes_out_too(
    alice: httpx.AsyncClient,
    new_notification: NewNotification,
    db: Db,
    dsn: str,
    database: Database,
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
    alice: httpx.AsyncClient, new_notification: NewNotification, db: Db, database: Database
) -> None:
    await alice.patch(PREFERENCES, json={"frequency": "daily"})
    new_notification()
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

    def keep_notifying() -> None:
        with psycopg.connect(dsn) as app:
            for _ in range(20):
                if stop.is_set():
                    return
                app.execute(f"select tocsin.notify('forum.new_reply', {everyone}, 'more')")
                app.commit()

    notifying = asyncio.to_thread(keep_notifying)
    pools = [Database(service_dsn(dsn), max_size=1) for _ in range(4)]
    for pool in pools:
        await pool.open()
    busy = asyncio.ensure_future(notifying)
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
