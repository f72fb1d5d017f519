"""PgBouncer and standbys: unsupported setups are refused in one line, supported ones work."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo
from servers import NEWEST, OWNER, Server, pgbouncer, server, standby

from tests.support.database_flow import (
    HOSTILE,
    Installation,
    run_flow,
    set_on_database,
    until_ready,
)
from tests.support.doctor import find
from tests.support.run_folder import run_folder
from tests.support.services import LONGEST, SECRET, SERVICE_LOGIN, free_port, service_dsn, until
from tocsin.migrate import migrate

APP = (  # of the app's session: the other settings of the database are meant for somebody else
    "default_transaction_read_only = off",
    "statement_timeout = 0",
    "lock_timeout = 0",
    "idle_in_transaction_session_timeout = 0",
    "idle_session_timeout = 0",
)


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


def refusal(command: str, dsn: str, folder: Path, pooler: str = "") -> str:
    """Returns the complete output of a command that exits with status 1."""
    settings = {
        "database_url": dsn,
        "pooler_url": pooler,
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
        timeout=LONGEST,
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


async def test_the_pools_of_services_may_be_those_of_a_pooler_in_transaction_mode(
    newest: Server, dsn: str, folder: Path, tmp_path: Path
) -> None:
    services = service_dsn(dsn)
    set_on_database(dsn, HOSTILE)
    with pgbouncer(newest, "transaction", folder / "services", SERVICE_LOGIN) as port:
        await run_flow(
            dsn,
            tmp_path,
            (*APP, "client_encoding = utf8"),
            pooler=make_conninfo(services, port=port),
        )


async def test_nobody_leads_while_the_pooler_is_away(
    newest: Server, dsn: str, folder: Path, tmp_path: Path
) -> None:
    """No worker can write an outcome then, so the leader must end no lease."""
    port = free_port()
    pooled = make_conninfo(service_dsn(dsn), port=port)
    around = partial(pgbouncer, newest, "transaction", folder / "away", SERVICE_LOGIN, port)
    async with AsyncExitStack() as stack:
        with around():
            tocsin = Installation(dsn, tmp_path, pooler=pooled)
            await stack.enter_async_context(tocsin)
            await until_ready(tocsin)
            await until(lambda: '"leading"' in tocsin.log)
        await until(lambda: "the pooler can't be reached" in tocsin.log)
        led = tocsin.log.count('"leading"')
        with around():
            await until(lambda: tocsin.log.count('"leading"') > led)


async def test_the_doctor_names_a_pooler_that_can_not_be_reached(dsn: str) -> None:
    away = make_conninfo(dsn, port=free_port())
    (found,) = await find("requirements", database_url=dsn, pooler_url=away)
    assert found.status == "red"
    assert "TOCSIN_POOLER_URL can't be reached" in found.sentence


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_pooler_that_leads_elsewhere_is_refused(
    newest: Server, dsn: str, empty: str, folder: Path, tmp_path: Path, command: str
) -> None:
    with pgbouncer(newest, "transaction", folder / f"elsewhere-{command}") as port:
        line = refusal(command, dsn, tmp_path, make_conninfo(empty, port=port))
    assert line.count("\n") == 1
    assert "TOCSIN_POOLER_URL leads to another database" in line


@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
def test_a_standby_is_refused(
    newest: Server, empty: str, folder: Path, tmp_path: Path, command: str
) -> None:
    with standby(newest, folder / f"standby-{command}") as follower:
        line = refusal(command, make_conninfo(empty, port=follower.port), tmp_path)
    assert line.count("\n") == 1
    assert "standby" in line
    assert OWNER not in line


async def test_the_doctor_names_a_pooler_that_shares_sessions(
    newest: Server, dsn: str, folder: Path
) -> None:
    with pgbouncer(newest, "transaction", folder / "doctor") as port:
        pooled = make_conninfo(dsn, port=port)
        (requirements,) = await find("requirements", database_url=pooled)
        (notify,) = [
            each for each in await find("notify", database_url=pooled) if each.status == "red"
        ]
    assert requirements.status == "red"
    assert "pooler in transaction mode" in requirements.sentence
    assert "pool_mode=session" in requirements.cure
    assert "was not received within 3 s" in notify.sentence
    with pgbouncer(newest, "session", folder / "doctor-session") as port:
        pooled = make_conninfo(dsn, port=port)
        assert "through a pooler" in (await find("database", database_url=pooled))[0].sentence
        for check in ("requirements", "notify", "session"):
            assert [each.status for each in await find(check, database_url=pooled)] == ["green"]
