"""`tocsin doctor`: faults of settings, database and roles make their checks red, with the cure; else none is red.

Faults of the services, mail and push are in test_doctor_services.py, those of a whole server in checks/databases.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import time
import zoneinfo
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support.doctor import find, is_green, is_red, is_yellow
from tests.support.services import SERVICE_LOGIN, free_port, service_dsn
from tests.support.shared_database import drop_database
from tests.support.smtp_server import raw
from tocsin.cli import main
from tocsin.cli.doctor import all_checks, run_checks
from tocsin.cli.doctor.database_checks import FreeConnections, compare_session, judge_connections
from tocsin.cli.doctor.examination import DoctorOptions
from tocsin.testing.apns import Authority

Db = psycopg.Connection[Any]

# == The settings ==


async def test_wrong_settings_are_named_and_the_rest_is_checked() -> None:
    await is_red("settings", "TOCSIN_PORT must be a whole number", "docs/settings.md", port="99999")
    wrong = await find("settings", port="99999", jwt_secret="short", smpt_url="x")
    assert sum(each.status == "red" for each in wrong) == 2
    assert "Did you mean TOCSIN_SMTP_URL?" in {each.cure for each in wrong}
    await is_green("templates", port="99999")
    assert "Python 3." in await is_green("settings", port="8000")


# == The database ==


async def test_a_database_that_is_away_is_named_and_the_rest_is_checked() -> None:
    url = f"postgresql://a:b@127.0.0.1:{free_port()}/app"
    await is_red("database", "refused", "Start PostgreSQL", database_url=url)
    await is_red("database", "is not set", "Set TOCSIN_DATABASE_URL=")
    found = dict(
        await run_checks(
            {"TOCSIN_DATABASE_URL": url, "TOCSIN_DATA_DIR": "/nonexistent"}, DoctorOptions()
        )
    )
    assert found.keys() == {check.name for check in all_checks()}
    needing = {check.name for check in all_checks() if check.needs}
    assert {found[name][0].status for name in needing} == {"skipped"}
    assert found["templates"][0].status == "green"


async def test_a_refused_login_and_a_missing_database_have_their_cure(dsn: str) -> None:
    wrong = make_conninfo(dsn, password="wrong")
    await is_red(
        "database", "password authentication failed", "user and password", database_url=wrong
    )
    missing = make_conninfo(dsn, dbname="no_such_database")
    await is_red("database", "does not exist", "Create it", database_url=missing)


async def test_each_reason_why_a_session_is_refused_has_its_cure(db: Db, dsn: str) -> None:
    url = service_dsn(dsn)
    away = make_conninfo(url, host="database.invalid")
    await is_red("database", "failed to resolve host", "the DNS of this machine", database_url=away)
    secure = make_conninfo(url, sslmode="require")
    await is_red("database", "does not support SSL", "?sslmode=prefer", database_url=secure)
    db.execute(f"alter role {SERVICE_LOGIN} connection limit 0".encode())
    try:
        await is_red("database", "too many connections", "the limit of the role", database_url=url)
    finally:
        db.execute(f"alter role {SERVICE_LOGIN} connection limit -1".encode())


async def test_the_certificate_of_the_database_is_looked_at(dsn: str, tmp_path: Path) -> None:
    authority = Authority()
    root = str(authority.write(tmp_path / "ca.pem"))
    secure = {"sslmode": "verify-full", "sslrootcert": root}
    async with behind_tls(dsn, authority, "127.0.0.1") as port:
        assert await is_green("database", database_url=make_conninfo(dsn, port=port, **secure))
    async with behind_tls(dsn, authority, "another.example") as port:
        url = make_conninfo(dsn, port=port, **secure)
        await is_red("database", "does not match host name", "by a name in the", database_url=url)
    async with behind_tls(dsn, Authority(), "127.0.0.1") as port:
        url = make_conninfo(dsn, port=port, **secure)
        await is_red("database", "certificate verify failed", "?sslrootcert=", database_url=url)


@asynccontextmanager
async def behind_tls(dsn: str, authority: Authority, name: str) -> AsyncIterator[int]:
    """The port of a server that speaks TLS for PostgreSQL, as a pooler does: the wheel's is built without it."""
    server = conninfo_to_dict(dsn)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)  # SSLRequest
        writer.write(b"S")
        await writer.start_tls(authority.server_context(name))
        upstream_reader, upstream = await asyncio.open_connection(
            str(server["host"]), int(str(server["port"]))
        )
        try:
            await asyncio.gather(_copy(reader, upstream), _copy(upstream_reader, writer))
        finally:
            upstream.transport.abort()

    async with raw(talk) as port:
        yield port


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        target.write(data)
        await target.drain()
    target.close()


async def test_a_connection_by_the_network_without_tls_is_yellow(dsn: str) -> None:
    parts = conninfo_to_dict(dsn)
    named = make_conninfo(dsn, host="database.example", hostaddr=str(parts["host"]))
    await is_yellow("database", "is not encrypted", "?sslmode=require", database_url=named)


