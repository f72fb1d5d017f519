"""Connections of commands, and whether Tocsin can work on a database at all."""

from __future__ import annotations

from typing import Any

import psycopg

from tocsin.sql import load

_SQL = load("session")
_MIGRATION_SQL = load("migration")
_OLDEST = 15
# Transactions that are held open to see whether a pooler gives one of them the session of another connection.
_HELD = 3

_UNRELEASED = (
    "The database was made by a version from before the first release and can't be migrated; nothing in it was "
    "changed. To start with an empty one: `make reset` if it is that of `make up`, "
    "else run `drop schema tocsin, tocsin_queue cascade` and then `tocsin migrate`."
)

Connection = psycopg.Connection[Any]


def connect(dsn: str, *, autocommit: bool = False) -> Connection:
    """A connection with the settings that our statements rely on, whatever the database and the role set."""
    connection = psycopg.connect(dsn, autocommit=True, connect_timeout=3)
    try:
        connection.execute(_SQL["settle_pooled"])
        connection.execute(_SQL["settle_direct"])
        connection.autocommit = autocommit
    except BaseException:
        connection.close()
        raise
    return connection


def find_fault(dsn: str) -> str | None:
    """In one line, why Tocsin can't work on this database and what to do; None where it can. Raises psycopg.Error."""
    with psycopg.connect(dsn, autocommit=True, connect_timeout=3) as connection:
        version = connection.info.server_version // 10000
        if version < _OLDEST:
            return f"PostgreSQL {version} is too old: Tocsin needs {_OLDEST} or newer."
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":  # people's names, and their addresses, are in all scripts
            return f"The database's encoding is {encoding}: Tocsin needs UTF8, so create one with encoding 'UTF8'."
        if _value(connection, "is_read_only"):
            return (
                "TOCSIN_DATABASE_URL is a standby, which can't be written to: name the primary, "
                "or all hosts with target_session_attrs=read-write."
            )
        if _shares_sessions(connection, dsn):
            return (
                "TOCSIN_DATABASE_URL is a connection pooler in transaction mode, where LISTEN does not work: "
                "connect to PostgreSQL directly, or set pool_mode=session for this database."
            )
        if _is_unreleased(connection):
            return _UNRELEASED
    return None


def _is_unreleased(connection: Connection) -> bool:
    """Whether the tables are those of a version from before the first release, as far as this role may see them."""
    for name in ("can_read_migrations", "is_unreleased"):
        row = connection.execute(_MIGRATION_SQL[name]).fetchone()
        if row != (True,):
            return False
    return True


def _shares_sessions(connection: Connection, dsn: str) -> bool:
    """Whether a pooler gives a session to other connections while this one is open."""
    own = _value(connection, "backend_pid")
    if own == connection.info.backend_pid:
        return False  # PostgreSQL itself; a pooler has numbers of its own
    held: list[Connection] = []
    try:
        for _ in range(_HELD):
            held.append(psycopg.connect(dsn, connect_timeout=3))
            if _value(held[-1], "backend_pid") == own or _value(connection, "backend_pid") != own:
                return True
    except psycopg.errors.ProtocolViolation:
        return True  # statement mode refuses transactions
    finally:
        for each in held:
            each.close()
    return False


def _value(connection: Connection, name: str) -> Any:
    row = connection.execute(_SQL[name]).fetchone()
    return row[0] if row else None
