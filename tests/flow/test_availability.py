"""An outage of the database: how soon each part notices it, and what it does during it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from litestar import Litestar
from psycopg.conninfo import make_conninfo

from tests.support.database_proxy import WAITING, Proxy
from tests.support.database_proxy import proxy as proxy  # noqa: PLC0414 - a fixture
from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.services import LONGEST, SECRET, free_port, running, until
from tocsin.engine.deliver.claiming import Batch, DatabaseRetry
from tocsin.engine.deliver.outcome_writer import OutcomeWriter
from tocsin.engine.model import Channel, Priority, Unavailable
from tocsin.engine.store.connection import Availability
from tocsin.engine.store.database import Database
from tocsin.engine.store.health import NotReady, check_start

pytestmark = pytest.mark.own_app


@pytest.fixture  # type: ignore[no-redef]
async def database(proxy: Proxy) -> AsyncIterator[Database]:
    database = Database(proxy.dsn, max_size=4)
    await database.open()
    yield database
    proxy.resume()
    await database.close()


async def seconds_until_it_works(database: Database) -> float:
    started = time.monotonic()
    while True:
        try:
            assert await database.value("select 1") == 1
            return time.monotonic() - started
        except Unavailable:
            await asyncio.sleep(0.01)


async def test_connections_that_were_cut_are_replaced_before_anybody_notices(
    proxy: Proxy, database: Database
) -> None:
    for _ in range(3):
        await asyncio.gather(*(database.value("select pg_sleep(0.05)") for _ in range(4)))
        proxy.cut()
        assert await asyncio.gather(*(database.value("select 1") for _ in range(8))) == [1] * 8


async def test_while_the_database_is_away_each_call_fails_at_once_and_then_works_again(
    proxy: Proxy, database: Database
) -> None:
    await proxy.shut()
    with pytest.raises(Unavailable):
        await database.value("select 1")
    await until(lambda: database.availability.reason)
    async with asyncio.timeout(LONGEST):  # less than a wait for each: 5 s of psycopg's pool a call
        for _ in range(100):
            with pytest.raises(Unavailable):
                await database.value("select 1")
    await proxy.open()
    await seconds_until_it_works(database)
    assert database.availability.available


async def test_the_pause_between_attempts_to_connect_does_not_grow_with_the_outage(
    proxy: Proxy, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr("tocsin.engine.store.connection.asyncio.sleep", noted)
    await proxy.shut()
    database.availability.report_lost()
    await until(lambda: len(pauses) > 200)
    assert max(pauses) <= 1.0


async def test_a_server_that_hangs_is_noticed_and_the_calls_after_it_fail_at_once(
    proxy: Proxy, database: Database
) -> None:
    proxy.freeze()
    with pytest.raises(Unavailable):
        await database.value("select 1")
    await until(lambda: database.availability.reason)
    async with asyncio.timeout(LONGEST):
        for _ in range(100):
            with pytest.raises(Unavailable):
                await database.value("select 1")
    proxy.resume()
    await seconds_until_it_works(database)


async def test_http_returns_503_with_retry_after_and_readiness_has_the_reason(
    app: Litestar, alice: httpx.AsyncClient, proxy: Proxy
) -> None:
    assert (await alice.get("/readyz")).status_code == 200
    await proxy.shut()
    for path in ("/api/notifications/", "/api/notifications/unread-count/", "/readyz/"):
        response = await alice.get(path)
        assert response.status_code == 503
        assert response.headers["retry-after"]
    assert (await alice.get("/readyz/")).json()["detail"] == "The database is unavailable."
    await proxy.open()
    await until(lambda: _is_ready(alice))


async def _is_ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/readyz/")).status_code == 200


async def test_readiness_does_not_wait_for_a_server_that_hangs(
    app: Litestar, alice: httpx.AsyncClient, proxy: Proxy
) -> None:
    proxy.freeze()
    first = await alice.get("/readyz/")
    assert (first.status_code, first.json()["detail"]) == (503, "The database does not respond.")


async def test_the_log_has_one_line_for_each_change_of_state(
    proxy: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    availability = Availability(proxy.dsn)
    await proxy.shut()
    for _ in range(50):
        availability.report_lost()
        await asyncio.sleep(0.01)
    await until(lambda: availability.reason)
    await proxy.open()
    await availability.wait()
    lines = [line for line in capsys.readouterr().out.splitlines() if "database" in line]
    assert len([line for line in lines if "database unavailable" in line]) == 1
    assert len([line for line in lines if "database available again" in line]) == 1
    assert len(lines) == 2
    await availability.close()


async def test_a_service_waits_for_a_database_that_starts_later(proxy: Proxy) -> None:
    await proxy.shut()
    start = asyncio.create_task(check_start(proxy.dsn, wait=30.0))
    done, _ = await asyncio.wait({start}, timeout=0.6)
    assert not done
    await proxy.open()
    await asyncio.wait_for(start, LONGEST)


async def test_a_service_does_not_wait_longer_than_it_may(proxy: Proxy) -> None:
    await proxy.shut()
    with pytest.raises(NotReady, match="can't be reached") as raised:
        await check_start(proxy.dsn, wait=0.5)
    assert "\n" not in str(raised.value)


async def test_a_service_does_not_wait_where_the_database_refuses_it(dsn: str) -> None:
    async with asyncio.timeout(LONGEST):
        with pytest.raises(NotReady, match="password"):
            await check_start(make_conninfo(dsn, password="wrong"), wait=3600.0)


@pytest.mark.parametrize(
    "refusal",
    [
        "the database system is starting up",
        "sorry, too many clients already",
        "could not write init file: No space left on device",
        "out of memory",
    ],
)
async def test_a_service_waits_where_the_refusal_may_pass(proxy: Proxy, refusal: str) -> None:
    proxy.refusal = refusal
    start = asyncio.create_task(check_start(proxy.dsn, wait=30.0))
    done, _ = await asyncio.wait({start}, timeout=0.6)
    assert not done
    proxy.refusal = ""
    await asyncio.wait_for(start, LONGEST)


@pytest.mark.parametrize("connections", [2, 3, 5, 7])
async def test_services_start_although_the_database_goes_away_meanwhile(
    proxy: Proxy, db: psycopg.Connection[Any], tmp_path: Path, connections: int
) -> None:
    proxy.shuts_after = connections
    settings = {
        "database_url": proxy.dsn,
        "data_dir": str(tmp_path),
        "public_url": "https://notify.example",
        "jwt_secret": SECRET,
        "smtp_url": "smtp://127.0.0.1:1",
        "port": str(free_port()),
    }
    command = "serve" if connections % 2 else "worker"
    async with running(command, log=tmp_path / "log", settings=settings, as_owner=True) as service:
        reported = "select count(*) from tocsin.process"
        await until(
            lambda: (
                db.execute(reported).fetchone() == (1,) or service.process.returncode is not None
            )
        )
        assert service.process.returncode is None, service.log


COMMANDS = [
    "why 1",
    "migrate",
    "notify forum.new_reply alice --title x",
    "api-key list",
    "event-types list",
    "seed",
    "cleanup",
    "digest run",
]


async def test_a_command_has_one_line_for_a_database_that_hangs(
    proxy: Proxy, tmp_path: Path
) -> None:
    proxy.freeze()
    settings = {"database_url": proxy.dsn, "data_dir": str(tmp_path)}

    async def run(command: str) -> None:
        log = tmp_path / f"{command}.log"
        async with running(*command.split(), log=log, settings=settings, as_owner=True) as process:
            assert await asyncio.wait_for(process.process.wait(), LONGEST) == 1
        (line,) = process.log.splitlines()
        assert line.startswith("tocsin: TOCSIN_DATABASE_URL can't be reached"), command

    await asyncio.gather(*map(run, COMMANDS))


async def test_what_a_job_hands_back_during_an_outage_is_due_when_it_is_over(
    proxy: Proxy, database: Database, db: psycopg.Connection[Any]
) -> None:
    """And not when the lease of its job runs out, two minutes later."""
    db.execute("update tocsin.channel set available = true")
    db.execute("select tocsin.upsert_recipient('alice', 'alice@example.com')")
    db.execute("select tocsin.notify('forum.new_reply', array['alice'], 'x')")
    (id_,) = db.execute("select delivery_id from tocsin.delivery").fetchone() or (0,)
    retry = DatabaseRetry(database.availability, OutcomeWriter(database))
    batch = Batch(database, retry, Channel.EMAIL, "email", Priority.NORMAL, [id_])
    await proxy.shut()
    giving_back = asyncio.create_task(batch.give_back())
    await until(lambda: database.availability.reason)
    await proxy.open()
    await asyncio.wait_for(giving_back, LONGEST)
    due = db.execute("select due_at <= clock_timestamp() from tocsin.delivery")
    assert due.fetchone() == (True,)


@pytest.mark.hanging
async def test_services_stop_while_the_database_hangs(
    proxy: Proxy, db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    settings = {
        "database_url": proxy.dsn,
        "data_dir": str(tmp_path),
        "public_url": "https://notify.example",
        "jwt_secret": SECRET,
        "smtp_url": "smtp://127.0.0.1:1",
        "port": str(free_port()),
    }
    async with (
        running("worker", log=tmp_path / "w.log", settings=settings, as_owner=True) as worker,
        running("serve", log=tmp_path / "s.log", settings=settings, as_owner=True) as serve,
    ):
        reported = "select count(*) from tocsin.process"
        await until(lambda: db.execute(reported).fetchone() == (2,))
        proxy.freeze()
        await worker.wait_for_log("database unavailable")
        await serve.wait_for_log("database unavailable")
        await asyncio.gather(worker.stop(), serve.stop())  # fails where one hangs
    assert (worker.process.returncode, serve.process.returncode) == (0, 0)


@pytest.mark.hanging
async def test_a_worker_stops_while_the_database_hangs_in_the_middle_of_its_statement(
    proxy: Proxy, db: psycopg.Connection[Any], dsn: str, tmp_path: Path
) -> None:
    settings = {"database_url": proxy.dsn, "data_dir": str(tmp_path)}
    async with running(
        "worker", log=tmp_path / "w.log", settings=settings, as_owner=True
    ) as worker:
        await worker.wait_for_log("working")
        with psycopg.connect(dsn) as app:
            app.execute("lock table tocsin_queue.procrastinate_jobs in access exclusive mode")
            await until(lambda: db.execute(WAITING, ("fetch_job",)).fetchone() == (True,))
            proxy.freeze()
        await worker.stop()
    assert worker.process.returncode == 0


@pytest.mark.hanging
async def test_an_idle_service_notices_a_database_that_hangs_in_the_middle_of_its_report(
    proxy: Proxy, db: psycopg.Connection[Any], dsn: str, tmp_path: Path
) -> None:
    settings = {
        "database_url": proxy.dsn,
        "data_dir": str(tmp_path),
        "public_url": "https://notify.example",
        "jwt_secret": SECRET,
        "port": str(free_port()),
    }
    async with running("serve", log=tmp_path / "s.log", settings=settings, as_owner=True) as serve:
        await serve.wait_for_log("listening")
        with psycopg.connect(dsn) as app:
            app.execute("lock table tocsin.process in access exclusive mode")
            await until(lambda: db.execute(WAITING, ("report_process",)).fetchone() == (True,))
            proxy.freeze()
        await serve.wait_for_log("database unavailable")
        await serve.stop()
    assert serve.process.returncode == 0
