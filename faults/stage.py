"""The running parts of a seed: a database, far ends, our processes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
from msgspec import Struct, structs

from faults.load import SECRET, new_client
from faults.processes import Service, Supervisor, ends_with_parent
from faults.server import OWNER, Pair, Server, free_port

START_SECONDS = 120.0


class Running(Struct):
    """Far ends and our processes, on a database."""

    far_ends: subprocess.Popen[str]
    services: list[Service]
    supervisor: Supervisor
    ports: list[int]


class Stage(Running):
    """The running parts: a database, far ends, our processes."""

    folder: Path
    server: Server

    def dsn(self) -> str:
        return self.server.url(OWNER)


@asynccontextmanager
async def staged(
    folder: Path,
    template: Path,
    *,
    workers: int,
    serves: int,
    seed: int = 0,
    failover: bool = False,
    delay: float = 0.0,
) -> AsyncIterator[Stage]:
    """Starts all parts; ends them with the block."""
    async with AsyncExitStack() as stack:
        kind = Pair if failover else Server
        server = kind(folder / "disk" / "database", free_port(), template)
        stack.callback(server.end)
        await asyncio.to_thread(server.start)
        dsn = server.url(OWNER)
        running = await stack.enter_async_context(
            serving(folder, dsn, workers=workers, serves=serves, seed=seed, delay=delay)
        )
        yield Stage(**structs.asdict(running), folder=folder, server=server)


@asynccontextmanager
async def serving(
    folder: Path,
    dsn: str,
    *,
    workers: int,
    serves: int,
    seed: int = 0,
    delay: float = 0.0,
    more: Mapping[str, str] | None = None,
) -> AsyncIterator[Running]:
    """Starts far ends and our processes, with `more` settings, on a database that runs; ends them with the block."""
    async with AsyncExitStack() as stack:
        far_ends, settings = start_far_ends(folder, workers, seed, delay)
        stack.callback(far_ends.wait)
        stack.callback(far_ends.kill)
        ports = [free_port() for _ in range(serves)]
        services = make_services(folder, dsn, ports, settings)
        supervisor = Supervisor(services)
        for service in services:
            service.settings |= more or {}
            service.start()
        stack.push_async_callback(stop_all, services)
        supervising = asyncio.create_task(supervisor.run())
        stack.callback(supervising.cancel)
        await until(lambda: all_ready(ports), START_SECONDS)
        await until(lambda: offered(dsn, workers), START_SECONDS)
        yield Running(far_ends, services, supervisor, ports)


def make_services(
    folder: Path, dsn: str, ports: list[int], workers: list[dict[str, str]]
) -> list[Service]:
    """Returns an HTTP process for each port, and a worker for each set of settings."""
    common = {
        "database_url": dsn,
        "jwt_secret": SECRET,
        "log_format": "json",
        "data_dir": str(folder),
        "database_wait": "300",  # a start during an outage waits for its end, however long
        "public_url": f"http://127.0.0.1:{ports[0]}",
        "mail_cap": "0",  # each delivery has to end within the run
    }
    settings = [("serve", slot, {"port": str(port)}) for slot, port in enumerate(ports)]
    settings += [("worker", slot, one) for slot, one in enumerate(workers)]
    return [
        Service(kind, slot, folder / f"{kind}-{slot}.log", common | one)
        for kind, slot, one in settings
    ]


async def stop_all(services: list[Service]) -> None:
    await asyncio.gather(*(service.stop() for service in services))


def start_far_ends(
    folder: Path, slots: int, seed: int, delay: float
) -> tuple[subprocess.Popen[str], list[dict[str, str]]]:
    """Returns the process of the far ends, and the settings that lead each worker to its own."""
    command = [sys.executable, "-m", "faults.far_ends", str(folder)]
    options = ["--slots", str(slots), "--seed", str(seed), "--delay", str(delay)]
    with (folder / "far-ends.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            preexec_fn=ends_with_parent,  # noqa: PLW1509 - one system call
        )
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


async def until(condition: Callable[[], Any], seconds: float) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.05)


async def all_ready(ports: list[int]) -> bool:
    async with new_client(5.0) as client:
        with suppress(httpx.HTTPError):
            for port in ports:
                response = await client.get(f"http://127.0.0.1:{port}/readyz")
                if response.status_code != 200:
                    return False
            return True
    return False


async def offered(dsn: str, workers: int) -> bool:
    """Returns whether each worker has reported that it runs."""
    statement = "select count(*) from tocsin.process where kind = 'worker'"
    with suppress(psycopg.Error):
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as owner:
            row = await (await owner.execute(statement)).fetchone()
            return row is not None and row[0] >= workers
    return False
