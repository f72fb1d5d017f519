"""The drill of poolers: apps and the pools of `serve` and `worker` through PgBouncer, which is killed under load.

`python -m drills.pooler`, or `make drill-pooler`. LISTEN and the leader connect to PostgreSQL itself.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from msgspec import structs

from drills.ground import drill_folder, show
from faults.inject import Injector, Window
from faults.ledger import read_ledger
from faults.load import Load
from faults.plan import PEOPLE, TYPES, Action, Fault, Plan, make_plan
from faults.processes import ends_with_parent
from faults.run import Result, Run, populate
from faults.server import APP, HOST, OWNER, PASSWORD, Server, free_port
from faults.stage import Stage, serving
from tocsin.dev.postgres_cluster import give

WORKERS, SERVES = 2, 2
DELAY = 0.05  # seconds that the mail server needs for each mail
SECONDS = 75.0
# What happens to PgBouncer: at which second, and for how long. The last one is longer than a lease.
FAULTS = (
    ("kill_pooler", 4.0, 0.3),
    ("kill_pooler", 9.0, 2.0),
    ("freeze_pooler", 16.0, 6.0),
    ("kill_pooler", 28.0, 40.0),
)
BEFORE = 0.3  # seconds before each, an event for everybody: mails are under way when it happens


class PgBouncer:
    """One process in transaction mode, in front of a server."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.port = free_port()
        self._run_as = server.cluster.run_as
        self._settings = folder / "pgbouncer.ini"
        folder.mkdir()
        users = folder / "users"
        users.write_text("".join(f'"{user}" "{PASSWORD}"\n' for user in (OWNER, APP)))
        self._settings.write_text(
            f"[databases]\n* = host={HOST} port={server.port}\n"
            f"[pgbouncer]\nlisten_addr = {HOST}\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\npool_mode = transaction\n"
            "default_pool_size = 20\nmax_client_conn = 500\n"
        )
        give(folder, self._run_as)
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, server_url: str) -> str:
        """Returns the URL of the same database and user through this process."""
        before, _, path = server_url.rpartition("/")
        return f"{before.rpartition(':')[0]}:{self.port}/{path}"

    def start(self) -> None:
        """Starts it, and waits until it accepts connections."""
        self._process = subprocess.Popen(
            ["pgbouncer", "--quiet", str(self._settings)],
            **self._run_as,
            cwd="/",
            env=os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin"},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=ends_with_parent,  # noqa: PLW1509 - one system call
        )
        while not _accepts(self.port):
            assert self._process.poll() is None, "pgbouncer ended"
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


class PoolerInjector(Injector):
    """Faults of a pooler."""

    pooler: PgBouncer

    async def _kill_pooler(self, fault: Fault, window: Window) -> None:
        self.pooler.kill()
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(self.pooler.start)

    async def _freeze_pooler(self, fault: Fault, window: Window) -> None:
        self.pooler.signal(signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        self.pooler.signal(signal.SIGCONT)


def drill_plan(seed: int) -> Plan:
    """Returns the calls of a seed, the faults of this drill, and an event for everybody before each of them."""
    made = make_plan(seed, only=("kill_worker",))
    repeats = int(SECONDS // made.seconds) + 1
    actions = [
        structs.replace(each, number=0, at=each.at + n * made.seconds, target=-1)
        for n in range(repeats)
        for each in made.actions
        if each.kind != "cancel"
    ]
    actions += [
        Action(0, at - BEFORE, "crowd", tuple(range(PEOPLE)), TYPES[0], "auto")
        for _, at, _ in FAULTS
    ]
    actions.sort(key=lambda each: each.at)
    numbered = tuple(structs.replace(each, number=number) for number, each in enumerate(actions))
    faults = tuple(Fault(kind, at, seconds, 0) for kind, at, seconds in FAULTS)
    return Plan(seed, WORKERS, SERVES, SECONDS, numbered, faults)


async def run_drill(seed: int, folder: Path, report: Callable[[str], None]) -> Result:
    """Runs the drill once."""
    plan = drill_plan(seed)
    run = Run(plan, folder, report)
    async with AsyncExitStack() as stack:
        server = Server(folder / "disk" / "database", free_port(), folder / "template")
        stack.callback(server.end)
        await asyncio.to_thread(server.start)
        pooler = PgBouncer(server, folder / "pgbouncer")
        await asyncio.to_thread(pooler.start)
        stack.callback(pooler.kill)
        more = {"pooler_url": pooler.url(server.url(OWNER))}
        dsn = server.url(OWNER)
        around = serving(
            folder, dsn, workers=WORKERS, serves=SERVES, seed=seed, delay=DELAY, more=more
        )
        running = await stack.enter_async_context(around)
        stage = Stage(**structs.asdict(running), folder=folder, server=server)
        api_key, app = await populate(stage.dsn()), pooler.url(server.url(APP))
        load = Load(lambda: app, stage.ports, api_key)
        injector = PoolerInjector(server, stage.supervisor, stage.far_ends, None)
        injector.pooler = pooler
        await run.play(stage, load, injector)
        report(f"sessions in PostgreSQL: {sessions(server)}")
        ledger = await asyncio.to_thread(read_ledger, stage.dsn())
    return run.result(stage, load, injector, ledger)


def sessions(server: Server) -> int:
    """Returns how many sessions the database has."""
    return len(server.backends())


def main(arguments: list[str]) -> int:
    """Runs the drill, and prints its result."""
    parser = argparse.ArgumentParser(prog="python -m drills.pooler", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    with drill_folder() as folder:
        result = asyncio.run(run_drill(options.seed, folder, lambda step: print(step, flush=True)))
    for each in result.windows:
        print(f"{each.kind} for {each.ended - each.began:.1f} s")
    print(show(result))
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
