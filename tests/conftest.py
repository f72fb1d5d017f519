"""What tests share: the project's own PostgreSQL, and a fresh migrated database for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pytest_postgresql import factories

from tocsin import postgres
from tocsin.migrate import migrate


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """Not below pytest's own folders, which are closed to PostgreSQL's user and swept by other runs."""
    with TemporaryDirectory(prefix="tocsin-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture(scope="session")
def server(server_folder: Path) -> Iterator[postgres.Postgres]:
    """The embedded PostgreSQL, for this run only."""
    running = postgres.start(server_folder / "data", durable=False)
    with psycopg.connect(running.superuser_dsn, autocommit=True) as connection:
        # tests are the owner, never a superuser, so that a missing grant shows
        connection.execute("alter role tocsin_owner createdb")
        # a database is dropped after its test, whoever is just vacuuming it
        connection.execute("grant pg_signal_autovacuum_worker to tocsin_owner")
    yield running
    postgres.stop(running)


@pytest.fixture(scope="session")
def server_address(server: postgres.Postgres) -> SimpleNamespace:
    """The server in pytest-postgresql's terms."""
    parts = conninfo_to_dict(server.dsn)
    return SimpleNamespace(
        host=parts["host"],
        port=int(str(parts["port"])),
        user=parts["user"],
        password=parts["password"],
        options="",
        maintenance_dbname="postgres",
        template_dbname=None,
    )


def _load_schema(*, host: str, port: int, user: str, dbname: str, password: str, **_: Any) -> None:
    migrate(make_conninfo(host=host, port=port, user=user, dbname=dbname, password=password))


postgresql_server = factories.postgresql_noproc(
    depends_on="server_address", dbname="tocsin_test", load=[_load_schema]
)
postgresql = factories.postgresql("postgresql_server")


@pytest.fixture
def dsn(postgresql: psycopg.Connection[Any]) -> str:
    """A migrated, empty database of this test's own, as its owner."""
    info = postgresql.info
    return make_conninfo(
        "",
        host=info.host,
        port=info.port,
        user=info.user,
        password=info.password,
        dbname=info.dbname,
    )


@pytest.fixture
def db(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to it, as an app's: each statement commits by itself."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Where a service under test keeps its files."""
    return tmp_path / "data"
