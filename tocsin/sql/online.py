"""What `tocsin migrate` does besides its one transaction, so that services of two versions run meanwhile.

Indexes of `<name>.concurrent.sql` are built without a lock that keeps rows from being written. Changes of
`<name>.after.sql`, such as dropping what the earlier version uses, wait until no process of another version runs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from tocsin.sql import load
from tocsin.sql.install import (
    AFTER,
    CONCURRENT,
    act_as_owner,
    checksum,
    installing,
    lock,
    other_processes,
    sql_files,
)

_QUERIES = load("migration")
_ROLE_QUERIES = load("role")

LOCK_TIMEOUT = "2s"
"""So long may calls of apps wait behind a migration that waits for a lock."""

_Report = Callable[[str], None]
_AnyConnection = psycopg.Connection[Any]


def build_indexes(connection: _AnyConnection, guard: _AnyConnection, report: _Report) -> None:
    """Builds the indexes that are missing, each statement in a transaction of its own.

    `guard` holds the lock on tocsin.migration meanwhile, and records what was built. An index that an earlier
    attempt left invalid is built again.
    """
    if not _missing(guard, CONCURRENT):
        return
    with guard.transaction(), installing(guard):
        act_as_owner(guard)
        lock(guard, report)
        paths = _missing(guard, CONCURRENT)
        if not paths:
            return
        owner, _ = connection.execute(_ROLE_QUERIES["owner"]).fetchone() or ("", "")
        connection.execute(_QUERIES["stay_owner"], {"owner": owner})
        for (statement,) in connection.execute(_QUERIES["invalid_indexes"]).fetchall():
            connection.execute(statement)
        for path in paths:
            report(f"Building: {path.stem.removesuffix('.concurrent')}")
            for statement in path.read_text(encoding="utf-8").split(";\n"):
                if statement.strip():
                    connection.execute(statement)
            _record(guard, path)


def finish(connection: _AnyConnection, report: _Report) -> None:
    """Applies what waits for the processes of other versions, where none runs; else reports which do."""
    if not _missing(connection, AFTER):
        return
    if others := other_processes(connection):
        report(
            f"Left for later, since processes of another version run: {', '.join(others)}. "
            "Run `tocsin migrate` again when all are restarted."
        )
        return
    with installing(connection, LOCK_TIMEOUT):
        act_as_owner(connection)
        lock(connection, report, LOCK_TIMEOUT)
        for path in _missing(connection, AFTER):
            report(f"Finishing: {path.stem.removesuffix('.after')}")
            connection.execute(path.read_text(encoding="utf-8"))
            _record(connection, path)


def lock_holders(connection: _AnyConnection) -> dict[str, str]:
    """Returns the transactions of other sessions that hold locks on Tocsin's tables, each with its description."""
    found = {}
    for transaction, pid, role, program, seconds in connection.execute(_QUERIES["lock_holders"]):
        since = "" if seconds is None else f", open for {seconds:.0f} s"
        found[transaction] = f"session {pid} (role {role}, {program or 'no name'}{since})"
    return found


def _missing(connection: _AnyConnection, ending: str) -> list[Path]:
    """Returns the files with this ending that were not applied."""
    applied = dict(connection.execute(_QUERIES["applied_migrations"]).fetchall())
    found = [path for path in sql_files("migrations") if path.name.endswith(ending)]
    return [path for path in found if path.name not in applied]


def _record(connection: _AnyConnection, path: Path) -> None:
    arguments = {"name": path.name, "checksum": checksum(path)}
    connection.execute(_QUERIES["record_migration"], arguments)
