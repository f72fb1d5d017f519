"""The embedded PostgreSQL: starts it, adopts one that runs already, stops it."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, flock
from io import FileIO
from pathlib import Path

import psycopg
from msgspec import Struct
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tocsin.dev.postgres_cluster import (
    SUPERUSER,
    Cluster,
    PostgresError,
    announced,
    explain,
    find_cluster,
    make_cluster,
    program_environ,
)
from tocsin.dev.supervisor import Report
from tocsin.settings.running_instance import (
    DATABASE,
    OWNER,
    OWNER_SECRET,
    POSTGRES_HOST,
    POSTGRES_PORT_FILE,
    SecretFileError,
    keep_secrets,
    read_secrets,
)

PORTS = range(15432, 32000)  # below what systems hand out for outgoing connections
READY_SECONDS = 120.0  # recovery after a crash may take its time
LOG_BYTES = 10_000_000
TRIES = 5

# In the background, so that no process has to reap it; there the input of a shell would be /dev/null.
WATCHDOG = 'exec 3<&0; (read -r _ <&3; kill -INT "$1" 2> /dev/null) &'

DURABLE = ("fsync=on", "synchronous_commit=on", "full_page_writes=on")
THROWAWAY = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "autovacuum_naptime=10s",
)


class PidFile(Struct, frozen=True):
    """The content of the server's postmaster.pid; PostgreSQL's miscadmin.h names the lines."""

    pid: int
    port: int
    status: str  # "starting", "ready", "stopping", "standby" or "" while it is being written


def looks_like_ours(cluster: Cluster, pid: int) -> bool:
    """Returns whether it is our server, by its command line: one that starts does not respond yet."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        line = subprocess.run(
            ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True
        ).stdout
    return os.fsencode(cluster.data) in line


def read_pid_file(cluster: Cluster) -> PidFile | None:
    """Returns the server's pid file; None where there is none or it is incomplete."""
    try:
        lines = (cluster.data / "postmaster.pid").read_text().splitlines()
    except (FileNotFoundError, PermissionError):
        return None
    lines += [""] * (8 - len(lines))
    if not lines[0].strip().isdigit():
        return None
    port = int(lines[3]) if lines[3].strip().isdigit() else 0
    return PidFile(int(lines[0]), port, lines[7].strip())


def launch(
    cluster: Cluster, data_dir: Path, report: Report, *, durable: bool
) -> tuple[PidFile, FileIO]:
    """Starts it and waits until it accepts connections; returns it and its watchdog."""
    output = ""
    for attempt in range(TRIES):
        port = _choose_port(data_dir / POSTGRES_PORT_FILE)
        # In our folder, not its user's: root must not write where another user may have put a link.
        log = data_dir / "postgres.log"
        with announced(report, "Starting PostgreSQL ..."):
            launched, output = _try_launch(_command(cluster, port, durable=durable), cluster, log)
        if launched is not None:
            return launched
        if (
            "pre-existing shared memory block" in output
        ):  # the last sessions of a killed server still run
            time.sleep(0.5 * (attempt + 1))
        elif "could not bind" not in output:
            break
    raise PostgresError(explain(output, "it does not start"))


def _choose_port(port_file: Path) -> int:
    """Returns the port of the last start, so that a DSN stays valid; another one where it is in use."""
    try:
        kept = [int(port_file.read_text())]
    except (OSError, ValueError):
        kept = []
    for port in kept + random.sample(PORTS, 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError, OverflowError):
                probe.bind((POSTGRES_HOST, port))
                port_file.write_text(f"{port}\n")
                return port
    raise PostgresError(f"No free port for PostgreSQL on {POSTGRES_HOST}")


def _command(cluster: Cluster, port: int, *, durable: bool) -> list[str]:
    command = [str(cluster.binaries / "bin" / "postgres"), "-D", str(cluster.data)]
    for setting in (
        f"listen_addresses={POSTGRES_HOST}",
        f"port={port}",
        "unix_socket_directories=",
        "max_connections=200",  # two processes with pools, and clients of people
        "timezone=UTC",
        "log_timezone=UTC",
        *(DURABLE if durable else THROWAWAY),
    ):
        command += ["-c", setting]
    return command


