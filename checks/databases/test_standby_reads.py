"""Reads from a real standby: what a caller has seen is never missing, and the primary serves what the standby can't."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import pytest_asyncio
from psycopg.conninfo import make_conninfo
from servers import NEWEST, Server, server, standby, started

from tests.support.doctor import find
from tests.support.http_fixtures import METRICS_TOKEN, SECRET, bearer, token, transport_to
from tests.support.run_folder import run_folder
from tests.support.services import free_port, running, service_dsn, until
from tocsin.cli.doctor.examination import Finding
from tocsin.client import notify
from tocsin.engine.badge.hub import BadgeHub
from tocsin.engine.dispatch.dispatcher import Dispatcher
from tocsin.engine.store.credential import OPS, create_api_key
from tocsin.engine.store.database import Database
from tocsin.engine.store.pagination import read_as_of
from tocsin.engine.store.replica import StandbyReads
from tocsin.http.app import create_app
from tocsin.migrate import migrate
from tocsin.settings import Settings

URL = "http://notify.test"
INBOX = "/api/notifications/"
SETTINGS = Settings(
    jwt_secret=SECRET, jwt_algorithms=("HS256",), public_url=URL, metrics_token=METRICS_TOKEN
)

Db = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with run_folder() as found:
        yield found


@pytest.fixture(scope="module")
def primary(folder: Path) -> Iterator[Server]:
    with server(NEWEST, folder) as running:
        yield running


@pytest.fixture
def db(primary: Server) -> Iterator[Db]:
    """The app's session in a migrated database."""
    with primary.database("app") as dsn:
        migrate(dsn)
        with psycopg.connect(dsn, autocommit=True) as app:
            for name in ("alice", "bob"):
                app.execute("select tocsin.upsert_recipient(%s)", [name])
            yield app


class Standby:
    """The standby of a test, which may be paused, stopped and started again."""

    def __init__(self, primary: Server, folder: Path, dsn: str) -> None:
        self._data = folder / f"standby-{time.monotonic_ns()}"
        self._stack = ExitStack()
        self.server = self._stack.enter_context(standby(primary, self._data))
        self.dsn = make_conninfo(service_dsn(dsn), port=self.server.port)
        self._conninfo = f"primary_conninfo='{primary.dsn()}'"

    def run(self, statement: str) -> None:
        with psycopg.connect(self.server.dsn(), autocommit=True) as admin:
            admin.execute(statement.encode())

    def pause(self) -> None:
        """Stops replay."""
        self.run("select pg_wal_replay_pause()")
        while self._value("select pg_get_wal_replay_pause_state()") != "paused":
            time.sleep(0.01)

    def _value(self, statement: str) -> object:
        with psycopg.connect(self.server.dsn(), autocommit=True) as admin:
            row = admin.execute(statement.encode()).fetchone()
            return row and row[0]

    def resume(self) -> None:
        self.run("select pg_wal_replay_resume()")

    def stop(self) -> None:
        """Ends it at once, with all its connections."""
        self._stack.close()

    def start(self) -> None:
        """Starts it again at the same address."""
        self.server = self._stack.enter_context(
            started(self._data, self.server.binaries, self._conninfo, port=self.server.port)
        )


@pytest.fixture
def follower(primary: Server, db: Db, folder: Path) -> Iterator[Standby]:
    found = Standby(primary, folder, db.info.dsn)
    yield found
    found.stop()


class Service:
    """The app of one process."""

    def __init__(self, app: Any, reads: StandbyReads, database: Database) -> None:
        self._app = app
        self.reads = reads
        self.database = database

    def client(self, headers: dict[str, str]) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=transport_to(self._app), base_url=URL, headers=headers)

    def person(self, name: str, **headers: str) -> httpx.AsyncClient:
        return self.client(bearer(token(name)) | headers)

    async def used(self, served_by: str = "standby") -> None:
        """Waits until a read of Bob is served like that."""

        async def is_used() -> bool:
            async with self.person("bob") as bob:
                return await self.outcome(bob, INBOX) == served_by

        await until(is_used)

    async def outcome(self, client: httpx.AsyncClient, path: str, **params: Any) -> str:
        """Returns what served a call that reads once."""
        before = self.reads.served.copy()
        response = await client.get(path, params=params)
        assert response.status_code == 200, response.text
        ((outcome, count),) = (self.reads.served - before).items()
        assert count == 1
        return outcome