async def test_zones_that_are_newer_than_the_last_migration_are_yellow(db: Db, dsn: str) -> None:
    db.execute("delete from tocsin.timezone where name = 'Europe/Berlin'")
    await is_yellow(
        "zones", "1 time zones that were not there", "Run `tocsin migrate`", database_url=dsn
    )


async def test_a_database_as_it_should_be_is_green(dsn: str) -> None:
    dsn = service_dsn(dsn)
    for name in (
        "requirements",
        "session",
        "schema",
        "rights",
        "notify",
        "clock",
        "transactions",
        "publications",
    ):
        await is_green(name, database_url=dsn)
    assert SERVICE_LOGIN in await is_green("database", database_url=dsn)
    assert "standby" in (await find("replication", database_url=dsn))[0].sentence


@pytest.fixture
def other(server_dsn: str) -> Iterator[str]:
    """A database that this test may change."""
    name = f"spoilt_{os.getpid()}"
    with psycopg.connect(server_dsn, dbname="postgres", autocommit=True) as admin:
        admin.execute(
            f"create database {name} template template0 encoding 'SQL_ASCII' locale 'C'".encode()
        )
        yield make_conninfo(server_dsn, dbname=name)
        drop_database(admin, name)


async def test_another_encoding_and_a_missing_schema_are_red(other: str) -> None:
    await is_red(
        "requirements",
        "encoding is SQL_ASCII",
        "create one with encoding 'UTF8'",
        database_url=other,
    )
    await is_red("schema", "is not migrated", "tocsin migrate", database_url=other)
    assert (await find("services", database_url=other))[0].status == "skipped"


@pytest.mark.parametrize(
    ("statement", "sentence", "cure"),
    [
        (
            "delete from tocsin.migration where name like '0001%%'",
            "earlier version",
            "tocsin migrate",
        ),
        (
            "insert into tocsin.migration (name, checksum) values ('9999_x.sql', '')",
            "newer",
            "Install",
        ),
        (
            "delete from tocsin.migration where name like 'functions %'",
            "earlier version",
            "tocsin migrate",
        ),
        (
            "insert into tocsin.unread_delta (recipient_id, n, xid) values ('a', 1, '999999999999')",
            "restored",
            "tocsin migrate",
        ),
    ],
)
async def test_a_schema_of_another_version_is_red(
    db: Db, dsn: str, statement: str, sentence: str, cure: str
) -> None:
    db.execute(statement.encode())
    await is_red("schema", sentence, cure, database_url=dsn)


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("revoke usage on schema tocsin from tocsin_app", "tocsin_app may not execute notify()"),
        (
            "revoke insert on tocsin.delivery from tocsin_service",
            "tocsin_service lacks rights on 1 tables",
        ),
        (
            "grant execute on function tocsin.cancel(bigint) to public",
            "Everyone may execute 1 functions",
        ),
        (
            "alter function tocsin.cancel(bigint) reset search_path",
            "without a search_path of its own",
        ),
    ],
)
async def test_lost_rights_are_red(db: Db, dsn: str, statement: str, sentence: str) -> None:
    db.execute(statement.encode())
    await is_red("rights", sentence, "tocsin migrate", database_url=dsn)


async def test_a_role_without_rights_is_red(db: Db, dsn: str) -> None:
    role = f"stranger_{os.getpid()}"
    db.execute(f"create role {role} login password 'secret'".encode())
    try:
        url = make_conninfo(dsn, user=role, password="secret")
        await is_red(
            "rights",
            f"{role} of TOCSIN_DATABASE_URL may not use",
            "grant tocsin_service to",
            database_url=url,
        )
        await is_red("schema", "may not read", "tocsin_service", database_url=url)
    finally:
        db.execute(f"drop role {role}".encode())


async def test_settings_that_keep_apps_from_notifying_are_yellow(db: Db, dsn: str) -> None:
    name = db.info.dbname
    db.execute(f"alter database {name} set default_transaction_read_only = on".encode())
    try:
        await is_yellow(
            "session",
            "default_transaction_read_only=on",
            f"alter database {name} reset",
            database_url=dsn,
        )
    finally:
        with psycopg.connect(
            dsn, autocommit=True, options="-c default_transaction_read_only=off"
        ) as own:
            own.execute(f"alter database {name} reset default_transaction_read_only".encode())


def test_a_session_that_something_resets_is_red() -> None:
    found = compare_session({"DateStyle": "SQL, DMY"})
    assert found.status == "red"
    assert "DateStyle = SQL, DMY" in found.sentence
    assert "pool_mode = session" in found.cure


async def test_too_few_connections_are_red(db: Db, dsn: str) -> None:
    url = service_dsn(dsn)
    db.execute(f"alter role {SERVICE_LOGIN} connection limit 20".encode())
    try:
        await is_red(
            "connections",
            "more connections are possible, and services need 40",
            "max_connections",
            database_url=url,
        )
        (found,) = await find("connections", database_url=url, pooler_url=url)
        assert found.status == "green"  # three direct ones of each; the others are the pooler's
    finally:
        db.execute(f"alter role {SERVICE_LOGIN} connection limit -1".encode())


