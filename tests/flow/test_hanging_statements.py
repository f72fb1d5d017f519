"""A database that hangs in the middle of a statement: no response comes, and the connection is not closed either."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import psycopg
import pytest

from tests.support.database_proxy import *  # noqa: F403 - fixtures
from tests.support.database_proxy import WAITING, Proxy
from tests.support.services import LONGEST, SECRET, Service, free_port, running, until
from tocsin.engine.model import Unavailable
from tocsin.engine.store.connection import Availability
from tocsin.http.offload import Offload
from tocsin.settings import Settings

pytestmark = pytest.mark.hanging

# Seconds from SIGTERM to the end; supervisors kill a process later. A busy machine takes longer than an idle one.
STOPS_WITHIN = 60.0

Db = psycopg.Connection[Any]


def settings(proxy: Proxy, folder: Path) -> dict[str, str]:
    return {
        "database_url": proxy.dsn,
        "data_dir": str(folder),
        "public_url": "https://notify.example",
        "jwt_secret": SECRET,
        "smtp_url": "smtp://127.0.0.1:1",
        "port": str(free_port()),
    }


@contextmanager
def locked(dsn: str, table: str) -> Iterator[None]:
    """Locks a table, so that statements on it wait, until the end of the block."""
    with psycopg.connect(dsn) as app:
        app.execute(f"lock table {table} in access exclusive mode".encode())
        yield


@asynccontextmanager
async def serving(proxy: Proxy, folder: Path) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    """Yields the service, and a client of alice."""
    chosen = settings(proxy, folder)
    token = jwt.encode({"sub": "alice", "exp": time.time() + 600}, SECRET, "HS256")
    async with (
        running("serve", log=folder / "s.log", settings=chosen, as_owner=True) as service,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{chosen['port']}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=LONGEST,
        ) as client,
    ):
        await service.wait_for_log("listening")
        yield service, client


async def test_a_request_whose_statement_gets_no_response_gets_a_503(
    proxy: Proxy, db: Db, dsn: str, tmp_path: Path
) -> None:
    async with serving(proxy, tmp_path) as (service, alice):
        with locked(dsn, "tocsin.notification"):
            asking = asyncio.create_task(alice.get("/api/notifications/"))
            await until(lambda: db.execute(WAITING, ("tocsin.notification",)).fetchone() == (True,))
            proxy.freeze()
        response = await asking
        assert response.status_code == 503
        assert response.headers["retry-after"]
        proxy.resume()
        await until(lambda: _works(alice))
        await service.stop()
    assert service.process.returncode == 0


async def _works(client: httpx.AsyncClient) -> bool:
    return (await client.get("/api/notifications/")).status_code == 200


async def test_a_service_stops_while_a_request_hangs(
    proxy: Proxy, db: Db, dsn: str, tmp_path: Path
) -> None:
    async with serving(proxy, tmp_path) as (service, alice):
        with locked(dsn, "tocsin.notification"):
            asking = asyncio.create_task(alice.get("/api/notifications/"))
            await until(lambda: db.execute(WAITING, ("tocsin.notification",)).fetchone() == (True,))
            proxy.freeze()
        assert await service.stop() < STOPS_WITHIN
        assert (await asking).status_code == 503
    assert service.process.returncode == 0
    assert "exception" not in service.log


@pytest.mark.parametrize("table", ["tocsin.leader", "tocsin.event_queue", "tocsin.pending_change"])
async def test_a_leader_stops_while_its_statement_hangs(
    proxy: Proxy, db: Db, dsn: str, tmp_path: Path, table: str
) -> None:
    chosen = settings(proxy, tmp_path)
    async with running("serve", log=tmp_path / "s.log", settings=chosen, as_owner=True) as service:
        await service.wait_for_log("leading")
        with locked(dsn, table):
            await until(lambda: db.execute(WAITING, ("tocsin.",)).fetchone() == (True,))
            proxy.freeze()
        assert await service.stop() < STOPS_WITHIN
    assert service.process.returncode == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", ["serve", "worker"])
async def test_a_service_stops_while_a_statement_of_its_start_hangs(
    proxy: Proxy, db: Db, dsn: str, tmp_path: Path, command: str, how: signal.Signals
) -> None:
    chosen = settings(proxy, tmp_path)
    with locked(dsn, "tocsin.migration"):
        async with running(
            command, log=tmp_path / "log", settings=chosen, as_owner=True
        ) as started:
            await until(lambda: db.execute(WAITING, ("",)).fetchone() == (True,))
            proxy.freeze()
            started.process.send_signal(how)
            await asyncio.wait_for(started.process.wait(), STOPS_WITHIN)


@pytest.mark.parametrize("table", ["tocsin.delivery", "tocsin.attempt"])
async def test_a_worker_stops_while_a_statement_of_its_deliveries_hangs(
    proxy: Proxy, db: Db, dsn: str, tmp_path: Path, table: str
) -> None:
    """While it claims deliveries, and while it writes that the mail server refused them."""
    db.execute("select tocsin.upsert_recipient('alice', 'alice@example.com')")
    db.execute("select tocsin.notify('forum.new_reply', array['alice'], 'x')")
    chosen = settings(proxy, tmp_path)
    leader = {**chosen, "database_url": dsn}
    jobs = "select count(*) > 0 from tocsin_queue.procrastinate_jobs where queue_name = 'email'"
    async with running("serve", log=tmp_path / "s.log", settings=leader, as_owner=True):
        await until(lambda: db.execute(jobs).fetchone() == (True,))
    async with running("worker", log=tmp_path / "w.log", settings=chosen, as_owner=True) as worker:
        with locked(dsn, table):
            await until(lambda: db.execute(WAITING, ("",)).fetchone() == (True,))
            proxy.freeze()
        assert await worker.stop() < STOPS_WITHIN
    assert worker.process.returncode == 0


async def test_a_large_request_whose_statement_gets_no_response_is_unavailable(
    proxy: Proxy, db: Db, dsn: str
) -> None:
    """It runs in a subprocess, which has no other statement to notice that by."""
    db.execute("select tocsin.upsert_recipient('alice', 'alice@example.com')")
    availability = Availability(proxy.dsn)
    offload = Offload(Settings(), proxy.dsn, hanging=availability.hanging)
    with locked(dsn, "tocsin.notification"):
        call = offload.respond("export_recipient", {"recipient_id": "alice"})
        exporting = asyncio.create_task(call)
        await until(lambda: db.execute(WAITING, ("",)).fetchone() == (True,))
        proxy.freeze()
    availability.report_lost()  # as the reports of its process do
    with pytest.raises(Unavailable):
        await asyncio.wait_for(exporting, LONGEST)
    assert offload.pid is None
    await availability.close()
