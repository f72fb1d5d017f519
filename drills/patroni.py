"""Two PostgreSQL servers with Patroni, etcd and HAProxy on loopback, which can be killed and partitioned.

Each node is reached through links of its own: a HAProxy that only forwards. While it is stopped, connections through it
hang, as in a network that drops packets.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg

from drills.patroni_config import (
    entrance_config,
    etcd_command,
    free_ports,
    links_config,
    patroni_config,
)
from faults.processes import ends_with_parent
from faults.server import DATABASE, HOST, PASSWORD, free_port
from faults.stage import until
from tocsin.dev.embedded_postgres import read_pid_file
from tocsin.dev.postgres_cluster import (
    SUPERUSER,
    Cluster,
    RunAs,
    give,
    make_cluster,
    program_environ,
)

START_SECONDS = 90.0
# Kills the server of a data directory when its input closes: with the drill, however that ends.
WATCHDOG = (
    'exec 3<&0; (read -r _ <&3; kill -QUIT "$(head -n 1 "$1/postmaster.pid")" 2> /dev/null) &'
)

STREAMING = """
select sync_state
from pg_stat_replication
where state = 'streaming' and pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) < 65536
"""


class Node:
    """One server: its PostgreSQL, its Patroni, and the links by which everything else reaches it."""

    def __init__(self, name: str, folder: Path, programs: Cluster, etcd: int) -> None:
        self.name = name
        self.folder = folder / name
        home = self.folder / "postgres"
        home.mkdir(parents=True)
        home.chmod(0o700)
        give(home, programs.run_as)
        self.cluster = Cluster(home, programs.binaries, programs.run_as)
        self.ports = free_ports()
        self._etcd = etcd
        self._patroni: subprocess.Popen[bytes] | None = None
        self._links: subprocess.Popen[bytes] | None = None
        self._watchdog: int | None = None

    # Its processes.

    def start(self, *, synchronous: bool) -> None:
        """Starts the links and Patroni, which starts PostgreSQL."""
        links, config = self.folder / "links.cfg", self.folder / "patroni.json"
        links.write_text(links_config(self.ports, self._etcd))
        home, run_as = self.cluster.home, self.cluster.run_as
        binaries = self.cluster.binaries
        settings = patroni_config(self.name, self.ports, home, binaries, synchronous=synchronous)
        config.write_text(json.dumps(settings))
        self._links = spawn(["haproxy", "-db", "-f", str(links)], self.folder / "links.log", run_as)
        self._watchdog = _start_watchdog(self.cluster)
        self.start_patroni()

    def start_patroni(self) -> None:
        command = ["patroni", str(self.folder / "patroni.json")]
        self._patroni = spawn(command, self.folder / "patroni.log", self.cluster.run_as)

    def kill(self) -> None:
        """Kills PostgreSQL, all its processes and Patroni."""
        _end(self._patroni, signal.SIGKILL)
        found = read_pid_file(self.cluster)
        if found is not None:
            for pid in (found.pid, *children(found.pid)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def cut_off(self) -> None:
        """Stops the links: the node reaches nothing, and nothing reaches it."""
        assert self._links is not None
        self._links.send_signal(signal.SIGSTOP)

    def reconnect(self) -> None:
        assert self._links is not None
        self._links.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self.kill()
        _end(self._links, signal.SIGKILL)
        if self._watchdog is not None:
            os.close(self._watchdog)

    # Its state.

    async def has_role(self, role: str) -> bool:
        """Returns whether Patroni's health check of this role succeeds; it ends at the node, not at its link."""
        with suppress(httpx.HTTPError):
            async with httpx.AsyncClient(timeout=3.0) as client:
                response = await client.get(f"http://{HOST}:{self.ports.rest}/{role}")
                return response.status_code == 200
        return False

    async def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Connects as superuser, not by the link; raises psycopg.Error."""
        url = f"postgresql://{SUPERUSER}:{PASSWORD}@{HOST}:{self.ports.sql}/postgres"
        async with await psycopg.AsyncConnection.connect(
            url, autocommit=True, connect_timeout=2
        ) as admin:
            return await (await admin.execute(statement.encode())).fetchall()

    async def accepts_writes(self) -> bool:
        with suppress(psycopg.Error, OSError):
            return await self.rows("select pg_is_in_recovery()") == [(False,)]
        return False

    def receivers(self) -> Iterator[int]:
        """Yields the processes that receive what the leader writes."""
        found = read_pid_file(self.cluster)
        for child in children(found.pid) if found else ():
            with suppress(OSError):
                if b"walreceiver" in Path(f"/proc/{child}/cmdline").read_bytes():
                    yield child


class PatroniCluster:
    """Two nodes, an etcd that elects, and a HAProxy that leads clients to the leader.

    The `entrance` is "haproxy", "haproxy-open", which closes no connection to a former leader, or "hosts": without it.
    """

    def __init__(self, folder: Path, template: Path, *, synchronous: bool, entrance: str) -> None:
        self._folder = folder
        self._entrance = entrance
        self._synchronous = synchronous
        self.port, self._etcd, peers = free_port(), free_port(), free_port()
        programs = make_cluster(template, PASSWORD, lambda _: None, durable=False)
        self._run_as = programs.run_as
        self.nodes = [Node(name, folder, programs, self._etcd) for name in ("a", "b")]
        first = self.nodes[0].cluster
        shutil.copytree(programs.data, first.data, symlinks=True)
        give(first.home, first.run_as)
        self._etcd_command = etcd_command(folder / "etcd", self._etcd, peers)
        self._processes: list[subprocess.Popen[bytes]] = []

    def url(self, user: str) -> str:
        """Returns the address of the leader: HAProxy's, or those of both nodes."""
        if self._entrance != "hosts":
            return f"postgresql://{user}:{PASSWORD}@{HOST}:{self.port}/{DATABASE}"
        hosts = ",".join(f"{HOST}:{node.ports.sql_link}" for node in self.nodes)
        only = "target_session_attrs=read-write"
        return f"postgresql://{user}:{PASSWORD}@{hosts}/{DATABASE}?{only}"

    async def start(self) -> None:
        """Starts everything, and waits for the first leader; raises TimeoutError."""
        (self._folder / "etcd").mkdir(mode=0o700)
        give(self._folder / "etcd", self._run_as)
        entrance, ports = self._folder / "haproxy.cfg", [node.ports for node in self.nodes]
        entrance.write_text(entrance_config(self.port, ports, closes=self._entrance == "haproxy"))
        haproxy = ["haproxy", "-db", "-f", str(entrance)]
        for name, command in (("etcd", self._etcd_command), ("haproxy", haproxy)):
            self._processes.append(spawn(command, self._folder / f"{name}.log", self._run_as))
        await until(self._etcd_is_healthy, START_SECONDS)
        for node in self.nodes:
            node.start(synchronous=self._synchronous)
            await until(lambda: self.nodes[0].has_role("primary"), START_SECONDS)

    async def _etcd_is_healthy(self) -> bool:
        with suppress(httpx.HTTPError):
            async with httpx.AsyncClient(timeout=3.0) as client:
                response = await client.get(f"http://{HOST}:{self._etcd}/health")
                return bool(response.json() == {"health": "true"})
        return False

    def end(self) -> None:
        for node in self.nodes:
            node.end()
        for process in self._processes:
            _end(process, signal.SIGKILL)

    async def leader(self) -> tuple[Node, Node] | None:
        """Returns the leader and its standby; None unless the standby follows, as a synchronous one where wanted."""
        wanted = "sync" if self._synchronous else "async"
        for node, other in (self.nodes, self.nodes[::-1]):
            if await node.has_role("primary"):
                with suppress(psycopg.Error, OSError):
                    follows = (wanted,) in await node.rows(STREAMING)
                    role = "sync" if self._synchronous else "replica"
                    if follows and await other.has_role(role):
                        return node, other
        return None

    async def switch_over(self, leader: Node, candidate: Node) -> None:
        """Asks Patroni for a switchover."""
        body = {"leader": leader.name, "candidate": candidate.name}
        async with httpx.AsyncClient(timeout=60.0) as client:
            response = await client.post(f"http://{HOST}:{leader.ports.rest}/switchover", json=body)
        response.raise_for_status()


def spawn(command: list[str], log: Path, run_as: RunAs) -> subprocess.Popen[bytes]:
    """Starts a program that ends with this process."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            **run_as,
            cwd="/",
            env=program_environ() | {"PATH": f"{os.environ['PATH']}:/usr/sbin"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=ends_with_parent,  # noqa: PLW1509 - one system call
        )


def children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _start_watchdog(cluster: Cluster) -> int:
    """Returns the end of a pipe; when it closes, also by kill -9 of this process, the server is stopped."""
    reading, writing = os.pipe()
    subprocess.run(
        ["/bin/sh", "-c", WATCHDOG, "drill-watchdog", str(cluster.data)],
        **cluster.run_as,
        cwd="/",
        stdin=reading,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        check=True,
    )
    os.close(reading)
    return writing


def _end(process: subprocess.Popen[bytes] | None, number: int) -> None:
    if process is not None:
        process.send_signal(number)
        process.wait()