@asynccontextmanager
async def serving(dsn: str, standby_dsn: str, *, listens: bool = True) -> AsyncIterator[Service]:
    """Runs the app; unless it `listens`, it does not learn whose inbox changed."""
    database = Database(service_dsn(dsn), max_size=4)
    await database.open()
    reads = StandbyReads(database, standby_dsn, max_size=4)
    hub = BadgeHub(database, on_changed=reads.changed if listens else None)
    await reads.start()
    await hub.start()
    dispatcher = Dispatcher(database.dsn, badge_pushes=False, on_announced=hub.announced)
    leading = asyncio.create_task(dispatcher.run())
    app = create_app(SETTINGS, database, hub, link_key=b"k" * 32, reads=reads)
    try:
        yield Service(app, reads, database)
    finally:
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
        await hub.stop()
        await reads.stop()
        await database.close()


@pytest_asyncio.fixture
async def service(db: Db, follower: Standby) -> AsyncIterator[Service]:
    async with serving(db.info.dsn, follower.dsn) as found:
        await found.used()
        yield found


def notify_one(db: Db, recipient: str = "alice", **named: Any) -> int:
    return notify(db, event_type="forum.new_reply", recipient=recipient, title="New", **named)


async def titles(client: httpx.AsyncClient, **params: Any) -> list[tuple[int, bool]]:
    found = (await client.get(INBOX, params=params)).json()["results"]
    return [(each["id"], each["read"]) for each in found]


async def test_what_a_standby_has_is_never_more_than_its_statements_see(
    service: Service, db: Db, follower: Standby
) -> None:
    """PostgreSQL's own snapshot there names transactions as visible that are still running."""
    with psycopg.connect(db.info.dsn) as slow:
        notify_one(slow, subject="late:1")
        notify_one(db, subject="early:1")
        async with service.person("alice") as alice:

            async def both_lists() -> list[dict[str, Any]]:
                return [
                    (await alice.get(INBOX, params=params)).json()
                    for params in ({}, {"grouped": True})
                ]

            await service.used()
            flat, grouped = await both_lists()
            assert service.reads.served["standby"] > 2
            assert [each["subject"] for each in flat["results"]] == ["early:1"]
            assert len(grouped["results"]) == 1
            (running,) = slow.execute("select pg_current_xact_id()::text").fetchall()[0]
            for listed in (flat, grouped):
                assert running in read_as_of(listed["as_of"]).split(":")[2].split(",")
            slow.commit()
            body = {"as_of": flat["as_of"]}
            marked = await alice.post(f"{INBOX}mark-all-read/", json=body)
            assert marked.json() == {"marked": 1}
            unread = await alice.get(INBOX, params={"read": False})
            assert [each["subject"] for each in unread.json()["results"]] == ["late:1"]


async def test_each_of_these_calls_reads_from_the_standby(
    service: Service, db: Db, follower: Standby
) -> None:
    event_id = notify_one(db, subject="thing:1")
    _, key = await create_api_key(service.database, "tests")
    _, ops = await create_api_key(service.database, "ops", scopes=[OPS])
    async with (
        service.person("alice") as alice,
        service.client(bearer(key)) as app,
        service.client(bearer(ops)) as operator,
    ):
        await asyncio.sleep(0.3)  # what was announced meanwhile has a position
        page = (await alice.get(INBOX, params={"grouped": True})).json()
        group, id_ = page["results"][0]["group_key"], page["results"][0]["latest"]["id"]
        for client, path, params in (
            (alice, INBOX, {}),
            (alice, INBOX, {"read": False, "event_type": "forum.new_reply"}),
            (alice, INBOX, {"archived": True}),
            (alice, INBOX, {"grouped": True}),
            (alice, INBOX, {"group_key": group}),
            (alice, f"{INBOX}{id_}/", {}),
            (alice, f"{INBOX}{id_}/why/", {}),
            (app, "/api/events/", {"recipient": "alice"}),
            (app, f"/api/events/{event_id}/", {}),
            (operator, "/ops/api/overview/", {}),
            (operator, "/ops/api/search/", {"q": str(event_id)}),
            (operator, f"/ops/api/notifications/{id_}/why/", {}),
            (operator, "/ops/api/dead-letters/", {}),
            (operator, "/ops/api/dead-letters/reasons/", {}),
            (operator, "/ops/api/suppressions/", {}),
        ):
            await until(partial(_is_standby, service, client, path, **params))
        before = service.reads.served.copy()
        for path in ("unread-count/", "unread-count/by-category/"):
            assert (await alice.get(INBOX + path)).json()["count"] == 1
        assert service.reads.served == before
    with psycopg.connect(follower.server.dsn()) as admin:
        row = admin.execute(
            "select count(*) from pg_stat_activity where datname = 'app' and query like '%tocsin.%'"
        ).fetchone()
    assert row is not None
    assert row[0] > 0


