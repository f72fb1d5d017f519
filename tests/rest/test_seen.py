"""What a person has seen: one mark a person, on all devices, which moves forward only."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import httpx
import psycopg
import pytest
import pytest_asyncio
from litestar import Litestar

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import URL, Db, NewNotification, bearer, token, transport_to
from tests.support.services import LONGEST, service_dsn, until
from tocsin.engine.badge.hub import BadgeHub
from tocsin.engine.dispatch.dispatcher import Dispatcher
from tocsin.engine.store.database import Database
from tocsin.engine.store.pagination import write_as_of

INBOX = "/api/notifications/"
SEEN = f"{INBOX}seen/"


@pytest.fixture(autouse=True)
def everybody(people: None) -> None:
    """Alice and Bob are known."""


@pytest_asyncio.fixture
async def nobody(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody with a valid token whom no app has named."""
    headers = bearer(token("nobody"))
    async with httpx.AsyncClient(
        transport=transport_to(app), base_url=URL, headers=headers
    ) as client:
        yield client


@pytest_asyncio.fixture
async def leader(dsn: str) -> AsyncIterator[None]:
    """Announces and folds what is committed."""
    dispatcher = Dispatcher(service_dsn(dsn))
    leading = asyncio.create_task(dispatcher.run())
    await until(lambda: dispatcher.leading)
    yield
    leading.cancel()
    await asyncio.gather(leading, return_exceptions=True)


@pytest_asyncio.fixture
async def hub(database: Database) -> AsyncIterator[BadgeHub]:
    """Open streams of a process."""
    hub = BadgeHub(database)
    await hub.start()
    yield hub
    await hub.stop()


@pytest.fixture
def other(dsn: str) -> Iterator[Db]:
    """An app's connection, on which a transaction stays open."""
    with psycopg.connect(dsn) as connection:
        yield connection


def emit(connection: Db, recipient: str = "alice", times: int = 1) -> None:
    connection.execute(
        "select tocsin.notify('forum.new_thread', array[%s], 'x') from generate_series(1, %s)",
        (recipient, times),
    )


async def badge(client: httpx.AsyncClient) -> tuple[int, int]:
    found = (await client.get(f"{INBOX}unread-count/")).json()
    return found["count"], found["unseen"]


async def seen(client: httpx.AsyncClient, as_of: str | None = None) -> tuple[int, int]:
    body = {} if as_of is None else {"as_of": as_of}
    response = await client.post(SEEN, json=body)
    assert response.status_code == 200, response.text
    return response.json()["count"], response.json()["unseen"]


async def as_of_now(client: httpx.AsyncClient) -> str:
    return str((await client.get(INBOX)).json()["as_of"])


