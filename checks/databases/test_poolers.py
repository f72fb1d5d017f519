"""PgBouncer and standbys: unsupported setups are refused in one line, supported ones work."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from servers import NEWEST, OWNER, Server, pgbouncer, server, started

from tests.support.database_flow import run_flow
from tests.support.run_folder import run_folder
from tests.support.services import SECRET, until
from tocsin.cli.doctor import run_checks
from tocsin.cli.doctor.examination import DoctorOptions, Finding
from tocsin.dev.postgres_cluster import give, unprivileged_user
from tocsin.migrate import migrate


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with run_folder() as found:
        yield found


@pytest.fixture(scope="module")
def newest(folder: Path) -> Iterator[Server]:
    with server(NEWEST, folder) as running:
        yield running


@pytest.fixture
def dsn(newest: Server) -> Iterator[str]:
    """A migrated database for this test."""
    with newest.database("app") as found:
        migrate(found)
        yield found


@pytest.fixture
def empty(newest: Server) -> Iterator[str]:
    """A database without Tocsin: a refusal comes before any other check."""
    with newest.database("empty") as found:
        yield found


def refusal(command: str, dsn: str, folder: Path) -> str:
    """Returns the complete output of a command that exits with status 1."""
    settings = {
        "database_url": dsn,
        "public_url": "https://n.example",
        "jwt_secret": SECRET,
        "data_dir": str(folder),
        "database_wait": "0",
    }
    done = subprocess.run(
        [str(Path(sys.executable).with_name("tocsin")), command],
        env={f"TOCSIN_{name.upper()}": value for name, value in settings.items()},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done
    return done.stdout + done.stderr


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
def test_a_pooler_that_shares_sessions_is_refused(
    newest: Server, empty: str, folder: Path, tmp_path: Path, mode: str, command: str
) -> None:
    with pgbouncer(newest, mode, folder / f"{mode}-{command}") as port:
        line = refusal(command, make_conninfo(empty, port=port), tmp_path)
    assert line.count("\n") == 1
    assert "pooler in transaction mode" in line
    assert "pool_mode=session" in line


async def test_a_pooler_in_session_mode_will_do(
    newest: Server, dsn: str, folder: Path, tmp_path: Path
) -> None:
    with pgbouncer(newest, "session", folder / "session") as port:
        await run_flow(make_conninfo(dsn, port=port), tmp_path)


async def test_an_app_may_call_through_a_pooler_in_transaction_mode(
    newest: Server, dsn: str, folder: Path, tmp_path: Path
) -> None:
    with pgbouncer(newest, "transaction", folder / "app") as port:
        await run_flow(dsn, tmp_path, app_dsn=make_conninfo(dsn, port=port))


@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
def test_a_standby_is_refused(
    newest: Server, empty: str, folder: Path, tmp_path: Path, command: str
) -> None:
    data = folder / f"standby-{command}"
    with psycopg.connect(newest.dsn(), autocommit=True) as admin:
        admin.execute("select pg_backup_start('standby', true)")
        shutil.copytree(newest.data, data, ignore=shutil.ignore_patterns("postmaster.*"))
        label = admin.execute("select labelfile from pg_backup_stop(false)").fetchone()
        admin.execute("select pg_switch_wal()")
    assert label is not None
    shutil.copytree(newest.data / "pg_wal", data / "pg_wal", dirs_exist_ok=True)
    (data / "backup_label").write_text(label[0])
    (data / "standby.signal").touch()
    give(data, unprivileged_user())
    data.chmod(0o700)
    with started(data, newest.binaries) as standby:
        line = refusal(command, make_conninfo(empty, port=standby.port), tmp_path)
    assert line.count("\n") == 1
    assert "standby" in line
    assert OWNER not in line


async def doctor(check: str, dsn: str) -> list[Finding]:
    environ = {"TOCSIN_DATABASE_URL": dsn, "TOCSIN_DATA_DIR": "/nonexistent"}
    ((_, found),) = await run_checks(environ, DoctorOptions(), [check])
    return found


async def test_the_doctor_names_a_pooler_that_shares_sessions(
    newest: Server, dsn: str, folder: Path
) -> None:
    with pgbouncer(newest, "transaction", folder / "doctor") as port:
        pooled = make_conninfo(dsn, port=port)
        (requirements,) = await doctor("requirements", pooled)
        (notify,) = [each for each in await doctor("notify", pooled) if each.status == "red"]
    assert requirements.status == "red"
    assert "pooler in transaction mode" in requirements.sentence
    assert "pool_mode=session" in requirements.cure
    assert "was not received within 3 s" in notify.sentence
    with pgbouncer(newest, "session", folder / "doctor-session") as port:
        pooled = make_conninfo(dsn, port=port)
        assert "through a pooler" in (await doctor("database", pooled))[0].sentence
        for check in ("requirements", "notify", "session"):
            assert [each.status for each in await doctor(check, pooled)] == ["green"]


def set_on_server(newest: Server, *statements: str) -> None:
    with psycopg.connect(newest.dsn(), autocommit=True) as admin:
        for statement in (*statements, "select pg_reload_conf()"):
            admin.execute(statement.encode())


async def test_the_doctor_names_what_a_server_lacks(newest: Server, dsn: str) -> None:
    """Autovacuum, and a synchronous standby that is not there: then a commit waits."""
    set_on_server(
        newest,
        "alter system set autovacuum = off",
        "alter system set synchronous_standby_names = 'nowhere'",
    )
    try:
        await until(lambda: not _is_on(dsn))
        (replication,) = await doctor("replication", dsn)
        assert replication.status == "red"
        assert "no synchronous standby is connected" in replication.sentence
        (storage,) = await doctor("storage", dsn)
        assert "did not end within" in storage.sentence
        set_on_server(newest, "alter system reset synchronous_standby_names")
        await until(lambda: not _needs_standby(dsn))
        found = await doctor("storage", dsn)
        assert any("Autovacuum is off" in each.sentence for each in found if each.status == "red")
        assert any("fsync is off" in each.sentence for each in found if each.status == "yellow")
    finally:
        set_on_server(
            newest,
            "alter system reset synchronous_standby_names",
            "alter system reset autovacuum",
        )


def _is_on(dsn: str) -> bool:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("select current_setting('autovacuum')").fetchone()
    return row == ("on",)


def _needs_standby(dsn: str) -> bool:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("select current_setting('synchronous_standby_names')").fetchone()
    return row != ("",)