def _try_launch(
    command: list[str], cluster: Cluster, log: Path
) -> tuple[tuple[PidFile, FileIO] | None, str]:
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.unlink()
    log.touch(mode=0o600)  # it may quote texts of people
    with log.open("ab") as output:
        begin = output.tell()
        process = subprocess.Popen(
            command,
            **cluster.run_as,
            cwd="/",
            env=program_environ(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for `tocsin up`, which then stops it in order
        )
    watchdog = start_watchdog(cluster, process.pid)
    found = _wait_ready(cluster, process)
    if found is not None:
        # Popen would warn of a child that outlives it; stop() reaps this one.
        process.returncode = 0
        return (found, watchdog), ""
    watchdog.close()
    with log.open("rb") as output_again:
        output_again.seek(begin)
        return None, output_again.read(LOG_BYTES).decode(errors="replace")


def _wait_ready(cluster: Cluster, process: subprocess.Popen[bytes]) -> PidFile | None:
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None:
        found = read_pid_file(cluster)
        if found and found.pid == process.pid and found.status == "ready":
            return found
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
        time.sleep(0.01)
    return None


def start_watchdog(cluster: Cluster, pid: int) -> FileIO:
    """Starts a shell that waits for our end of a pipe to close, even by kill -9, and then stops the server."""
    reading, writing = os.pipe()
    try:
        subprocess.run(
            ["/bin/sh", "-c", WATCHDOG, "tocsin-postgres-watchdog", str(pid)],
            **cluster.run_as,
            cwd="/",
            env=program_environ(),
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    finally:
        os.close(reading)
    return FileIO(writing, "wb")


def wait_gone(pid: int, seconds: float) -> bool:
    """Returns whether the process ended within that time."""
    deadline = time.monotonic() + seconds
    while not gone(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def gone(pid: int) -> bool:
    """Returns whether there is no such process; reaps it where it was our child."""
    with suppress(ChildProcessError):  # an adopted server is no child of ours
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


__all__ = ["Postgres", "PostgresError", "alive", "running", "start", "stop"]

SUPERUSER_SECRET = "postgres_password"
STOP_SECONDS = 1.5


class Postgres(Struct, frozen=True):
    """A running server."""

    dsn: str  # as tocsin_owner, who owns the database and may create roles
    superuser_dsn: str
    pid: int
    port: int
    adopted: bool  # it ran already, left by a parent that was killed
    watchdog: FileIO | None = None  # a pipe: when it closes, or this process ends, the server stops

    def __repr__(self) -> str:
        """Returns a text without the passwords, since it is written to logs and tracebacks."""
        return f"Postgres(pid={self.pid}, port={self.port}, adopted={self.adopted})"


def start(data_dir: Path, report: Report = print, *, durable: bool = True) -> Postgres:
    """Makes what is missing, adopts a server that still runs, or starts one. Blocks; raises PostgresError.

    `durable=False` is for clusters of tests: quick, and lost in a power failure.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with _start_lock(data_dir):
            return _start(data_dir.resolve(), report, durable=durable)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise PostgresError(explain(str(error), "start")) from None
        raise PostgresError(f"{error.filename or data_dir}: {error.strerror}") from None
    except SecretFileError as error:
        raise PostgresError(str(error)) from None


def running(data_dir: Path) -> Postgres | None:
    """Returns the server of this data directory, if it runs and responds; for commands other than `tocsin up`."""
    try:
        kept = read_secrets(data_dir)
    except SecretFileError as error:
        raise PostgresError(str(error)) from None
    if not {SUPERUSER_SECRET, OWNER_SECRET} <= kept.keys():
        return None
    cluster = find_cluster(data_dir)
    found = cluster and read_pid_file(cluster)
    if not cluster or not found or not _is_ours(cluster, found, kept):
        return None
    return _server(found, kept, adopted=True)


def alive(server: Postgres) -> bool:
    """Returns whether its process still runs."""
    return not gone(server.pid)


def release(server: Postgres) -> None:
    """Closes the pipe of a server that has ended by itself."""
    if server.watchdog is not None:
        server.watchdog.close()


def stop(server: Postgres, *, immediate: bool = False, seconds: float = STOP_SECONDS) -> None:
    """Stops it and waits: sessions end, what is committed stays. `immediate` is a crash, for fault tests."""
    try:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)[1 if immediate else 0 :]:
            with suppress(ProcessLookupError):
                os.kill(server.pid, number)
            if wait_gone(server.pid, seconds):
                return
    finally:
        release(server)


@contextmanager
def _start_lock(data_dir: Path) -> Iterator[None]:
    """Allows one start at a time for each data directory."""
    with (data_dir / "postgres.lock").open("a") as lock:
        flock(lock, LOCK_EX)
        yield


def _start(data_dir: Path, report: Report, *, durable: bool) -> Postgres:
    kept = keep_secrets(data_dir, SUPERUSER_SECRET, OWNER_SECRET)
    cluster = make_cluster(data_dir, kept[SUPERUSER_SECRET], report, durable=durable)
    for _ in range(TRIES):
        found, watchdog = _adopt(cluster, kept, report), None
        adopted = found is not None
        if found is None:
            found, watchdog = launch(cluster, data_dir, report, durable=durable)
        server = _server(
            found, kept, adopted=adopted, watchdog=watchdog or start_watchdog(cluster, found.pid)
        )
        try:
            _ensure_owner(server, kept[OWNER_SECRET])
        except psycopg.Error as error:
            if adopted and wait_gone(server.pid, STOP_SECONDS):
                stop(server)
                continue  # its former watchdog was stopping it
            stop(server)
            raise PostgresError(explain(str(error), "it refuses the connection")) from None
        return server
    raise PostgresError(f"PostgreSQL does not keep running: see {data_dir / 'postgres.log'}")


def _server(
    found: PidFile, kept: dict[str, str], *, adopted: bool, watchdog: FileIO | None = None
) -> Postgres:
    address = f"{POSTGRES_HOST}:{found.port}/{DATABASE}"
    return Postgres(
        dsn=f"postgresql://{OWNER}:{kept[OWNER_SECRET]}@{address}",
        superuser_dsn=f"postgresql://{SUPERUSER}:{kept[SUPERUSER_SECRET]}@{address}",
        pid=found.pid,
        port=found.port,
        adopted=adopted,
        watchdog=watchdog,
    )


def _ensure_owner(server: Postgres, password: str) -> None:
    """Creates role and database where an earlier start was interrupted.

    The owner is no superuser. It may create databases, for the tests of apps.
    """
    maintenance = make_conninfo(server.superuser_dsn, dbname="postgres")
    with psycopg.connect(maintenance, autocommit=True, connect_timeout=10) as connection:
        owner, database = sql.Identifier(OWNER), sql.Identifier(DATABASE)
        known = "select rolcreatedb from pg_roles where rolname = %s"
        found = connection.execute(known, [OWNER]).fetchone()
        if found is None:
            role = sql.SQL("create role {} login createdb createrole password {}")
            connection.execute(role.format(owner, password))
        elif not found[0]:
            connection.execute(sql.SQL("alter role {} createdb").format(owner))
        known = "select from pg_database where datname = %s"
        if connection.execute(known, [DATABASE]).fetchone() is None:
            connection.execute(sql.SQL("create database {} owner {}").format(database, owner))


def _adopt(cluster: Cluster, kept: dict[str, str], report: Report) -> PidFile | None:
    """Returns the server that still runs on this cluster; None where there is none and one may be started."""
    deadline = time.monotonic() + READY_SECONDS
    with announced(report, "Waiting for the PostgreSQL that an earlier run left ..."):
        while (found := read_pid_file(cluster)) and not gone(found.pid):
            if found.status == "ready" and _is_ours(cluster, found, kept):
                return found
            if not looks_like_ours(cluster, found.pid):
                # The pid belongs to another process now: PostgreSQL would refuse to start.
                (cluster.data / "postmaster.pid").unlink(missing_ok=True)
                return None
            if time.monotonic() > deadline:
                raise PostgresError(f"The PostgreSQL of an earlier run hangs: kill {found.pid}")
            time.sleep(0.05)
    return None  # PostgreSQL itself removes the file of one that has ended


def _is_ours(cluster: Cluster, found: PidFile, kept: dict[str, str]) -> bool:
    dsn = make_conninfo(_server(found, kept, adopted=True).superuser_dsn, dbname="postgres")
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=3) as connection:
            row = connection.execute("show data_directory").fetchone()
    except psycopg.Error:
        return False
    return row is not None and Path(row[0]) == cluster.data
