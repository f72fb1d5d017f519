"""An installation under a steady load, and what the load costs: for benchmarks/scaling.py.

Each of its processes runs on a host of its own: see bench/hosts.py.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from soak import far_ends
from stream import OUR_PATH, Part, part

from bench import stage
from bench.hosts import Hosts
from bench.listening import leads
from bench.paced_load import PEOPLE, PacedLoad, finish, prepare
from bench.rounds import until
from bench.scaling_model import GROUPS, READ, WAL, Costs, plus, times
from bench.service import Service, serve, worker
from bench.standby import standby
from tocsin.dev.embedded_postgres import Postgres
from tocsin.settings.keys import new_vapid_key

PRIMARY, STANDBY, LOAD = "primary", "standby", "load"
_MOST = 3  # of `serve` and of `worker`
HOSTS = (
    PRIMARY,
    STANDBY,
    LOAD,
    *(f"{kind} {number + 1}" for kind in ("serve", "worker") for number in range(_MOST)),
)
IDLE_SECONDS = 4.0
WARM_SECONDS = 3.0
WARM = (
    "mail",
    "push",
    "web push",
    "webhook",
    "chat",
    "stream",
    "fan-out with mail",
    "count",
    "list",
    "mark read",
)
_TABLES = """
    select oid::regclass::text
    from pg_class
    where relnamespace in ('tocsin'::regnamespace, 'tocsin_queue'::regnamespace) and relkind = 'r'
"""
_WRITTEN = """
    select sum(record_size), sum(fpi_size)
    from pg_get_wal_stats(%s, %s)