async def test_a_person_sees_the_own_write_and_others_are_served_by_a_paused_standby(
    service: Service, db: Db, follower: Standby
) -> None:
    notify_one(db)
    notify_one(db, "bob")
    await service.used()
    async with service.person("alice") as alice, service.person("bob") as bob:
        await until(lambda: _is_standby(service, alice))
        ((id_, read),) = await titles(alice)
        assert not read
        await until(lambda: _is_standby(service, bob))
        follower.pause()
        marked = await alice.patch(f"{INBOX}{id_}/read/")
        assert await titles(alice) == [(id_, True)]
        assert await service.outcome(alice, INBOX) == "behind"
        assert await service.outcome(bob, INBOX) == "standby"
        position = marked.headers["Tocsin-Position"]
    async with service.person("bob", **{"Tocsin-Position": position}) as bob:
        assert await service.outcome(bob, INBOX) == "behind"
    async with service.person("bob", **{"Last-Event-ID": position}) as bob:
        assert await service.outcome(bob, INBOX) == "behind"
    follower.resume()
    async with service.person("alice") as alice:
        await until(lambda: _is_standby(service, alice))
        assert await titles(alice) == [(id_, True)]


async def _is_standby(
    service: Service, client: httpx.AsyncClient, path: str = INBOX, **params: Any
) -> bool:
    return await service.outcome(client, path, **params) == "standby"


async def test_another_process_sees_a_write_by_its_position_or_cookie(
    service: Service, db: Db, follower: Standby
) -> None:
    notify_one(db)
    async with serving(db.info.dsn, follower.dsn, listens=False) as other:
        await other.used()
        await service.used()
        origin = {"Cookie": f"tocsin_token={token('alice')}", "Sec-Fetch-Site": "same-origin"}
        async with service.client(origin) as alice, other.client(origin) as again:
            ((id_, _),) = await titles(again)
            follower.pause()
            marked = await alice.patch(f"{INBOX}{id_}/read/")
            cookie = marked.headers["Set-Cookie"]
            assert cookie.startswith(
                f"tocsin_position={marked.headers['Tocsin-Position']}; Path=/; "
            )
            assert "HttpOnly; SameSite=Lax" in cookie
            again.headers["Cookie"] += "; " + cookie.partition(";")[0]
            assert await titles(again) == [(id_, True)]
            assert other.reads.served["behind"] == 1
        follower.resume()


async def test_what_was_announced_is_in_the_list(
    service: Service, db: Db, follower: Standby
) -> None:
    async with service.person("alice") as alice:
        follower.pause()
        notify_one(db)
        await until(lambda: _lists(alice, 1))
        follower.resume()


async def _lists(client: httpx.AsyncClient, count: int) -> bool:
    return len(await titles(client)) == count


