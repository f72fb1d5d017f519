"""A PostgreSQL of its own with an administrator who may create roles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tocsin.dev import embedded_postgres

Admin = Callable[[str], list[Any]]


ROLES = "select rolname from pg_roles where rolname !~ '^pg_' and oid <> 10"


@pytest.fixture(scope="module")
def cluster(server_folder: Path) -> Iterator[str]:
    """The superuser's DSN of a server whose roles these tests may create and drop."""
    server = embedded_postgres.start(server_folder / "roles", lambda _: None, durable=False)
    yield server.superuser_dsn
    embedded_postgres.stop(server)


@pytest.fixture
def admin_dsn(cluster: str) -> str:
    """The superuser's DSN of an empty database, on a server with no role but the superuser."""
    with psycopg.connect(cluster, dbname="postgres", autocommit=True) as connection:
        for drop, names in (
            (
                "drop database {} with (force)",
                "select datname from pg_database where not datistemplate and datname <> 'postgres'",
            ),
            ("drop owned by {}", ROLES),
            ("drop role {}", ROLES),
        ):
            for (name,) in connection.execute(names).fetchall():
                connection.execute(sql.SQL(drop).format(sql.Identifier(name)))
        connection.execute("create database app")
    return make_conninfo(cluster, dbname="app")


@pytest.fixture
def admin(admin_dsn: str) -> Iterator[Admin]:
    """Runs a statement as the superuser of that database."""
    with psycopg.connect(admin_dsn, autocommit=True) as connection:

        def run(statement: str) -> list[Any]:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

        yield run