async def test_before_the_first_mark_all_unread_ones_are_unseen(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    new_notification()
    new_notification()
    assert await badge(alice) == (2, 2)


async def test_what_a_list_showed_is_seen_and_stays_unread(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, db: Db
) -> None:
    emit(db, times=2)
    emit(db, "bob")
    as_of = await as_of_now(alice)
    emit(db)
    assert await seen(alice, as_of) == (3, 1)
    assert await badge(alice) == (3, 1)
    assert await badge(bob) == (1, 1)
    assert [each["read"] for each in (await alice.get(INBOX)).json()["results"]] == [False] * 3
    assert (await alice.post(SEEN)).json() == {"count": 3, "unseen": 0}


async def test_what_commits_while_the_bell_is_open_is_unseen(
    alice: httpx.AsyncClient, db: Db, other: Db
) -> None:
    emit(other)
    emit(db)
    as_of = await as_of_now(alice)
    other.commit()
    assert await seen(alice, as_of) == (2, 1)


async def test_the_mark_never_moves_back(alice: httpx.AsyncClient, db: Db, other: Db) -> None:
    emit(db)
    emit(other)
    earlier = await as_of_now(alice)
    other.commit()  # the later list differs by this transaction alone
    later = await as_of_now(alice)
    assert await seen(alice, later) == (2, 0)
    assert await seen(alice, earlier) == (2, 0)


async def test_reading_archiving_and_putting_back_move_unseen(
    alice: httpx.AsyncClient, db: Db
) -> None:
    emit(db)
    (old,) = (await alice.get(INBOX)).json()["results"]
    await seen(alice)
    emit(db, times=3)
    first, second, _ = (each["id"] for each in (await alice.get(INBOX)).json()["results"][:3])
    await alice.patch(f"{INBOX}{first}/read/")
    assert await badge(alice) == (3, 2)
    await alice.delete(f"{INBOX}{second}/")
    assert await badge(alice) == (2, 1)
    await alice.patch(f"{INBOX}{old['id']}/read/")
    assert await badge(alice) == (1, 1)
    await alice.patch(f"{INBOX}{old['id']}/read/", json={"read": False})
    assert await badge(alice) == (2, 1)
    await alice.patch(f"{INBOX}{first}/read/", json={"read": False})
    assert await badge(alice) == (3, 2)


@pytest.mark.parametrize("before", [2, 1100])
async def test_many_that_came_since_are_counted_exactly(
    alice: httpx.AsyncClient, db: Db, before: int
) -> None:
    emit(db, times=before)
    await seen(alice)
    emit(db, times=1200)
    for id_ in (1, before, before + 1):  # two that were seen, and one that was not
        db.execute(
            "select tocsin.mark_read('alice', (select notification_id from tocsin.notification"
            " order by notification_id offset %s limit 1), true)",
            (id_ - 1,),
        )
    assert await badge(alice) == (before + 1197, 1199)


@pytest.mark.parametrize("as_of", ["zzz", "1MQ", "1MCsxKw", "1MSs5KzgsMw", "x" * 30_000, "", 7])
async def test_a_wrong_as_of_is_refused(alice: httpx.AsyncClient, db: Db, as_of: str | int) -> None:
    emit(db)
    response = await alice.post(SEEN, json={"as_of": as_of})
    assert response.status_code in (400, 422)
    assert response.json()["errors"][0]["field"] == "as_of"
    assert await badge(alice) == (1, 1)


async def test_an_as_of_of_the_future_is_refused(alice: httpx.AsyncClient, db: Db) -> None:
    emit(db)
    response = await alice.post(SEEN, json={"as_of": write_as_of("5:99999999999:")})
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["field"] == "as_of"
    assert "as it is" in error["message"]
    assert await badge(alice) == (1, 1)


async def test_nobody_gets_a_mark_who_is_not_known(
    alice: httpx.AsyncClient, nobody: httpx.AsyncClient, db: Db
) -> None:
    assert await seen(nobody) == (0, 0)
    found = db.execute("select recipient_id from tocsin.seen_mark").fetchall()
    assert found == []


async def test_each_device_receives_the_mark(
    alice: httpx.AsyncClient, hub: BadgeHub, leader: None, db: Db
) -> None:
    async with hub.open_stream("alice", None) as laptop, hub.open_stream("alice", None) as phone:
        emit(db, times=2)
        for stream in (laptop, phone):
            await until_badge(stream, (2, 2))
        await seen(alice)
        for stream in (laptop, phone):
            assert {event.event for event in await until_badge(stream, (2, 0))} == {"badge"}


async def test_a_mark_asks_for_no_push_that_corrects_a_badge(
    alice: httpx.AsyncClient, db: Db
) -> None:
    scan = "select recipients, changed from tocsin.scan(%s, false)"
    emit(db)
    before = db.execute("select pg_current_snapshot()::text").fetchone()
    await seen(alice)
    assert db.execute(scan, before).fetchone() == (["alice"], [])
    await seen(alice)  # which changes no number any more
    assert db.execute("select count(*) from tocsin.inbox_change").fetchone() == (1,)


async def test_a_mark_survives_a_restore_into_another_cluster(
    alice: httpx.AsyncClient, db: Db
) -> None:
    emit(db)
    await seen(alice)
    db.execute("update tocsin.seen_mark set snapshot = '5:99999999999:'")
    assert db.execute("select tocsin.reset_foreign_xids()").fetchone() == (True,)
    emit(db)
    assert await badge(alice) == (2, 1)


async def test_erasure_takes_the_mark_along(alice: httpx.AsyncClient, db: Db) -> None:
    emit(db)
    await seen(alice)
    db.execute("select tocsin.erase_recipient('alice')")
    assert db.execute("select count(*) from tocsin.seen_mark").fetchone() == (0,)


# Against a count of the rows.


async def write_at_random(dsn: str, dice: random.Random, stop: asyncio.Event) -> None:
    """Notifies, reads, archives and marks as seen, in transactions that overlap and are rolled back at times."""
    any_one = (
        "(select notification_id from tocsin.notification where recipient_id = 'alice'"
        " order by random() limit 1)"
    )
    any_time = (
        "(select archived_at from tocsin.notification where recipient_id = 'alice'"
        " and archived_at is not null order by random() limit 1)"
    )
    calls = (
        "tocsin.notify('forum.new_thread', array['alice'], 'x')",
        "tocsin.notify('forum.new_thread', array['alice', 'bob'], 'x')",
        f"tocsin.mark_read('alice', {any_one}, true)",
        f"tocsin.mark_read('alice', {any_one}, false)",
        f"tocsin.archive('alice', {any_one})",
        f"tocsin.unarchive('alice', {any_one})",
        "tocsin.archive_all('alice', true, null, null, null, null)",
        f"tocsin.undo_archive_all('alice', {any_time})",
        "tocsin.mark_seen('alice', null)",
        "tocsin.mark_seen(case when random() < 0.5 then 'alice' else 'bob' end, pg_current_snapshot())",
    )
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        while not stop.is_set():
            for _ in range(dice.randint(1, 3)):
                with suppress(psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                    async with connection.transaction():
                        await connection.execute(f"select {dice.choice(calls)}".encode())
            await asyncio.sleep(dice.random() * 0.02)
            await (connection.rollback() if dice.random() < 0.15 else connection.commit())


async def compare_with_the_rows(dsn: str, stop: asyncio.Event) -> int:
    """Returns how often both numbers were those of the rows in one snapshot."""
    counted = """
        select
            tocsin.badges_in_order(array['alice', 'bob']) as badges,
            array_agg(c.count order by c.recipient_id) || array_agg(c.unseen order by c.recipient_id) as rows
        from (
            select
                r.recipient_id,
                count(n.notification_id)::integer as count,
                (count(n.notification_id) filter (
                    where m.snapshot is null or not pg_visible_in_snapshot(n.xid, m.snapshot)
                ))::integer as unseen
            from tocsin.recipient r
            left join tocsin.seen_mark m using (recipient_id)
            left join tocsin.notification n
                on n.recipient_id = r.recipient_id and n.read_at is null and n.archived_at is null and n.in_inbox
            where r.recipient_id in ('alice', 'bob')
            group by r.recipient_id
        ) c
    """
    checks = 0
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        while not stop.is_set():
            row = await (await connection.execute(counted.encode())).fetchone()
            assert row is not None
            assert row[0] == row[1]
            checks += 1
            await asyncio.sleep(0.001)
    return checks


async def test_unseen_is_what_the_rows_show_in_every_snapshot(
    leader: None, db: Db, dsn: str
) -> None:
    stop = asyncio.Event()
    writers = [write_at_random(dsn, random.Random(seed), stop) for seed in range(3)]
    tasks = [asyncio.create_task(each) for each in writers]
    check = asyncio.create_task(compare_with_the_rows(dsn, stop))
    written = "select count(*) > 400 from tocsin.notification"
    await until(lambda: check.done() or db.execute(written).fetchone() == (True,))
    stop.set()
    await asyncio.gather(*tasks)
    assert await check > 20


async def until_badge(stream: Any, expected: tuple[int, int]) -> list[Any]:
    """The events up to the one of this badge."""
    events: list[Any] = []
    text = b'{"count":%d,"unseen":%d}' % expected
    async with asyncio.timeout(LONGEST):
        while not any(event.data == text for event in events):
            events += await stream.next(0.2) or []
    return events
