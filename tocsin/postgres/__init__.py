"""The embedded PostgreSQL: start, adopt, stop."""

from __future__ import annotations

import errno
import os
import signal
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

from tocsin.postgres.binaries import PostgresError, Report, announced, explain
from tocsin.postgres.cluster import SUPERUSER, Cluster, find_cluster, make_cluster
from tocsin.postgres.process import (
    HOST,
    READY_SECONDS,
    TRIES,
    PidFile,
    gone,
    guard,
    launch,
    looks_like_ours,
    read_pid_file,
    wait_gone,
)
from tocsin.secret_file import SecretFileError, keep_secrets, read_secrets

__all__ = ["Postgres", "PostgresError", "alive", "running", "start", "stop"]

OWNER = "tocsin_owner"
DATABASE = "tocsin"
SUPERUSER_SECRET, OWNER_SECRET = "postgres_password", "owner_password"
STOP_SECONDS = 1.5


class Postgres(Struct, frozen=True):
    """A running server."""

    dsn: str  # as tocsin_owner, who owns the database and may create roles
    superuser_dsn: str
    pid: int
    port: int
    adopted: bool  # it ran already, left behind by a parent that was killed
    guard: FileIO | None = None  # a pipe: when it closes, by our death too, the server stops

    def __repr__(self) -> str:
        """Without the passwords, as it ends in logs and tracebacks."""
        return f"Postgres(pid={self.pid}, port={self.port}, adopted={self.adopted})"


def start(data_dir: Path, report: Report = print, *, durable: bool = True) -> Postgres:
    """Makes what is missing, adopts a server that still runs, or starts one. Blocks; raises PostgresError.

    `durable=False` is for throwaway clusters in tests: quick, and lost with the machine's power.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with _alone(data_dir):
            return _start(data_dir.resolve(), report, durable=durable)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise PostgresError(explain(str(error), "start")) from None
        raise PostgresError(f"{error.filename or data_dir}: {error.strerror}") from None
    except SecretFileError as error:
        raise PostgresError(str(error)) from None


def running(data_dir: Path) -> Postgres | None:
    """The server of this data directory, if it runs and answers; for a command beside `tocsin up`."""
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
    """Whether its process is still there."""
    return not gone(server.pid)


def let_go(server: Postgres) -> None:
    """Frees what we hold for a server that has ended by itself."""
    if server.guard is not None:
        server.guard.close()


def stop(server: Postgres, *, immediate: bool = False, seconds: float = STOP_SECONDS) -> None:
    """Stops it and waits: sessions are cut off, what is committed stays. `immediate` is a crash, for fault tests."""
    try:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)[1 if immediate else 0 :]:
            with suppress(ProcessLookupError):
                os.kill(server.pid, number)
            if wait_gone(server.pid, seconds):
                return
    finally:
        let_go(server)


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """One start at a time for each data directory."""
    with (data_dir / "postgres.lock").open("a") as lock:
        flock(lock, LOCK_EX)
        yield


def _start(data_dir: Path, report: Report, *, durable: bool) -> Postgres:
    kept = keep_secrets(data_dir, SUPERUSER_SECRET, OWNER_SECRET)
    cluster = make_cluster(data_dir, kept[SUPERUSER_SECRET], report, durable=durable)
    for _ in range(TRIES):
        found, hold = _adopt(cluster, kept, report), None
        adopted = found is not None
        if found is None:
            found, hold = launch(cluster, data_dir, report, durable=durable)
        server = _server(found, kept, adopted=adopted, hold=hold or guard(cluster, found.pid))
        try:
            _ensure_owner(server, kept[OWNER_SECRET])
        except psycopg.Error as error:
            if adopted and wait_gone(server.pid, STOP_SECONDS):
                stop(server)
                continue  # its former guard was just about to stop it
            stop(server)
            raise PostgresError(explain(str(error), "it does not let us in")) from None
        return server
    raise PostgresError(f"PostgreSQL does not stay up: see {data_dir / 'postgres.log'}")


def _server(
    found: PidFile, kept: dict[str, str], *, adopted: bool, hold: FileIO | None = None
) -> Postgres:
    address = f"{HOST}:{found.port}/{DATABASE}"
    return Postgres(
        dsn=f"postgresql://{OWNER}:{kept[OWNER_SECRET]}@{address}",
        superuser_dsn=f"postgresql://{SUPERUSER}:{kept[SUPERUSER_SECRET]}@{address}",
        pid=found.pid,
        port=found.port,
        adopted=adopted,
        guard=hold,
    )


def _ensure_owner(server: Postgres, password: str) -> None:
    """Creates role and database where an earlier start did not come so far. The owner is no superuser."""
    maintenance = make_conninfo(server.superuser_dsn, dbname="postgres")
    with psycopg.connect(maintenance, autocommit=True, connect_timeout=10) as connection:
        owner, database = sql.Identifier(OWNER), sql.Identifier(DATABASE)
        if (
            connection.execute("select from pg_roles where rolname = %s", [OWNER]).fetchone()
            is None
        ):
            connection.execute(
                sql.SQL("create role {} login createrole password {}").format(owner, password)
            )
        known = "select from pg_database where datname = %s"
        if connection.execute(known, [DATABASE]).fetchone() is None:
            connection.execute(sql.SQL("create database {} owner {}").format(database, owner))


def _adopt(cluster: Cluster, kept: dict[str, str], report: Report) -> PidFile | None:
    """The server that still runs on this cluster; None when there is none and one may be started."""
    deadline = time.monotonic() + READY_SECONDS
    with announced(report, "Waiting for the PostgreSQL that an earlier run left ..."):
        while (found := read_pid_file(cluster)) and not gone(found.pid):
            if found.status == "ready" and _is_ours(cluster, found, kept):
                return found
            if not looks_like_ours(cluster, found.pid):
                # The number was given to another process since: PostgreSQL would refuse to start.
                (cluster.data / "postmaster.pid").unlink(missing_ok=True)
                return None
            if time.monotonic() > deadline:
                raise PostgresError(f"The PostgreSQL of an earlier run hangs: kill {found.pid}")
            time.sleep(0.05)
    return None  # a dead one's file is cleared by PostgreSQL itself


def _is_ours(cluster: Cluster, found: PidFile, kept: dict[str, str]) -> bool:
    dsn = make_conninfo(_server(found, kept, adopted=True).superuser_dsn, dbname="postgres")
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=3) as connection:
            row = connection.execute("show data_directory").fetchone()
    except psycopg.Error:
        return False
    return row is not None and Path(row[0]) == cluster.data
