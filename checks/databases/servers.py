"""PostgreSQL servers of all versions, and PgBouncer, for a test run; each ends with this process."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from tests.support.services import free_port
from tocsin.dev.embedded_postgres import WATCHDOG
from tocsin.dev.postgres_cluster import call, give, unprivileged_user, usable_binaries

NPM = Path(__file__).with_name("node_modules")
OWNER = "tocsin_owner"
NEWEST = 18


class Server:
    """A running server that trusts every login."""

    def __init__(self, data: Path, port: int, binaries: Path) -> None:
        self.data = data
        self.port = port
        self.binaries = binaries

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        return make_conninfo("", host="127.0.0.1", port=self.port, user=user, dbname=database)

    @contextmanager
    def database(self, name: str, options: str = "") -> Iterator[str]:
        """Yields the owner's DSN of a new database."""
        with psycopg.connect(self.dsn(), autocommit=True) as admin:
            statement = (
                f"create database {name} owner {OWNER} template template0 encoding 'UTF8' {options}"
            )
            admin.execute(statement.encode())
            try:
                yield self.dsn(name, OWNER)
            finally:
                admin.execute(f"drop database {name} with (force)".encode())


def binaries_of(version: int, folder: Path) -> Path:
    """Returns the path of the programs of a major version, accessible to the user that runs them."""
    if version == NEWEST:
        return usable_binaries(folder, unprivileged_user(), print) / "bin"
    package = NPM / f"pg{version}"
    target = folder / package.name
    shutil.copytree(package / "native", target)
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        where = target / Path(link["target"]).relative_to("native")
        with suppress(FileExistsError):
            where.symlink_to(Path(link["source"]).name)
    for program in (target / "bin").iterdir():
        program.chmod(0o755)
    return target / "bin"


@contextmanager
def server(version: int, folder: Path, *settings: str) -> Iterator[Server]:
    """Creates a cluster of a version, with an owner that may create roles; fast and not durable."""
    folder.mkdir(exist_ok=True)
    binaries, data, run_as = (
        binaries_of(version, folder),
        folder / f"data{version}",
        unprivileged_user(),
    )
    data.mkdir(mode=0o700)
    give(data, run_as)
    _run(
        [
            str(binaries / "initdb"),
            f"--pgdata={data}",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]
    )
    with started(data, binaries, *settings) as running:
        with psycopg.connect(running.dsn(), autocommit=True) as admin:
            admin.execute(f"create role {OWNER} login createrole createdb".encode())
        yield running


@contextmanager
def started(
    data: Path, binaries: Path, *settings: str, accepting: bool = True, port: int | None = None
) -> Iterator[Server]:
    """Runs the server of a cluster, with these settings too, until the end of the block or of this process.

    It accepts connections when the block begins, unless `accepting` is false.
    """
    port = port or free_port()
    options = (
        f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        " -c wal_level=logical -c max_connections=100 -c shared_buffers=32MB"
    )
    options += "".join(f" -c {each}" for each in settings)
    control = [str(binaries / "pg_ctl"), f"--pgdata={data}", "--silent"]
    waiting = "--wait" if accepting else "--no-wait"
    _run([*control, waiting, f"--options={options}", f"--log={data / 'log'}", "start"])
    pid_file = data / "postmaster.pid"
    while not (pid_file.exists() and pid_file.read_text()):
        time.sleep(0.02)
    pid = int(pid_file.read_text().splitlines()[0])
    with _guarded(pid):
        try:
            yield Server(data, port, binaries)
        finally:
            _run([*control, "--wait", "--mode=immediate", "stop"])


@contextmanager
def standby(of: Server, data: Path, *settings: str, accepting: bool = True) -> Iterator[Server]:
    """Yields a copy of a running server that follows it; `data` is a new folder beside its own."""
    with psycopg.connect(of.dsn(), autocommit=True) as admin:
        admin.execute("select pg_backup_start('standby', true)")
        shutil.copytree(of.data, data, ignore=shutil.ignore_patterns("postmaster.*"))
        label = admin.execute("select labelfile from pg_backup_stop(false)").fetchone()
        admin.execute("select pg_switch_wal()")
    assert label is not None
    shutil.copytree(of.data / "pg_wal", data / "pg_wal", dirs_exist_ok=True)
    (data / "backup_label").write_text(label[0])
    (data / "standby.signal").touch()
    give(data, unprivileged_user())
    data.chmod(0o700)
    settings = (f"primary_conninfo='{of.dsn()}'", *settings)
    with started(data, of.binaries, *settings, accepting=accepting) as running:
        yield running


@contextmanager
def pgbouncer(
    of: Server, mode: str, folder: Path, user: str = OWNER, port: int = 0
) -> Iterator[int]:
    """Runs a PgBouncer in front of a server, with only the mode of its pools set; yields its port."""
    port, run_as = port or free_port(), unprivileged_user()
    folder.mkdir(exist_ok=True)
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host=127.0.0.1 port={of.port} user={user}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = {mode}\n"
    )
    give(folder, run_as)
    process = subprocess.Popen(
        ["pgbouncer", "--quiet", str(settings)],
        **run_as,
        cwd="/",
        env=os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin"},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with _guarded(process.pid):
        try:
            while not _accepts(port):
                assert process.poll() is None, "pgbouncer ended"
                time.sleep(0.02)
            yield port
        finally:
            process.terminate()
            process.wait()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def _guarded(pid: int) -> Iterator[None]:
    """Ends the process with this one, also if this one is killed."""
    reading, writing = os.pipe()
    subprocess.run(["/bin/sh", "-c", WATCHDOG, "sh", str(pid)], stdin=reading, check=True)
    os.close(reading)
    try:
        yield
    finally:
        os.close(writing)


def _run(command: list[str]) -> None:
    done = call(command, unprivileged_user())
    assert done.returncode == 0, (command, done.stdout, done.stderr)
