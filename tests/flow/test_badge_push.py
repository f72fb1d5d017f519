"""What a person reads on the web corrects the badge of each of their phones, by one silent push."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import SECRET, URL, Db
from tests.support.phones import IPHONE, Phones, device, phones  # noqa: F401 - a fixture
from tests.support.services import free_port, running, service_dsn, until
from tocsin.engine.dispatch.dispatcher import Dispatcher
from tocsin.engine.store.database import Database
from tocsin.engine.store.installation import Retention, clean_up

INBOX = "/api/notifications/"
ONLY_APNS = "delete from tocsin.provider where channel = 'push' and provider <> 'apns'"
NO_PUSH = "insert into tocsin.preference values ('alice', '*', 'push', false)"


@pytest.fixture(autouse=True)
def everybody(people: None) -> None:
    """Alice and Bob are there."""


def arrive(db: Db, count: int, recipient: str = "alice") -> list[int]:
    """Notifies without a push; returns the ids of the notifications."""
    for _ in range(count):
        db.execute("select tocsin.notify('forum.new_thread', array[%s], 'x')", (recipient,))
    found = db.execute(
        "select notification_id from tocsin.notification where recipient_id = %s order by 1 desc limit %s",
        (recipient, count),
    )
    return [notification_id for (notification_id,) in found.fetchall()]


def read(db: Db, *notification_ids: int, recipient: str = "alice") -> None:
    for notification_id in notification_ids:
        db.execute("select tocsin.mark_read(%s, %s, true)", (recipient, notification_id))


def corrections(db: Db) -> list[tuple[str, str | None]]:
    return db.execute(
        "select state::text, reason from tocsin.delivery where event_id is null order by delivery_id"
    ).fetchall()


async def asked(db: Db, count: int) -> None:
    """A leader has been through all changes, and has asked for so many corrections in all."""
    noticed = (
        "select bool_and(pg_visible_in_snapshot(c.xid, m.snapshot))"
        " from tocsin.inbox_change c, tocsin.badge_push_progress m"
    )
    await until(lambda: db.execute(noticed).fetchone() == (True,))
    assert len(corrections(db)) == count


async def sent_at_once(db: Db, states: tuple[str, ...] = ("sent",)) -> None:
    """The window is over before its time."""
    db.execute(
        "update tocsin.delivery set due_at = now() where event_id is null and state = 'queued'"
    )
    db.execute("select tocsin.wake()")
    await until(lambda: {state for state, _ in corrections(db)} <= set(states))


# From the web to both phones.


async def test_three_read_on_the_web_are_one_silent_push_for_each_phone(
    db: Db,
    phones: Phones,  # noqa: F811
    alice: httpx.AsyncClient,
) -> None:
    device(db, IPHONE, "ios")
    device(db, "pixel", "android")
    device(db, "b2" * 32, "ios", "bob")
    for notification_id in arrive(db, 4)[:3]:
        assert (await alice.patch(f"{INBOX}{notification_id}/read/")).status_code == 200
    await asked(db, 2)
    await sent_at_once(db)
    (iphone,) = phones.apns.received
    assert iphone.payload == {"aps": {"badge": 1}}
    assert iphone.headers["apns-push-type"] == "alert"
    assert iphone.headers["apns-priority"] == "5"
    assert iphone.headers["apns-collapse-id"] == "tocsin-badge"
    (pixel,) = phones.fcm.received
    assert pixel.message["data"] == {"silent": "1", "badge": "1"}
    assert "notification" not in pixel.message
    assert pixel.message["android"]["priority"] == "NORMAL"
    assert (await alice.post(f"{INBOX}mark-all-read/")).json() == {"marked": 1}
    await asked(db, 4)
    await sent_at_once(db)
    assert phones.apns.received[-1].payload == {"aps": {"badge": 0}}
    assert phones.fcm.received[-1].message["data"]["badge"] == "0"


async def test_an_app_that_cancels_corrects_the_badge_too(
    db: Db,
    phones: Phones,  # noqa: F811
) -> None:
    device(db, IPHONE, "ios")
    arrive(db, 2)
    db.execute("select tocsin.cancel(max(event_id)) from tocsin.event")
    await asked(db, 1)
    await sent_at_once(db)
    assert [each.payload for each in phones.apns.received] == [{"aps": {"badge": 1}}]


async def test_what_is_new_right_after_is_in_both_pushes(
    db: Db,
    phones: Phones,  # noqa: F811
) -> None:
    device(db, IPHONE, "ios")
    read(db, *arrive(db, 2)[:1])
    db.execute("select tocsin.notify('messages.new_dm', array['alice'], 'Bob: hello')")
    await until(lambda: len(phones.apns.received) == 1)
    await asked(db, 1)
    await sent_at_once(db)
    alert, silent = phones.apns.received
    assert alert.payload["aps"]["alert"] == {"title": "Bob: hello"}
    assert (alert.payload["aps"]["badge"], silent.payload) == (2, {"aps": {"badge": 2}})


async def test_who_turned_push_off_since_gets_none(
    db: Db,
    phones: Phones,  # noqa: F811
) -> None:
    device(db, IPHONE, "ios")
    read(db, *arrive(db, 1))
    await asked(db, 1)
    db.execute(NO_PUSH)
    await sent_at_once(db, ("skipped",))
    assert corrections(db) == [("skipped", "opted_out_since")]
    assert not phones.apns.received


# The setting, in whichever process leads.


@pytest.mark.parametrize(
    ("process", "setting"), [("worker", "false"), ("serve", "false"), ("serve", "true")]
)
async def test_the_setting_holds_in_whichever_process_leads(
    db: Db, dsn: str, tmp_path: Path, process: str, setting: str
) -> None:
    reachable(db)
    device(db, IPHONE, "ios")
    settings = {
        "database_url": dsn,
        "data_dir": str(tmp_path),
        "port": str(free_port()),
        "public_url": URL,
        "jwt_secret": SECRET,
        "badge_pushes": setting,
    }
    async with running(process, log=tmp_path / "log", settings=settings) as service:
        await service.wait_for_log("leading")
        reachable(db)  # the worker reported that it has no provider
        read(db, *arrive(db, 1))
        await asked(db, 1 if setting == "true" else 0)


# Whose devices, and how often: a leader alone, and nobody who sends.


def reachable(db: Db, *providers: str) -> None:
    """Reports the providers as a worker does."""
    db.execute("update tocsin.channel set available = true where channel = 'push'")
    db.execute(
        "insert into tocsin.provider select 'push', p, now() from unnest(%s::text[]) p on conflict do nothing",
        (list(providers or ("apns", "apns_sandbox", "fcm")),),
    )


@asynccontextmanager
async def leader(dsn: str) -> AsyncIterator[None]:
    dispatcher = Dispatcher(service_dsn(dsn))
    task = asyncio.create_task(dispatcher.run())
    try:
        await until(lambda: dispatcher.leading)
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_hundred_reads_are_one_push_for_each_device(db: Db, dsn: str) -> None:
    reachable(db)
    device(db, IPHONE, "ios")
    device(db, "pixel", "android")
    async with leader(dsn):
        for notification_id in arrive(db, 100):
            read(db, notification_id)
        await asked(db, 2)
    assert corrections(db) == [("queued", None)] * 2


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ("select", 1),
        ("delete from tocsin.device", 0),
        ("update tocsin.device set disabled_at = now()", 0),
        ("update tocsin.device set recipient_id = 'bob'", 0),
        ("update tocsin.channel set available = false where channel = 'push'", 0),
        ("delete from tocsin.provider where provider <> 'fcm'", 0),
        (ONLY_APNS, 1),
        ("update tocsin.device set environment = 'sandbox'", 1),
        ("update tocsin.device set environment = 'sandbox'; " + ONLY_APNS, 0),
        ("insert into tocsin.preference values ('alice', 'forum.*', 'push', false)", 1),
        (NO_PUSH, 0),
        (NO_PUSH + ", ('alice', 'messages.*', 'push', true)", 1),
        ("insert into tocsin.quiet_hours values ('alice', '00:00', '23:59:59', 'UTC')", 1),
    ],
)
async def test_only_devices_that_can_be_reached_and_are_wanted(
    db: Db, dsn: str, change: str, count: int
) -> None:
    reachable(db)
    device(db, IPHONE, "ios")
    db.execute(change.encode())
    read(db, *arrive(db, 1))
    async with leader(dsn):
        await asked(db, count)


def test_one_that_waits_is_enough_until_it_is_being_sent(db: Db) -> None:
    reachable(db)
    device(db, IPHONE, "ios")
    ask = "select tocsin.queue_badge_pushes('{alice}', interval '5 s', interval '1 hour', null)"
    assert db.execute(ask).fetchone() == (1,)
    assert db.execute(
        "select due_at > now() + interval '4 s' from tocsin.delivery where event_id is null"
    ).fetchone() == (True,)
    assert db.execute(ask).fetchone() == (0,)
    db.execute("update tocsin.delivery set state = 'sending', due_at = null where event_id is null")
    assert db.execute(ask).fetchone() == (1,)


async def test_what_is_new_asks_for_none(db: Db, dsn: str) -> None:
    reachable(db)
    device(db, IPHONE, "ios")
    read_by_bob = arrive(db, 1, "bob")
    async with leader(dsn):
        arrive(db, 3)
        read(db, *read_by_bob, recipient="bob")
        await asked(db, 0)


async def test_one_that_is_just_being_sent_does_not_stand_for_a_later_change(
    db: Db, dsn: str
) -> None:
    reachable(db)
    device(db, IPHONE, "ios")
    first, second, third = arrive(db, 3)
    async with leader(dsn):
        read(db, first)
        await asked(db, 1)
        db.execute(
            "update tocsin.delivery set state = 'sending', claim = gen_random_uuid(), due_at = now() + '1 h'"
        )
        read(db, second)
        await asked(db, 2)
        # the first is due again, and stands for what comes until then: nothing is in its way
        db.execute(
            "update tocsin.delivery set state = 'deferred', claim = null where state = 'sending'"
        )
        read(db, third)
        await asked(db, 2)
    assert sorted(corrections(db)) == [("deferred", None), ("queued", None)]


async def test_a_new_leader_goes_on_where_the_last_one_was(db: Db, dsn: str) -> None:
    reachable(db)
    device(db, IPHONE, "ios")
    first, second = arrive(db, 2)
    async with leader(dsn):
        read(db, first)
        await asked(db, 1)
    db.execute("update tocsin.delivery set state = 'sent', due_at = null")
    async with leader(dsn):
        pass
    read(db, second)  # while nobody leads
    async with leader(dsn):
        await asked(db, 2)
    db.execute("update tocsin.delivery set state = 'sent', due_at = null")
    async with leader(dsn):
        read(db, *arrive(db, 1, "bob"), recipient="bob")
        await asked(db, 2)


async def test_a_restored_database_has_a_mark_of_its_own(db: Db, dsn: str) -> None:
    """There, the stored snapshot may lie in the future."""
    reachable(db)
    device(db, IPHONE, "ios")
    db.execute("update tocsin.badge_push_progress set snapshot = '999999999990:999999999999:'")
    reset = "select pg_snapshot_xmax(snapshot) < '999999999999' from tocsin.badge_push_progress"
    async with leader(dsn):
        # what changes before is found by the leader's first scan, for which no badge is corrected
        await until(lambda: db.execute(reset).fetchone() == (True,))
        read(db, *arrive(db, 1))
        await until(lambda: corrections(db) == [("queued", None)])


# What is left of them.


async def test_they_go_after_two_days_and_with_their_person(
    db: Db, dsn: str, database: Database, machine: httpx.AsyncClient, alice: httpx.AsyncClient
) -> None:
    reachable(db)
    device(db, IPHONE, "ios")
    device(db, "b2" * 32, "ios", "bob")
    (notification_id,) = arrive(db, 1)
    async with leader(dsn):
        read(db, notification_id)
        read(db, *arrive(db, 1, "bob"), recipient="bob")
        await asked(db, 2)
    db.execute(
        "update tocsin.delivery set state = 'sent', due_at = null, settled_at = now();"
        " insert into tocsin.attempt select delivery_id, 1, now(), 'sent', null from tocsin.delivery"
    )
    why = (await alice.get(f"{INBOX}{notification_id}/why/")).json()["channels"]
    assert [each["deliveries"] for each in why] == [[], [], []]
    assert (await machine.delete("/api/recipients/alice/")).status_code == 204
    assert held(db, "select recipient_id from tocsin.delivery") == ["bob"]
    await cleaned_up(database, "now() + interval '47 h'", db)
    assert held(db, "select recipient_id from tocsin.delivery") == ["bob"]
    await cleaned_up(database, "now() + interval '49 h'", db)
    assert held(db, "select 1 from tocsin.delivery union all select 1 from tocsin.attempt") == []


def held(db: Db, statement: str) -> list[Any]:
    return [value for (value,) in db.execute(statement.encode()).fetchall()]


async def cleaned_up(database: Database, at: str, db: Db) -> None:
    (now,) = held(db, f"select {at}")
    await clean_up(database, now=now, retention=Retention(90))
