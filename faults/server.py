"""A PostgreSQL that can be stopped, frozen, filled up, cut off and failed over."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

import psycopg

from tocsin.dev.embedded_postgres import PidFile, gone, read_pid_file, start_watchdog
from tocsin.dev.postgres_cluster import (
    SUPERUSER,
    Cluster,
    PostgresError,
    call,
    give,
    make_cluster,
    program_environ,
)
from tocsin.migrate import migrate

HOST = "127.0.0.1"
PASSWORD = "faults"
OWNER, APP, DATABASE = "tocsin_owner", "faults_app", "tocsin"
START_SECONDS = 60.0
# If processes crash, the kernel loses nothing, so no write waits for the disk.
SETTINGS = (
    f"listen_addresses={HOST}",
    "unix_socket_directories=",
    "max_connections=200",
    "timezone=UTC",
    "fsync=off",
    "min_wal_size=32MB",
    "max_wal_size=128MB",
    "log_connections=off",
)


class ServerDown(Exception):
    """The server does not start."""


def make_template(folder: Path) -> None:
    """Creates a migrated cluster, which each run copies."""
    server = Server(folder, free_port())
    server.start()
    try:
        with psycopg.connect(server.url(SUPERUSER, "postgres"), autocommit=True) as admin:
            admin.execute(f"create role {OWNER} login createrole password '{PASSWORD}'")
            admin.execute(f"create database {DATABASE} owner {OWNER}")
        migrate(server.url(OWNER))
        with psycopg.connect(server.url(SUPERUSER), autocommit=True) as admin:
            admin.execute(f"create role {APP} login password '{PASSWORD}'")
            admin.execute(f"grant tocsin_app to {APP}")
    finally:
        server.stop(signal.SIGINT)


class Server:
    """One cluster and its postmaster."""

    more: tuple[str, ...] = ()

    def __init__(self, folder: Path, port: int, template: Path | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        self.folder = folder
        self.port = port
        if template is not None and not (folder / "postgres").exists():
            shutil.copytree(template / "postgres", folder / "postgres", symlinks=True)
        self.cluster: Cluster = make_cluster(folder, PASSWORD, lambda _: None, durable=False)
        if template is not None:
            give(self.cluster.home, self.cluster.run_as)
        self.pid = 0
        self._watchdog: FileIO | None = None

    def url(self, user: str, database: str = DATABASE) -> str:
        return f"postgresql://{user}:{PASSWORD}@{HOST}:{self.port}/{database}"

    @property
    def runs(self) -> bool:
        return bool(self.pid) and not gone(self.pid)

    def start(self) -> None:
        """Starts it and waits until it takes connections; raises ServerDown."""
        command = [str(self.cluster.binaries / "bin" / "postgres"), "-D", str(self.cluster.data)]
        for setting in (*SETTINGS, *self.more, f"port={self.port}"):
            command += ["-c", setting]
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with (self.folder / "postgres.log").open("ab") as log:
                process = subprocess.Popen(
                    command,
                    **self.cluster.run_as,
                    cwd="/",
                    env=program_environ(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self.pid = process.pid
            self._watchdog = start_watchdog(self.cluster, process.pid)
            if self._is_ready(process, deadline):
                process.returncode = 0  # reaped by `gone`
                return
            self._watchdog.close()
            time.sleep(0.3)  # the last sessions of a killed server
        raise ServerDown(f"see {self.folder / 'postgres.log'}")

    def _is_ready(self, process: subprocess.Popen[bytes], deadline: float) -> bool:
        while process.poll() is None:
            found: PidFile | None = read_pid_file(self.cluster)
            if found and found.pid == process.pid and found.status in {"ready", "standby"}:
                return True
            if time.monotonic() > deadline:
                process.kill()
                process.wait()
            time.sleep(0.01)
        return False

    def stop(self, how: int = signal.SIGQUIT) -> None:
        """Stops it; SIGQUIT is `pg_ctl -m immediate stop`, SIGINT the ordinary way."""
        if self.pid:
            for number in (how, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.kill(self.pid, number)
                if _ended(self.pid, 15.0):
                    break
        if self._watchdog is not None:
            self._watchdog.close()

    def end(self) -> None:
        """Stops it permanently, also where it is frozen."""
        self.signal_all(signal.SIGCONT)
        self.stop()

    def signal_all(self, number: int) -> None:
        """Sends a signal to the postmaster and all its processes."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
        for child in self.children():
            with suppress(ProcessLookupError):
                os.kill(child, number)

    def children(self) -> list[int]:
        with suppress(OSError):
            return [
                int(each)
                for each in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            ]
        return []

    def backends(self) -> list[int]:
        """Returns the processes of client sessions."""
        statement = "select pid from pg_stat_activity where datname = %s"
        return [row[0] for row in self.rows(statement, DATABASE)]

    def rows(self, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Connects as superuser to the maintenance database."""
        url = self.url(SUPERUSER, "postgres")
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as admin:
            return admin.execute(statement.encode(), arguments).fetchall()

    def terminate(self, choose: Callable[[list[int]], list[int]]) -> int:
        """Ends the sessions that `choose` selects; returns their number."""
        pids = choose(self.backends())
        self.rows("select pg_terminate_backend(pid) from unnest(%s::int[]) pid", pids)
        return len(pids)


class Pair(Server):
    """A primary with an asynchronous standby, which is promoted once."""

    more = ("wal_keep_size=256MB", "wal_retrieve_retry_interval=200ms")

    def __init__(self, folder: Path, port: int, template: Path) -> None:
        super().__init__(folder, port, template)
        self.standby_port = free_port()
        self._standby: Server | None = None
        self._standby_folder = folder.with_name("standby")

    @property
    def promoted(self) -> bool:
        return self._standby is not None and self.pid == self._standby.pid

    def url(self, user: str, database: str = DATABASE) -> str:
        hosts = f"{HOST}:{self.port},{HOST}:{self.standby_port}"
        only = "target_session_attrs=read-write"
        return f"postgresql://{user}:{PASSWORD}@{hosts}/{database}?{only}"

    def start(self) -> None:
        if self.promoted:
            self.port = self.standby_port
        super().start()
        if self._standby is None:
            self._standby = self._make_standby()

    def _make_standby(self) -> Server:
        folder = self._standby_folder
        home = folder / "postgres"
        home.mkdir(parents=True)
        folder.chmod(0o755)
        give(home, self.cluster.run_as)
        source = f"postgresql://{SUPERUSER}:{PASSWORD}@{HOST}:{self.port}/postgres"
        program = str(self.cluster.binaries / "bin" / "pg_basebackup")
        options = ["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--wal-method=stream"]
        done = call(
            [program, f"--dbname={source}", f"--pgdata={home / 'data'}", *options],
            self.cluster.run_as,
        )
        if done.returncode != 0:
            raise PostgresError(done.stderr)
        standby = Server(folder, self.standby_port)
        standby.start()
        return standby

    def replicates(self) -> bool:
        """Returns whether the standby receives what the primary writes; not yet so after an outage of the primary."""
        streaming = "select from pg_stat_replication where state = 'streaming'"
        lag = "pg_wal_lsn_diff(pg_current_wal_flush_lsn(), flush_lsn)"
        return bool(self.rows(f"{streaming} and {lag} < 65536"))

    def hold_replication(self) -> None:
        """Stops the replication, so that the standby falls behind."""
        for child in self._receivers():
            os.kill(child, signal.SIGSTOP)

    def fail_over(self) -> None:
        """Ends the primary at once, and promotes the standby."""
        assert self._standby is not None
        super().stop()
        for child in self._receivers():
            os.kill(child, signal.SIGTERM)  # before it reads what the primary sent last
            os.kill(child, signal.SIGCONT)
        self._standby.rows("select pg_promote(true, 30)")
        self.pid = self._standby.pid
        self.folder, self.cluster = self._standby.folder, self._standby.cluster

    def _receivers(self) -> list[int]:
        assert self._standby is not None
        found = []
        for child in self._standby.children():
            with suppress(OSError):
                if b"walreceiver" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(child)
        return found

    def end(self) -> None:
        super().end()
        if self._standby is not None:
            self._standby.end()


def free_port() -> int:
    """Chooses a port below the range for outgoing connections, so that it stays free while the server is down."""
    while True:
        port = secrets.choice(range(15432, 32000))
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind((HOST, port))
                return port


async def accepts(url: str) -> bool:
    """Returns whether it accepts a connection and a statement now."""
    try:
        async with asyncio.timeout(2.0):
            async with await psycopg.AsyncConnection.connect(url, connect_timeout=2) as connection:
                await connection.execute("select 1")
        return True
    except (psycopg.Error, TimeoutError, OSError):
        return False


def _ended(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not gone(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