def test_room_for_connections_is_judged_by_what_runs_already() -> None:
    row = FreeConnections(
        possible=97,
        used=67,
        role_limit=None,
        used_by_role=40,
        database_limit=None,
        used_in_database=60,
    )
    assert judge_connections(row, set()).status == "red"
    assert judge_connections(row, {"serve"}).status == "yellow"
    assert judge_connections(row, {"serve", "worker"}).status == "green"
    assert judge_connections(row, set(), most=6).status == "green"


async def test_a_transaction_that_is_open_for_long_is_yellow(dsn: str) -> None:
    with psycopg.connect(dsn, application_name="shop") as app:
        app.execute("select 1")
        pid = app.info.backend_pid
        options = DoctorOptions(long_transaction=timedelta(0))
        await is_yellow(
            "transactions",
            "(shop)",
            f"pg_terminate_backend({pid})",
            database_url=dsn,
            options=options,
        )


async def test_a_publication_that_blocks_changes_is_red(db: Db, dsn: str) -> None:
    db.execute("create publication everything for table tocsin.lease")
    await is_yellow("publications", "with people's addresses", "your app alone", database_url=dsn)
    db.execute("alter table tocsin.lease replica identity nothing")
    await is_red(
        "publications", "refuses changes of lease", "replica identity full", database_url=dsn
    )


async def test_clocks_that_differ_are_yellow_and_then_red(dsn: str) -> None:
    late = DoctorOptions(clock=lambda: time.time() - 10)
    await is_yellow(
        "clock", "PostgreSQL's clock is 10 s ahead", "NTP", database_url=dsn, options=late
    )
    early = DoctorOptions(clock=lambda: time.time() + 100)
    await is_red(
        "clock", "PostgreSQL's clock is 100 s behind", "NTP", database_url=dsn, options=early
    )


def doctor(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """The command itself, with these settings and no others."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")}
    environ |= {
        name if name.isupper() else f"TOCSIN_{name.upper()}": value
        for name, value in settings.items()
    }
    command = [sys.executable, "-m", "tocsin", "doctor", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=600)


def test_other_rules_of_time_zones_in_python_are_yellow(dsn: str, tmp_path: Path) -> None:
    utc = next(
        Path(folder, "UTC")
        for folder in (*zoneinfo.TZPATH, *_tzdata())
        if Path(folder, "UTC").exists()
    )
    (tmp_path / "Africa").mkdir()
    (tmp_path / "Africa" / "Addis_Ababa").write_bytes(utc.read_bytes())
    done = doctor(
        "zones", "--json", database_url=dsn, data_dir=str(tmp_path), PYTHONTZPATH=str(tmp_path)
    )
    rows = json.loads(done.stdout)["checks"]
    assert any(
        "Africa/Addis_Ababa" in row["sentence"] and "tzdata" in row["cure"] for row in rows
    ), rows
    assert {row["status"] for row in rows} == {"yellow"}
    assert done.returncode == 0


def _tzdata() -> list[str]:
    """The folder of the package tzdata, where it is installed."""
    package = importlib.util.find_spec("tzdata")
    return [
        str(Path(each, "zoneinfo"))
        for each in (package and package.submodule_search_locations) or ()
    ]


async def test_a_database_that_can_not_be_written_to_is_red(db: Db, dsn: str) -> None:
    url = service_dsn(dsn)
    assert (await find("storage", database_url=url))[-1].status in (
        "green",
        "yellow",
    )  # fsync is off in tests
    db.execute("alter table tocsin.attempt set unlogged")
    await is_red("storage", "unlogged: attempt", "set logged", database_url=url)
    db.execute("alter table tocsin.attempt set logged")
    db.execute("revoke insert on tocsin.idempotency from tocsin_service")
    await is_red("storage", "can't be written to", "PostgreSQL's log", database_url=url)


# == The command ==


def test_the_command_prints_each_check_and_exits_with_1_where_one_is_red(tmp_path: Path) -> None:
    done = doctor("settings", "tokens", data_dir=str(tmp_path), port="99999")
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("red     settings      TOCSIN_PORT must be")
    assert "→ Set TOCSIN_JWT_SECRET" in done.stdout
    assert done.stdout.endswith("2 of 2 checks are red.\n")
    unknown = CliRunner().invoke(main, ["doctor", "nonsense"])
    assert "there is no check 'nonsense'" in unknown.output


def test_the_docs_list_each_check() -> None:
    text = (Path(__file__).parent.parent.parent / "docs" / "operations.md").read_text("utf-8")
    rows = dict(
        line.strip("| ").split(" | ", 1)
        for line in text.splitlines()
        if line.startswith("| `") and " | " in line
    )
    assert {f"`{check.name}`": check.purpose for check in all_checks()}.items() <= rows.items()
