"""The subprocess for large requests: its responses, its end, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from litestar import Litestar

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.services import until
from tocsin.engine.model import Unavailable
from tocsin.http.offload import Offload
from tocsin.settings import Settings

pytestmark = pytest.mark.own_app

EVENT = {"event_type": "forum.new_thread", "title": "x"}
LARGE = "y" * 40_000  # more than the event loop decodes


async def never() -> None:
    """Waits for ever: the database does not hang."""
    await asyncio.Event().wait()


@pytest_asyncio.fixture
async def offload(dsn: str) -> AsyncIterator[Offload]:
    process = Offload(Settings(), dsn, hanging=never, idle=0.2)
    yield process
    await process.stop()


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_a_large_event_is_like_a_small_one(
    app: Litestar, machine: httpx.AsyncClient, people: None
) -> None:
    small = {**EVENT, "recipients": ["alice", "bob"]}
    assert (await machine.post("/api/events/", json=small)).json()["notifications"] == 2
    pids = [app.state.offload.pid]
    large = {**small, "body": LARGE}
    for replayed in (None, "true"):
        response = await machine.post(
            "/api/events/", json=large, headers={"Idempotency-Key": "one"}, timeout=60
        )
        assert response.status_code == 202
        assert response.json()["notifications"] == 2
        assert response.headers.get("idempotent-replayed") == replayed
    pids.append(app.state.offload.pid)
    assert pids[0] is None
    assert pids[1] is not None
    conflict = await machine.post(
        "/api/events/", json={**large, "title": "z"}, headers={"Idempotency-Key": "one"}
    )
    assert (conflict.status_code, conflict.json()["errors"][0]["field"]) == (422, "Idempotency-Key")
    unknown = await machine.post("/api/events/", json={**large, "recipients": ["nobody"]})
    assert (unknown.status_code, unknown.json()["errors"][0]["field"]) == (422, "recipients")
    wrong = await machine.post("/api/events/", json={**large, "titel": 1})
    assert (wrong.status_code, wrong.headers["content-type"]) == (422, "application/problem+json")
    unreadable = await machine.post("/api/events/", content=b"{" + b" " * 40_000)
    assert unreadable.status_code == 400


async def test_many_at_a_time_get_their_own_responses(
    machine: httpx.AsyncClient, people: None
) -> None:
    audiences = [["alice"], ["alice", "bob"], ["alice", "bob", "carol"]] * 4
    responses = await asyncio.gather(
        *[
            machine.post(
                "/api/events/", json={**EVENT, "body": LARGE, "recipients": each}, timeout=60
            )
            for each in audiences
        ]
    )
    assert [each.json()["notifications"] for each in responses] == [len(each) for each in audiences]


async def test_a_process_that_dies_is_replaced(offload: Offload) -> None:
    call = "export_recipient", {"recipient_id": "nobody"}
    assert (await offload.respond(*call)).status_code == 404
    pid = offload.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    under_way = asyncio.create_task(offload.respond(*call))
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(Unavailable):
        await under_way
    assert (await offload.respond(*call)).status_code == 404
    assert offload.pid != pid


async def test_it_ends_when_nothing_large_comes(offload: Offload) -> None:
    await offload.respond("export_recipient", {"recipient_id": "nobody"})
    pid = offload.pid
    assert pid is not None
    await until(lambda: not is_alive(pid))
    assert offload.pid is None


async def test_it_ends_with_a_process_that_is_killed(dsn: str) -> None:
    program = """
import asyncio, sys
from tocsin.http.offload import Offload
from tocsin.logs import configure_logs
from tocsin.settings import Settings

async def main():
    configure_logs(Settings())
    offload = Offload(Settings(), sys.argv[1], hanging=lambda: asyncio.sleep(600))
    await offload.respond("export_recipient", {"recipient_id": "nobody"})
    print(offload.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, dsn, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    await parent.wait()
    await until(lambda: not is_alive(pid))
