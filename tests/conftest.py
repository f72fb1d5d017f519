"""Fixtures of all tests: the project's own PostgreSQL, and an empty migrated database for each test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trustme
from hypothesis import settings
from psycopg.conninfo import make_conninfo

from tests.support.run_folder import run_folder
from tests.support.services import service_dsn
from tests.support.shared_database import SharedDatabase
from tocsin.dev import embedded_postgres
from tocsin.engine.store.database import Database

# What takes long on a busy machine is not wrong. CI tries the same examples each time, so that it judges the change;
# other runs try new ones, and what they find becomes an `@example`.
settings.register_profile("tocsin", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("tocsin")

MOST_PROCESSES = 4  # tests of flows start services of their own, and wait for them by the clock


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Returns the number of processes: one more than the CPUs that are ours, since tests of flows mostly wait."""
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(ours + 1, MOST_PROCESSES)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of flows first: others run while these wait, and none of the longest is the last."""
    items.sort(key=lambda item: "flow" not in item.path.parts)


@pytest.fixture(scope="session", autouse=True)
def no_public_authorities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test meets the world's certificates, and each TLS context would take 30 ms to read them."""
    folder = tmp_path_factory.mktemp("authorities")
    file = folder / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("SSL_CERT_FILE", str(file))
        environ.setenv("SSL_CERT_DIR", str(folder))
        yield


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder outside of pytest's own ones, which PostgreSQL's user can't enter and other runs remove."""
    with run_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def server_dsn(server_folder: Path) -> Iterator[str]:
    """The owner's DSN of a PostgreSQL for this process: the embedded one, or one of an older version that is named."""
    if named := os.environ.get("TEST_SUPERUSER_DSN"):
        yield _prepare(named, make_conninfo(named, user="tocsin_owner", password="owner-of-tests"))
        return
    running = embedded_postgres.start(server_folder / "data", durable=False)
    yield _prepare(running.superuser_dsn, running.dsn)
    embedded_postgres.stop(running)


def _prepare(superuser_dsn: str, owner_dsn: str) -> str:
    """Connects tests as the owner, never as a superuser, so that a missing grant is found."""
    with _alone(superuser_dsn) as connection:
        if (
            connection.execute("select from pg_roles where rolname = 'tocsin_owner'").fetchone()
            is None
        ):
            connection.execute(
                "create role tocsin_owner login createrole password 'owner-of-tests'"
            )
        connection.execute("alter role tocsin_owner createdb")
        connection.execute("grant set on parameter session_replication_role to tocsin_owner")
        if connection.info.server_version >= 180000:
            # tests end all sessions of their database, whatever is just vacuuming it
            connection.execute("grant pg_signal_autovacuum_worker to tocsin_owner")
    return owner_dsn


@contextmanager
def _alone(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """Lets one process of a run in at a time: they share a server that is named, and so its roles."""
    with psycopg.connect(dsn, dbname="postgres", autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(1953457011)")
        yield connection


@pytest.fixture(scope="session")
def shared_database(server_dsn: str) -> Iterator[SharedDatabase]:
    """This process's database; each test has it for itself (`dsn`)."""
    name = f"tocsin_test_{os.getpid()}"
    with _alone(server_dsn):  # migrations make roles
        shared = SharedDatabase(server_dsn, name)
    yield shared
    shared.drop()


@pytest.fixture
def dsn(shared_database: SharedDatabase) -> Iterator[str]:
    """A migrated, empty database that no other test uses meanwhile, as its owner."""
    yield shared_database.dsn
    shared_database.reset()


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    """A service's pool."""
    database = Database(service_dsn(dsn))
    await database.open()
    yield database
    await database.close()


@pytest.fixture
def db(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to it, as an app's: each statement commits by itself."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """The data directory of a service under test."""
    return tmp_path / "data"
