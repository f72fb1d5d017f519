"""The badge: exact, and updated on commit, whichever process or connection ends meanwhile."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import msgspec
import psycopg
import pytest

from tests.support.dispatching import *  # noqa: F403 - fixtures
from tests.support.dispatching import Db, dispatcher, notify
from tests.support.services import LONGEST, service_dsn, until
from tocsin.engine.badge.hub import BadgeHub, TooManyStreams
from tocsin.engine.badge.open_stream import OpenStream, StreamEvent
from tocsin.engine.dispatch.dispatcher import Dispatcher
from tocsin.engine.store.database import Database


@pytest.fixture
async def hub(dsn: str, database: Database) -> AsyncIterator[BadgeHub]:
    hub = BadgeHub(database, streams_per_person=3)
    async with dispatcher(dsn) as leader:
        await hub.start()
        await until(lambda: leader.leading)
        yield hub
        await hub.stop()


def data(event: StreamEvent) -> Any:
    return msgspec.json.decode(event.data)


async def collect(stream: OpenStream, names: set[str], count: int) -> list[StreamEvent]:
    """The next `count` events with these names."""
    found: list[StreamEvent] = []
    deadline = time.monotonic() + LONGEST
    while len(found) < count:
        assert time.monotonic() < deadline, found
        found += [event for event in await stream.next(0.2) or [] if event.event in names]
    return found


async def badge(stream: OpenStream, count: int) -> None:
    """Waits until the stream has this count."""
    deadline = time.monotonic() + LONGEST
    while True:
        assert time.monotonic() < deadline, f"no badge of {count}"
        for event in await stream.next(0.2) or []:
            if event.event == "badge" and data(event) == {"count": count, "unseen": count}:
                return


async def test_the_badge_moves_on_commit_and_not_before(hub: BadgeHub, db: Db, other: Db) -> None:
    async with hub.open_stream("alice", None) as stream:
        await badge(stream, 0)
        notify(other)
        assert await stream.next(0.3) == []
        other.commit()
        await badge(stream, 1)
        notify(other)
        other.rollback()
        assert await stream.next(0.3) == []
    assert hub.open_streams == 0


async def test_an_idle_leader_is_woken_within_milliseconds(hub: BadgeHub, db: Db) -> None:
    async with hub.open_stream("alice", None) as stream:
        await badge(stream, 0)
        delays = []
        for count in range(1, 6):
            # idle, once it holds the lock of the wake-up signal exclusively
            await until(lambda: leader_is_idle(db))
            notify(db)
            started = time.monotonic()
            await badge(stream, count)
            delays.append(time.monotonic() - started)
    assert sorted(delays)[2] < 1.0  # far below a poll, of 3 s; benchmarks measure it


async def test_between_few_commits_the_leader_stays_idle(hub: BadgeHub, db: Db) -> None:
    async with hub.open_stream("alice", None) as stream:
        await badge(stream, 0)
        await until(lambda: leader_is_idle(db))
        for count in range(1, 4):
            notify(db)
            await badge(stream, count)
            assert leader_is_idle(db)  # it received this signal, and the next commit sends one


async def test_frequent_commits_make_the_leader_active_and_send_no_more_wake_ups(
    hub: BadgeHub, db: Db
) -> None:
    many = """
        do $$
        begin
            perform tocsin.notify('forum.new_thread', array['alice'], 'x');
            for number in 1..3000 loop
                perform tocsin.wake();
                commit;
            end loop;
        end
        $$
    """
    async with hub.open_stream("alice", None) as stream:
        await badge(stream, 0)
        await until(lambda: leader_is_idle(db))
        notified = 0

        def awake() -> bool:
            nonlocal notified
            db.execute(many)
            notified += 1
            return not leader_is_idle(db)

        await until(awake)
        await badge(stream, notified)
        await until(lambda: leader_is_idle(db))


async def test_what_the_listener_does_itself_moves_the_badge_too(
    hub: BadgeHub, db: Db, other: Db
) -> None:
    """A scheduled event that it fans out, and an invitation that met its claim in an open transaction."""
    async with hub.open_stream("alice", None) as stream:
        await badge(stream, 0)
        await until(lambda: leader_is_idle(db))
        db.execute(
            "select tocsin.notify('forum.new_thread', array['alice'], 'x', send_at => now() + interval '0.3 s')"
        )
        await badge(stream, 1)
        other.execute("select tocsin.notify_email('new@example.org', 'event.invited', 'x')")
        db.execute("select tocsin.claim_email('new@example.org', 'alice')")
        other.commit()
        await badge(stream, 2)


def leader_is_idle(db: Db) -> bool:
    row = db.execute(
        "select exists (select from pg_locks where locktype = 'advisory' and objid = 1 and granted"
        " and classid = 1953457011 and mode = 'ExclusiveLock'"
        " and database = (select oid from pg_database where datname = current_database()))"
    ).fetchone()
    return row == (True,)


async def test_streams_get_the_notification_and_every_change(hub: BadgeHub, db: Db) -> None:
    async with hub.open_stream("alice", None) as stream, hub.open_stream("alice", None) as second:
        await badge(stream, 0)
        notify(db, title="Hello")
        (came,) = await collect(stream, {"notification"}, 1)
        assert data(came)["title"] == "Hello"
        assert data(came)["category"] == "forum"
        assert data(came)["read"] is False
        id_ = data(came)["id"]
        db.execute("select tocsin.mark_read('alice', %s, true)", (id_,))
        (read,) = await collect(second, {"read"}, 1)
        assert data(read) == {"ids": [id_], "read": True}
        db.execute("select tocsin.mark_read('alice', %s, false)", (id_,))
        (unread,) = await collect(second, {"read"}, 1)
        assert data(unread) == {"ids": [id_], "read": False}
        db.execute("select tocsin.mark_all_read('alice', null, null, null)")
        (everything,) = await collect(second, {"read"}, 1)
        assert data(everything) == {"ids": "all", "read": True}
        db.execute("select tocsin.archive('alice', %s)", (id_,))
        (archived,) = await collect(second, {"archived"}, 1)
        assert data(archived) == {"ids": [id_]}


async def test_what_was_archived_meanwhile_is_not_new_to_a_reader(hub: BadgeHub, db: Db) -> None:
    async with hub.open_stream("alice", None) as stream:
        await badge(stream, 0)
        seen = stream.token
    notify(db, title="Archived")
    notify(db, title="Kept")
    db.execute(
        "select tocsin.archive('alice', (select min(notification_id) from tocsin.notification))"
    )
    async with hub.open_stream("alice", seen) as stream:
        events = await collect(stream, {"notification"}, 1)
        events += await stream.next(0.1) or []
    assert [data(each)["title"] for each in events if each.event == "notification"] == ["Kept"]


async def test_nobody_sees_anothers_events(hub: BadgeHub, db: Db) -> None:
    async with hub.open_stream("bob", None) as stream:
        await badge(stream, 0)
        notify(db, "alice")
        assert await stream.next(0.3) == []


async def test_a_reconnect_replays_what_was_committed_since_each_once(
    hub: BadgeHub, db: Db, other: Db
) -> None:
    notify(other, title="begun first, committed last")
    async with hub.open_stream("alice", None) as stream:
        await badge(stream, 0)
        notify(db, title="seen")
        (seen,) = await collect(stream, {"notification"}, 1)
    notify(db, title="missed 1")
    notify(db, title="missed 2")
    other.commit()
    async with hub.open_stream("alice", seen.id) as stream:
        events = await collect(stream, {"notification"}, 3)
        titles = {data(event)["title"] for event in events}
        assert titles == {"missed 1", "missed 2", "begun first, committed last"}
    # cut off within the replay: the rest comes, and nothing twice
    async with hub.open_stream("alice", events[0].id) as stream:
        rest = await collect(stream, {"notification"}, 2)
    assert [data(event)["id"] for event in rest] == [data(event)["id"] for event in events[1:]]
    async with hub.open_stream("alice", events[2].id) as stream:
        first = await stream.next(2.0)
        assert [event.event for event in first or []] == ["badge"]


async def test_all_read_does_not_take_along_what_came_after_it(hub: BadgeHub, db: Db) -> None:
    """Both are in one batch more often than not: the client ends with the newer one unread, live and by replay."""
    notify(db)
    async with hub.open_stream("alice", None) as stream:
        await badge(stream, 1)
        notify(db, title="start")
        (start,) = await collect(stream, {"notification"}, 1)
    db.execute("select tocsin.mark_all_read('alice', null, null, null)")
    notify(db, title="newer")
    async with hub.open_stream("alice", start.id) as stream:
        read, came = await collect(stream, {"read", "notification"}, 2)
        assert (read.event, data(read)["ids"]) == ("read", "all")
        assert (data(came)["title"], data(came)["read"]) == ("newer", False)


@pytest.mark.parametrize(
    "token",
    [
        "nonsense",
        "AAAA",
        "MTo1OjE~",  # not base64 of three parts
        "OTk5OTk5OTk5OTk5OTo5OTk5OTk5OTk5OTk5On5-MA",  # a snapshot of another cluster's future
        "NTo0On5-MA",  # xmin after xmax: PostgreSQL would refuse the query
        "x" * 10_000,
    ],
)
async def test_a_position_that_is_not_ours_means_resync(hub: BadgeHub, db: Db, token: str) -> None:
    notify(db)
    async with hub.open_stream("alice", token) as stream, hub.open_stream("bob", None) as bystander:
        (resync,) = await collect(stream, {"resync"}, 1)
        await badge(bystander, 0)
    async with hub.open_stream("alice", resync.id) as stream:
        first = await stream.next(2.0)
        assert [event.event for event in first or []] == ["badge"]


async def test_too_much_to_replay_means_resync(hub: BadgeHub, db: Db) -> None:
    async with hub.open_stream("alice", None) as stream:
        await badge(stream, 0)
        notify(db)
        (seen,) = await collect(stream, {"notification"}, 1)
    db.execute(
        "select tocsin.notify('forum.new_thread', array['alice'], 'x') from generate_series(1, 120)"
    )
    async with hub.open_stream("alice", seen.id) as stream:
        await collect(stream, {"resync"}, 1)


async def test_a_slow_reader_gets_the_last_count(hub: BadgeHub, db: Db) -> None:
    async with hub.open_stream("alice", None) as stream:
        await badge(stream, 0)
        for _ in range(30):
            notify(db)
        await until(lambda: stream._badge is not None and stream._badge.count == 30)
        badges = [event for event in await stream.next(1.0) or [] if event.event == "badge"]
        assert [data(event) for event in badges] == [{"count": 30, "unseen": 30}]


async def test_a_person_has_a_cap_of_streams(hub: BadgeHub) -> None:
    async with (
        hub.open_stream("alice", None),
        hub.open_stream("alice", None),
        hub.open_stream("alice", None),
    ):
        with pytest.raises(TooManyStreams):
            async with hub.open_stream("alice", None):
                pass
        async with hub.open_stream("bob", None):
            pass
    async with hub.open_stream("alice", None):
        pass


async def test_streams_end_at_once_when_the_server_stops(hub: BadgeHub) -> None:
    async with hub.open_stream("alice", None) as stream:
        await badge(stream, 0)
        hub.close_streams()
        assert await stream.next(5.0) is None
    async with hub.open_stream("alice", None) as late:
        assert await late.next(5.0) is None


async def test_a_killed_listen_connection_is_noticed(hub: BadgeHub, db: Db) -> None:
    async with hub.open_stream("alice", None) as stream:
        await badge(stream, 0)
        for count in range(1, 4):
            kill_others(db)
            notify(db)
            await badge(stream, count)


def kill_others(db: Db) -> None:
    db.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid() and usename = current_user"
    )


async def test_another_process_takes_over_from_a_leader_that_dies(
    dsn: str, database: Database, db: Db
) -> None:
    hub = BadgeHub(database)
    await hub.start()
    async with AsyncExitStack() as stack:
        async with dispatcher(dsn) as first:
            await until(lambda: first.leading)
            second = await stack.enter_async_context(dispatcher(dsn))
            stream = await stack.enter_async_context(hub.open_stream("alice", None))
            await badge(stream, 0)
            assert not second.leading
        notify(db)
        await badge(stream, 1)
        await until(lambda: second.leading)
    await hub.stop()


async def test_counts_asked_at_once_share_a_read_and_are_fresh(hub: BadgeHub, db: Db) -> None:
    for count in range(1, 4):
        notify(db)
        counts = await asyncio.gather(*(hub.count("alice") for _ in range(20)), hub.count("bob"))
        assert [each.count for each in counts] == [count] * 20 + [0]


async def write_at_random(dsn: str, dice: random.Random, stop: asyncio.Event) -> None:
    """Holds transactions open at random, and rolls some back."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        while not stop.is_set():
            for _ in range(dice.randint(1, 3)):
                who = dice.choice(["alice", "bob"])
                await connection.execute(
                    "select tocsin.notify('forum.new_thread', array[%s], 'x')", (who,)
                )
            if dice.random() < 0.3:
                # another writer's open transaction may just be marking the same one
                with suppress(psycopg.errors.LockNotAvailable):
                    async with connection.transaction():
                        await connection.execute(
                            "select tocsin.mark_read('alice', (select min(notification_id)"
                            " from tocsin.notification where recipient_id = 'alice' and read_at is null), true)"
                        )
            if dice.random() < 0.2:
                await asyncio.sleep(dice.random() * 0.3)
            await (connection.rollback() if dice.random() < 0.15 else connection.commit())


