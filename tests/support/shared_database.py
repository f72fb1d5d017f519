"""One migrated database for all tests of a process, emptied after each: a tenth of what a new copy takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tocsin.migrate import migrate

SCHEMAS = ["tocsin", "tocsin_queue"]
# Bytes that the tables may have more than the template's: rows that were deleted still take space, and time.
MOST_GROWTH = 4_000_000

# What a test changes beside rows has a new version here.
_CATALOGUES = (
    "pg_namespace",
    "pg_class",
    "pg_attribute",
    "pg_type",
    "pg_proc",
    "pg_constraint",
    "pg_index",
    "pg_trigger",
    "pg_policy",
    "pg_default_acl",
    "pg_extension",
    "pg_publication",
)
_COUNTS = """
    select (select row(datallowconn, datconnlimit, datacl)::text from pg_database
     where datname = current_database()),
    (select count(*) from pg_prepared_xacts where database = current_database()),
    (select count(*) from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase
     where d.datname = current_database()),
    (select sum(reltuples) + sum(relpages) from pg_class where relnamespace = any(%(schemas)s::regnamespace[]))
"""
_SIZE = """
    select sum(pg_relation_size(oid))::bigint from pg_class
    where relkind = 'r' and relnamespace = any(%(schemas)s::regnamespace[])
"""
# Not those of autovacuum, which a superuser owns; it gives way by itself.
_END_SESSIONS = """
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = %s and pid <> pg_backend_pid() and backend_type = 'client backend'
"""

Connection = psycopg.Connection[Any]


class SharedDatabase:
    """A database at `dsn` that one test at a time uses; `reset()` after each.

    Where a test changed more than rows (tables, functions, rights, settings, planner statistics), the database is
    replaced by a new copy of its template. Rows that a migration made are put back where a test changed them.
    """

    def __init__(self, server_dsn: str, name: str) -> None:
        """Migrates the template and makes the first copy."""
        self.dsn = make_conninfo(server_dsn, dbname=name)
        self._server_dsn = server_dsn
        self._name = name
        self._template = f"{name}_template"
        self._run_on_server("create database {}", self._template)
        template_dsn = make_conninfo(server_dsn, dbname=self._template)
        migrate(template_dsn)
        with psycopg.connect(template_dsn) as connection:
            tables = _names(connection, "select schemaname, tablename from pg_tables")
            self._filled = {each: rows for each in tables if (rows := _rows(connection, each))}
            self._empty = [f"delete from {each}" for each in tables if each not in self._filled]
            sequences = _names(connection, "select schemaname, sequencename from pg_sequences")
            self._empty += [f"select setval('{each}', 1, false)" for each in sequences]
        self._make_copy()

    def reset(self) -> None:
        """Ends all other sessions and empties the tables, or makes a new copy."""
        try:
            self._connection.execute(_END_SESSIONS, [self._name])
            if self._fingerprint() == self._before and self._size() < self._largest:
                self._restore()
                return
        except psycopg.Error:
            pass  # a test ended our session, or dropped tables
        self._connection.close()
        self._make_copy()

    def drop(self) -> None:
        """Drops both databases."""
        self._connection.close()
        self._run_on_server("drop database if exists {}", self._name)
        self._run_on_server("drop database {}", self._template)

    def _make_copy(self) -> None:
        self._run_on_server("drop database if exists {}", self._name)
        self._run_on_server(
            "create database {} template {} strategy file_copy", self._name, self._template
        )
        self._connection: Connection = psycopg.connect(self.dsn, autocommit=True)
        # neither triggers nor foreign keys while tables are emptied
        self._connection.execute("set session_replication_role = replica")
        self._before = self._fingerprint()
        self._rows_before = self._versions(self._filled)
        self._largest = self._size() + MOST_GROWTH

    def _restore(self) -> None:
        """Empties the tables that were empty, and restores the rows of the others where these changed."""
        versions = self._versions(self._filled)
        changed = [each for each in self._filled if versions[each] != self._rows_before[each]]
        statements = [*self._empty, *(_restore_rows(each, self._filled[each]) for each in changed)]
        self._connection.execute(";".join(statements).encode())  # one transaction
        if changed:
            self._rows_before |= self._versions(changed)

    def _fingerprint(self) -> object:
        """Returns a value that changes with anything but rows."""
        counts = self._connection.execute(_COUNTS, {"schemas": SCHEMAS}).fetchone()
        return self._versions(_CATALOGUES), counts

    def _versions(self, tables: Iterable[str]) -> dict[str, str]:
        """Returns how many rows each has, and which transaction made the last of them."""
        columns = ", ".join(
            f"(select row(count(*), max(xmin::text::bigint))::text from {each})" for each in tables
        )
        row = self._connection.execute(f"select {columns}".encode()).fetchone()
        assert row is not None
        return dict(zip(tables, row, strict=True))

    def _size(self) -> int:
        row = self._connection.execute(_SIZE, {"schemas": SCHEMAS}).fetchone()
        assert row is not None
        return int(row[0])

    def _run_on_server(self, statement: str, *names: str) -> None:
        with psycopg.connect(self._server_dsn, dbname="postgres", autocommit=True) as connection:
            connection.execute(_END_SESSIONS, [self._name])
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def drop_database(admin: Connection, name: str) -> None:
    """Ends the sessions of a database and drops it.

    `with (force)` would fail while autovacuum is in it, since only a superuser ends that.
    """
    admin.execute(_END_SESSIONS, [name])
    admin.execute(sql.SQL("drop database if exists {}").format(sql.Identifier(name)))


def _names(connection: Connection, select: str) -> list[str]:
    rows = connection.execute(f"{select} where schemaname = any(%s)".encode(), [SCHEMAS])
    return [f"{schema}.{name}" for schema, name in rows]


def _rows(connection: Connection, table: str) -> str | None:
    """Returns all rows as an SQL literal in JSON; None where there is none."""
    row = connection.execute(f"select json_agg(t)::text from {table} t".encode()).fetchone()
    assert row is not None
    return None if row[0] is None else sql.Literal(row[0]).as_string(connection)


def _restore_rows(table: str, rows: str) -> str:
    return (
        f"delete from {table}; insert into {table} overriding system value"
        f" select * from json_populate_recordset(null::{table}, {rows})"
    )
