"""A PostgreSQL for benchmarks, durable as in production, and databases with realistic data.

The cluster and the data stay in build/bench between runs: creating a million notifications takes a minute, a copy of
them a few seconds. `make clean` removes them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

import tocsin.sql
from tocsin.dev import embedded_postgres
from tocsin.migrate import migrate

HOME = Path(__file__).parent.parent.parent / "build" / "bench"
STOCK = Path(__file__).parent / "stock.sql"
SQL = Path(tocsin.sql.__file__).parent
ROWS = 1_000_000  # notifications in the database by default
SETTINGS = {
    "shared_buffers": "1GB",
    "max_connections": "200",
    "max_wal_size": "4GB",
}


# Turns a signal into an exit, so that started processes end too.
for _signal in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(_signal, lambda number, _: sys.exit(128 + number))


@contextmanager
def server() -> Iterator[embedded_postgres.Postgres]:
    """Yields the benchmarks' own PostgreSQL: fsync and synchronous_commit on. One benchmark at a time uses it."""
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = embedded_postgres.start(HOME)
        if _configure(running):
            embedded_postgres.stop(running, seconds=30)
            running = embedded_postgres.start(HOME)
        try:
            yield running
        finally:
            embedded_postgres.stop(running, seconds=30)


@contextmanager
def database(
    running: embedded_postgres.Postgres, name: str, *, rows: int | None = ROWS
) -> Iterator[str]:
    """Yields the owner's DSN of a database with that many notifications (None: an empty one); dropped at the end."""
    with psycopg.connect(running.superuser_dsn, autocommit=True, dbname="postgres") as admin:
        template = "template1" if rows is None else _stocked(running, admin, rows)
        admin.execute(f'drop database if exists "{name}" with (force)')
        admin.execute(
            f'create database "{name}" template "{template}" strategy file_copy owner {embedded_postgres.OWNER}'
        )
        try:
            dsn = make_conninfo(running.dsn, dbname=name)
            migrate(dsn)  # the data may have been created with older functions
            admin.execute("checkpoint")
            yield dsn
        finally:
            admin.execute(f'drop database if exists "{name}" with (force)')


@contextmanager
def program(
    *command: str | Path,
    settings: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Yields a process that ends with the block; `settings` are Tocsin's, without their TOCSIN_.

    In a session of its own, as `tocsin up`, systemd and containers start it: Linux gives each session an equal share of
    a busy machine, and PostgreSQL's processes are one each.
    """
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")
    }
    named = {f"TOCSIN_{name.upper()}": value for name, value in (settings or {}).items()}
    HOME.mkdir(parents=True, exist_ok=True)
    output = (log or HOME / "processes.log").open("ab")
    process = subprocess.Popen(
        [str(part) for part in command],
        env=inherited | named | dict(environ or {}),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    output.close()
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()


def ours(*arguments: str) -> list[str]:
    """Returns the command line of one of our own processes."""
    return [sys.executable, "-m", "tocsin", *arguments]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def rss(pid: int) -> int:
    """Bytes of memory of a process."""
    with suppress(FileNotFoundError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def cpu(pid: int) -> float:
    """CPU seconds of a process and its children, also of those that ended; 0 if it has ended itself."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        own = time.clock_gettime((~pid << 3) | 2)  # its clock, more exact than the ticks of stat
    except OSError:
        return 0.0
    ended = (int(stat[13]) + int(stat[14])) / os.sysconf("SC_CLK_TCK")
    return own + ended + sum(cpu(int(child)) for child in children)


def _configure(running: embedded_postgres.Postgres) -> bool:
    """Returns whether the cluster has to be started again."""
    with psycopg.connect(running.superuser_dsn, autocommit=True) as admin:
        before = {name: _setting(admin, name) for name in SETTINGS}
        for name, value in SETTINGS.items():
            admin.execute(f"alter system set {name} = '{value}'")
        return any(before[name] != SETTINGS[name] for name in SETTINGS)


def _setting(admin: psycopg.Connection, name: str) -> str:
    row = admin.execute("select current_setting(%s)", (name,)).fetchone()
    assert row is not None
    return str(row[0])


def _stocked(running: embedded_postgres.Postgres, admin: psycopg.Connection, rows: int) -> str:
    """Returns the template database with that many notifications; created if it does not exist."""
    name = f"stock_{rows}_{hash_of(STOCK)}"
    if admin.execute("select 1 from pg_database where datname = %s", (name,)).fetchone():
        return name
    for (old,) in admin.execute(
        "select datname from pg_database where datname like %s", (f"stock\\_{rows}\\_%",)
    ).fetchall():
        admin.execute(f'drop database "{old}" with (force)')
    print(f"Stocking {rows:,} notifications, once ...", file=sys.stderr)
    admin.execute('drop database if exists "stocking" with (force)')
    admin.execute(f'create database "stocking" owner {embedded_postgres.OWNER}')
    dsn = make_conninfo(running.dsn, dbname="stocking")
    migrate(dsn)
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute(f"set bench.rows = '{rows}'")
        for statement in STOCK.read_text(encoding="utf-8").split(";\n\n"):
            owner.execute(statement)
    admin.execute(f'alter database "stocking" rename to "{name}"')
    # or autovacuum would clean it between two runs
    admin.execute(f'alter database "{name}" allow_connections false')
    return name


def hash_of(stock: Path) -> str:
    """Returns a hash of what the data depends on; functions are replaced by each migrate."""
    digest = hashlib.sha256(stock.read_bytes())
    for path in sorted((SQL / "migrations").iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:10]