"""
_SENDER = "select pid from pg_stat_replication"


class Installation:
    """An installation in a database of its own, with a standby; created on the host of the load."""

    def __init__(
        self, stack: ExitStack, running: Postgres, hosts: Hosts, dsn: str, standby_pid: int
    ) -> None:
        self.dsn = dsn
        self.owner = stack.enter_context(psycopg.connect(dsn, autocommit=True))
        self._admin = stack.enter_context(
            psycopg.connect(running.superuser_dsn, autocommit=True, dbname="postgres")
        )
        self._admin.execute("create extension if not exists pg_walinspect")
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="tocsin-scaling-")))
        self._settings = far_ends(stack, folder) | {
            "vapid_key": new_vapid_key(),
            "allow_private_endpoints": "1",
        }
        prepare(self.owner, other_far_ends(stack))
        self._hosts = hosts
        self._fixed = {"postgres": running.pid, "standby": standby_pid}
        self._runner = stack.enter_context(asyncio.Runner())
        self._load = PacedLoad(dsn)
        self._runner.run(self._load.open())
        stack.callback(lambda: self._runner.run(self._load.close()))
        self.serves: list[Service] = []
        self._workers: list[Popen[bytes]] = []
        self._idle: Costs = {}

    @property
    def counts(self) -> dict[str, int]:
        """How often the last load made each of its operations."""
        return dict(self._load.counts)

    @contextmanager
    def started(self, *, serves: int = 0, workers: int = 0) -> Iterator[None]:
        """Runs more processes until the block ends."""
        before = len(self.serves), len(self._workers)
        with ExitStack() as stack:
            try:
                self._start(stack, serves, workers)
                yield
            finally:
                del self.serves[before[0] :], self._workers[before[1] :]

    def _start(self, stack: ExitStack, serves: int, workers: int) -> None:
        for _ in range(workers):  # first, so that a worker leads
            with self._hosts.at(f"worker {len(self._workers) + 1}"):
                self._workers.append(stack.enter_context(worker(self.dsn, **self._settings)))
        until(lambda: leads(self.owner))
        for _ in range(serves):
            with self._hosts.at(f"serve {len(self.serves) + 1}"):
                self.serves.append(stack.enter_context(serve(self.dsn)))
        until(self._is_quiet)
        self.make(dict.fromkeys(WARM, 8.0), WARM_SECONDS)
        finish(self.owner)

    @contextmanager
    def streams(self, number: int) -> Iterator[None]:
        """Keeps streams open, the same number on each `serve`."""
        with ExitStack() as stack:
            each = number // len(self.serves)
            for index, served in enumerate(self.serves):
                reader: Part = stack.enter_context(part("bench.streams"))
                bounds = [index * each, (index + 1) * each]
                reader.ask(open=bounds, port=served.port, path=OUR_PATH, token=True)
            yield

    def make(self, paces: dict[str, float], seconds: float) -> None:
        """Makes calls of each kind, so many a second."""
        ports = [each.port for each in self.serves]
        self._runner.run(self._load.run(paces, seconds, ports))

    def cost(self, paces: dict[str, float], seconds: float) -> Costs:
        """Returns the cost of one call, without what an idle installation costs."""
        took, used = self.measured(lambda: self.make(paces, seconds))
        made = self._load.counts
        calls = made["notify"] + made[READ] or made.total()
        return times(plus(used, self._idle, -took), 1 / calls) | {"fpi": used["fpi"] / calls}

    def rest(self, seconds: float = IDLE_SECONDS) -> Costs:
        """Returns the cost of a second without load, which is left out of the costs from now on."""
        finish(self.owner)
        until(self._is_quiet)
        took, used = self.measured(lambda: time.sleep(seconds))
        self._idle = times(used, 1 / took)
        return self._idle

    def _is_quiet(self) -> bool:
        """Returns whether no process of Tocsin is still starting."""
        before = self._cpu()
        time.sleep(1.0)
        after = self._cpu()
        most = 0.03 * (len(self.serves) + len(self._workers))
        return sum(after[name] - before[name] for name in ("serve", "worker")) < most

    def vacuum(self) -> None:
        """Vacuums all tables of both schemas, when all is delivered."""
        finish(self.owner)
        tables = [name for (name,) in self.owner.execute(_TABLES).fetchall()]
        self.owner.execute(f"vacuum (analyze) {', '.join(tables)}".encode())

    def notifications(self) -> int:
        """Returns how many there are."""
        row = self.owner.execute("select count(*) from tocsin.notification").fetchone()
        assert row is not None
        return int(row[0])

    def measured(self, work: Callable[[], object]) -> tuple[float, Costs]:
        """Returns the seconds until all of it is done, and the CPU time and the WAL until then."""
        begun, started, before = self._position(), time.monotonic(), self._cpu()
        work()
        finish(self.owner)
        after, took, ended = self._cpu(), time.monotonic() - started, self._position()
        row = self._admin.execute(_WRITTEN, (begun, ended)).fetchone() or (0, 0)
        used = {name: 1e6 * (after[name] - before[name]) for name in GROUPS}
        wal, pages = (float(each or 0) for each in row)
        return took, used | {WAL: wal, "fpi": pages}

    def _cpu(self) -> Costs:
        senders = sum(stage.cpu(pid) for (pid,) in self._admin.execute(_SENDER).fetchall())
        return {
            "postgres": stage.cpu(self._fixed["postgres"]) - senders,
            "walsender": senders,
            "standby": stage.cpu(self._fixed["standby"]),
            "serve": sum(stage.cpu(each.process.pid) for each in self.serves),
            "worker": sum(stage.cpu(each.pid) for each in self._workers),
        }

    def _position(self) -> str:
        row = self._admin.execute("select pg_current_wal_insert_lsn()").fetchone()
        assert row is not None
        return str(row[0])


def other_far_ends(stack: ExitStack) -> dict[str, Any]:
    """Starts them; returns a browser's subscription for each person with one, and the addresses of the others."""
    command = [sys.executable, "-m", "bench.other_far_ends", str(PEOPLE["w"])]
    process = stack.enter_context(
        Popen(command, cwd=Path(__file__).parent.parent, stdin=PIPE, stdout=PIPE, text=True)
    )
    stack.callback(process.kill)
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


@contextmanager
def installed(running: Postgres, hosts: Hosts) -> Iterator[Installation]:
    """Yields a new installation without processes of Tocsin; its standby is removed at the end."""
    with ExitStack() as stack:
        stack.enter_context(hosts.at(LOAD))
        stack.enter_context(without_autovacuum(running))
        with hosts.at(STANDBY):
            follower = stack.enter_context(standby(running))
        dsn = stack.enter_context(stage.database(running, "scaling", rows=None))
        yield Installation(stack, running, hosts, dsn, follower)


@contextmanager
def without_autovacuum(running: Postgres) -> Iterator[None]:
    """Turns it off in all databases of the benchmarks' own server, until the block ends."""
    with psycopg.connect(running.superuser_dsn, autocommit=True) as admin:
        admin.execute("alter system set autovacuum = off")
        admin.execute("select pg_reload_conf()")
        try:
            yield
        finally:
            admin.execute("alter system reset autovacuum")
            admin.execute("select pg_reload_conf()")