async def test_a_standby_that_is_far_behind_is_not_used_until_it_keeps_up(
    service: Service, db: Db, follower: Standby, capfd: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []

    async def is_logged(text: str) -> bool:
        await service.outcome(bob, INBOX)
        lines.extend(_logged(capfd))
        return any(text in line for line in lines)

    async with service.person("bob") as bob:
        follower.pause()
        notify_one(db, "alice")
        await until(lambda: is_logged("replica behind"))
        for _ in range(3):
            assert await service.outcome(bob, INBOX) == "behind"
        follower.resume()
        await until(lambda: is_logged("replica keeps up again"))
        await until(lambda: _is_standby(service, bob))
    assert len(lines) == 2, lines


def _logged(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """Returns the lines on the standby since the last call."""
    captured = capfd.readouterr()
    return [line for line in (captured.out + captured.err).splitlines() if "replica" in line]


async def test_the_primary_serves_while_the_standby_is_gone(
    service: Service, db: Db, follower: Standby, capfd: pytest.CaptureFixture[str]
) -> None:
    notify_one(db)
    follower.stop()
    async with service.person("alice") as alice:
        for _ in range(5):
            assert len(await titles(alice)) == 1
        assert await service.outcome(alice, INBOX) == "unavailable"
        follower.start()
        await service.used()
        await until(lambda: _is_standby(service, alice))
        text = (await alice.get("/metrics/", headers=bearer(METRICS_TOKEN))).text
    assert 'tocsin_replica_reads_total{outcome="standby"}' in text
    lines = _logged(capfd)
    assert ["unavailable" in lines[0], "available again" in lines[-1], len(lines)] == [
        True,
        True,
        2,
    ]


async def test_what_a_standby_does_not_have_is_read_from_the_primary(
    service: Service, db: Db, follower: Standby
) -> None:
    _, key = await create_api_key(service.database, "tests")
    await service.used()
    follower.pause()
    event_id = notify_one(db)
    async with service.client(bearer(key)) as app:
        # "behind" where the machine was so slow that the standby lacks what it had to have by then
        outcome = await service.outcome(app, f"/api/events/{event_id}/")
        assert outcome in {"failed", "behind"}
        assert (await app.get("/api/events/999999999/")).status_code == 404
    follower.resume()


@pytest.mark.parametrize("wrong", ["primary", "another server"])
async def test_a_server_that_is_no_standby_of_this_primary_is_not_used(
    db: Db, primary: Server, folder: Path, wrong: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as stack:
        dsn = service_dsn(db.info.dsn)
        if wrong == "another server":
            other = stack.enter_context(server(NEWEST, folder / "other"))
            copy = stack.enter_context(standby(other, folder / "other" / "copy"))
            dsn = copy.dsn()
        async with serving(db.info.dsn, dsn) as service:
            await until(lambda: "replica unavailable" in capfd.readouterr().out)
            await service.used("unavailable")


async def test_serve_reads_from_the_standby_with_four_connections(
    db: Db, follower: Standby, tmp_path: Path
) -> None:
    notify_one(db)
    port, metrics = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {
        "database_url": service_dsn(db.info.dsn),
        "replica_url": follower.dsn,
        "max_connections": "4",
        "port": str(port),
        "metrics_port": str(metrics),
        "public_url": url,
        "jwt_secret": SECRET,
        "data_dir": str(tmp_path),
    }
    async with (
        running("serve", log=tmp_path / "serve.log", settings=settings) as serve,
        httpx.AsyncClient(base_url=url, headers=bearer(token("alice"))) as alice,
    ):
        await until(lambda: '"listening"' in serve.log)

        async def is_used() -> bool:
            await alice.get(INBOX)
            text = (await alice.get(f"http://127.0.0.1:{metrics}/metrics")).text
            return 'tocsin_replica_reads_total{outcome="standby"} 0.0' not in text

        await until(is_used)
        for read in (True, False, True):
            ((id_, _),) = await titles(alice)
            await alice.patch(f"{INBOX}{id_}/read/", json={"read": read})
            assert await titles(alice) == [(id_, read)]


async def test_the_doctor_finds_a_standby_that_is_late_gone_or_none(
    service: Service, db: Db, follower: Standby
) -> None:
    async def examine(replica: str = follower.dsn) -> Finding:
        (found,) = await find("replica", database_url=db.info.dsn, replica_url=replica)
        return found

    found = await examine()
    assert (found.status, "within" in found.sentence) == ("green", True)
    follower.pause()
    notify_one(db)
    late = await examine()
    assert (late.status, "replay is not paused" in late.cure) == ("yellow", True)
    follower.stop()
    gone = await examine()
    assert (gone.status, "connection failed" in gone.sentence) == ("red", True)
    itself = await examine(service_dsn(db.info.dsn))
    assert (itself.status, "it is no standby" in itself.sentence) == ("red", True)
    (unused,) = await find("replica", database_url=db.info.dsn)
    assert unused.status == "skipped"


async def test_a_position_that_is_none_is_refused_with_the_cure(service: Service) -> None:
    async with service.person("bob", **{"Tocsin-Position": "zz"}) as bob:
        response = await bob.get(INBOX)
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["field"] == "Tocsin-Position"
    assert "as_of" in error["message"]
