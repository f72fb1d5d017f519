"""The whole flow on each version of PostgreSQL, with each setting that a database may have, and with each collation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from servers import NEWEST, Server, server

from tests.support.database_flow import HOSTILE, reinstall, run_flow, set_on_database
from tests.support.run_folder import run_folder

VERSIONS = (15, 16, 17, NEWEST)
APP = (
    "default_transaction_read_only = off",
    "statement_timeout = 0",
    "lock_timeout = 0",
    "idle_in_transaction_session_timeout = 0",
    "idle_session_timeout = 0",
)
SETTINGS = [
    *HOSTILE.items(),
    ("datestyle", "German"),
    ("datestyle", "Postgres, MDY"),
    ("intervalstyle", "iso_8601"),
    ("intervalstyle", "postgres_verbose"),
    ("default_transaction_isolation", "repeatable read"),
    ("default_transaction_deferrable", "on"),
    ("client_encoding", "LATIN1"),
    ("default_tablespace", "missing"),
    ("timezone", "America/St_Johns"),
    ("transaction_timeout", "500ms"),
]
COLLATIONS = {
    "c": "locale 'C'",
    "german": "locale_provider icu icu_locale 'de-DE' locale 'C'",
    "turkish": "locale_provider icu icu_locale 'tr-TR' locale 'C'",
    "numeric": "locale_provider icu icu_locale 'en-US-u-kn-true' locale 'C'",
}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with run_folder() as found:
        yield found


@pytest.fixture(scope="module", params=VERSIONS)
def each_version(request: pytest.FixtureRequest, folder: Path) -> Iterator[Server]:
    with server(request.param, folder) as running:
        yield running


@pytest.fixture(scope="module")
def newest(folder: Path) -> Iterator[Server]:
    with server(NEWEST, folder / "newest") as running:
        yield running


@pytest.fixture(scope="module")
def with_icu(folder: Path) -> Iterator[Server]:
    """The embedded PostgreSQL has no ICU."""
    with server(17, folder / "icu") as running:
        yield running


async def test_it_works_on_each_version_with_all_set_otherwise_and_published(
    each_version: Server, tmp_path: Path
) -> None:
    with each_version.database("app") as dsn:
        with psycopg.connect(each_version.dsn("app"), autocommit=True) as admin:
            admin.execute("create publication everything for all tables")
        set_on_database(dsn, HOSTILE)
        reinstall(dsn)
        await run_flow(dsn, tmp_path, APP)


@pytest.mark.parametrize(("name", "value"), SETTINGS)
async def test_it_works_with_each_setting(
    newest: Server, tmp_path: Path, name: str, value: str
) -> None:
    with newest.database("app") as dsn:
        set_on_database(dsn, {name: value})
        reinstall(dsn)
        own = [f"{name} = 0"] if name == "transaction_timeout" else []
        await run_flow(dsn, tmp_path, [*APP, *own])


@pytest.mark.parametrize("options", COLLATIONS.values(), ids=COLLATIONS)
async def test_it_works_with_each_kind_of_collation(
    with_icu: Server, tmp_path: Path, options: str
) -> None:
    with with_icu.database("app", options) as dsn:
        reinstall(dsn)
        await run_flow(dsn, tmp_path)