async def compare_with_count_star(dsn: str, stop: asyncio.Event) -> int:
    """How often the badge was the same as count(*) in one snapshot; it never is not."""
    checks = 0
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        while not stop.is_set():
            cursor = await connection.execute(
                "select c.recipient_id, c.n, (select count(*) from tocsin.notification n"
                " where n.recipient_id = c.recipient_id and n.in_inbox and n.read_at is null)"
                " from tocsin.unread_counts(array['alice', 'bob']) c"
            )
            for name, counted, exact in await cursor.fetchall():
                assert counted == exact, name
                checks += 1
    return checks


async def test_the_badge_is_count_star_in_every_snapshot_under_stress(
    hub: BadgeHub, dsn: str, db: Db
) -> None:
    stop, dice = asyncio.Event(), random.Random(7)
    async with hub.open_stream("alice", None) as stream:
        checking = asyncio.create_task(compare_with_count_star(dsn, stop))
        writing = [asyncio.create_task(write_at_random(dsn, dice, stop)) for _ in range(6)]
        written = "select count(*) > 1500 from tocsin.notification"
        await until(lambda: db.execute(written).fetchone() == (True,))
        stop.set()
        await asyncio.gather(*writing)
        assert await checking > 100
        final = db.execute("select tocsin.unread_count('alice')").fetchone()
        assert final is not None
        await until(lambda: stream._badge is not None and stream._badge.count == final[0])
    folded = "select n from tocsin.unread_counter where recipient_id = 'alice'"
    await until(lambda: db.execute(folded).fetchone() == final)


async def test_a_leader_in_this_process_announces_without_notify(
    dsn: str, database: Database, db: Db
) -> None:
    """What it announces is not read a second time; another process' announcements are."""
    hub = BadgeHub(database)
    standing = Dispatcher(service_dsn(dsn), on_announced=hub.announced)
    with psycopg.connect(dsn) as holder:
        # as an open transaction that sent no signal does, it keeps the listener from becoming idle
        holder.execute("select pg_advisory_lock_shared(1953457011, 1)")
        task = asyncio.create_task(standing.run())
        await hub.start()
        async with hub.open_stream("alice", None) as stream:
            await badge(stream, 0)
            await until(lambda: standing.leading)
            assert not leader_is_idle(db)
            for count in range(1, 4):
                notify(db)
                await badge(stream, count)
            holder.execute("select pg_advisory_unlock_shared(1953457011, 1)")
            db.execute("insert into tocsin.unread_delta (recipient_id, n) values ('alice', 5)")
            db.execute("select tocsin.wake(array['alice'])")
            await badge(stream, 8)
    await hub.stop()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
