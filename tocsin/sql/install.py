"""Installs both schemas on an open connection: roles, migrations, functions, and Procrastinate's schema.

It needs psycopg alone, so that a framework can run it in a transaction of its own (docs/adr/0006-migrations.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, LiteralString, cast

import psycopg
from psycopg.types.json import Jsonb

from tocsin.sql import load

_ROLE_QUERIES = load("role")
_QUERIES = load("migration")

_SQL = files("tocsin.sql")
_LAST = {"grants.sql", "planner_profiles.sql"}  # they change the functions of the other files
_FUNCTIONS = (
    "functions"  # the name in tocsin.migration under which the checksum of all functions is
)
_QUEUE = "procrastinate "  # the prefix of its versions there

_Report = Callable[[str], None]
_AnyConnection = psycopg.Connection[Any]

State = Literal["missing", "unreadable", "behind", "newer", "current"]


class RoleError(Exception):
    """A role is missing or lacks a right: one line for each, with the cure."""


class MigrationError(Exception):
    """The database can't be brought to this version; one line with the reason and the cure."""


def install(
    connection: _AnyConnection, catalogue: Mapping[str, object], report: _Report | None = None
) -> None:
    """Brings both schemas to this version in the connection's transaction; repeats nothing that was done before.

    `catalogue` is what a new database starts with, as `CatalogueFile.in_order()` has it. Role and settings of the
    session are put back at the end. Raises MigrationError or RoleError.
    """
    report = report or _ignore
    with _session_settings(connection):
        _create_migration(connection)
        _lock(connection, report)
        applied: dict[str, str] = dict(
            connection.execute(_QUERIES["applied_migrations"]).fetchall()
        )
        _apply_queue(connection, applied, report)
        _apply_migrations(connection, applied, report)
        for path in _function_files():
            _run(connection, path)
        _record(connection, _FUNCTIONS, _checksum(*_function_files()))
        connection.execute(_QUERIES["reset_foreign_xids"])
        connection.execute(_QUERIES["refresh_default_decisions"])
        connection.execute(_QUERIES["apply_default_catalogue"], {"catalogue": Jsonb(catalogue)})


def uninstall(connection: _AnyConnection) -> None:
    """Drops both schemas with all that is in them, in the connection's transaction; the roles stay."""
    with _session_settings(connection):
        act_as_owner(connection)
        connection.execute(_QUERIES["drop_schemas"])


def state(connection: _AnyConnection) -> State:
    """Returns how the schemas relate to this version; unreadable: the session's role may not see what was applied."""
    found = connection.execute(_QUERIES["find_migration"]).fetchone()
    if found is None:
        return "missing"
    if not found[0]:
        return "unreadable"
    applied: dict[str, str] = dict(connection.execute(_QUERIES["applied_migrations"]).fetchall())
    if _newer(applied):
        return "newer"
    wanted = {path.name for path in sql_files("migrations")}
    queue = _newest_queue(applied)
    if (
        wanted <= applied.keys()
        and applied.get(_FUNCTIONS) == _checksum(*_function_files())
        and queue is not None
        and _numbers(queue) >= _numbers(_queue_source()[0])
    ):
        return "current"
    return "behind"


def act_as_owner(connection: _AnyConnection) -> None:
    """Creates missing roles, and acts as the owner of the schemas until the transaction ends.

    The owner is never a superuser: what a superuser migrates belongs to `tocsin_owner`
    (docs/adr/0040-roles.md). Raises RoleError with every right that the session's role lacks.
    """
    if faults := connection.execute(_ROLE_QUERIES["missing_rights"]).fetchall():
        raise RoleError(lines("The database can't be migrated yet", faults))
    run_each(connection, "create_roles")
    owner, acting = connection.execute(_ROLE_QUERIES["owner"]).fetchone() or ("", "")
    if connection.execute(_ROLE_QUERIES["is_superuser"]).fetchone() == (True,):
        run_each(connection, "give_to_owner", owner=owner)
    if owner != acting:
        connection.execute(_ROLE_QUERIES["act_as"], {"owner": owner})


def run_each(connection: _AnyConnection, name: str, **arguments: str) -> None:
    """Runs the statements that a query of `role` returns; the names in them are quoted by the server."""
    for (statement,) in connection.execute(_ROLE_QUERIES[name], arguments or None).fetchall():
        connection.execute(cast("LiteralString", statement))


def lines(what: str, faults: list[tuple[str, str]]) -> str:
    """Returns an error with a line for each cure and its reason."""
    return "\n".join([f"{what}:", *(f"  {cure}  -- {reason}" for cure, reason in faults)])


def sql_files(folder: str) -> list[Path]:
    """Returns the SQL files of a folder of `tocsin/sql`, by name."""
    return sorted(Path(str(_SQL / folder)).glob("*.sql"))


def _ignore(line: str) -> None: ...


@contextmanager
def _session_settings(connection: _AnyConnection) -> Iterator[None]:
    """Sets what the files rely on, and puts back what was set before: the transaction may be a framework's."""
    before = connection.execute(_QUERIES["installation_settings"]).fetchall()
    connection.execute(_QUERIES["configure_installation"])
    yield
    for name, value in before:
        connection.execute(_QUERIES["restore_setting"], {"name": name, "value": value})


def _create_migration(connection: _AnyConnection) -> None:
    """Creates the table that a migration locks. Of two processes that do so at once, one fails and tries again."""
    for _ in range(3):
        with suppress(
            psycopg.errors.UniqueViolation,
            psycopg.errors.DuplicateObject,
            psycopg.errors.DuplicateSchema,
        ):
            with connection.transaction():
                act_as_owner(connection)
                connection.execute(_QUERIES["create_schemas"])
                connection.execute(_QUERIES["create_migration"])
            return


def _lock(connection: _AnyConnection, report: _Report) -> None:
    """Waits for another migration to end, and reports which sessions it waits for."""
    reported = False
    while True:
        try:
            with connection.transaction():
                connection.execute("set local lock_timeout = '3s'")
                connection.execute(_QUERIES["lock_migration"])
                connection.execute("set local lock_timeout = 0")
        except psycopg.errors.LockNotAvailable:
            if not reported:
                for pid, role, program in connection.execute(_QUERIES["migration_blockers"]):
                    report(f"Waiting for session {pid} (role {role}, {program or 'no name'}).")
            reported = True
        else:
            return


def _apply_migrations(connection: _AnyConnection, applied: dict[str, str], report: _Report) -> None:
    if newer := _newer(applied):
        raise MigrationError(
            f"The database is newer than this Tocsin (it has {max(newer)}): install the newer version."
        )
    for path in sql_files("migrations"):
        if path.name not in applied:
            report(f"Migrating: {path.stem}")
            _run(connection, path)
            _record(connection, path.name, _checksum(path))
        elif applied[path.name] != _checksum(path):
            raise MigrationError(
                f"{path.name} was edited after it was applied: put it back and write a new migration."
            )


def _newer(applied: dict[str, str]) -> list[str]:
    """Returns what a later version of Tocsin applied."""
    known = {_FUNCTIONS, *(path.name for path in sql_files("migrations"))}
    return [name for name in applied if not name.startswith(_QUEUE) and name not in known]


def _apply_queue(connection: _AnyConnection, applied: dict[str, str], report: _Report) -> None:
    """Applies Procrastinate's own schema, or its migrations since the version that was applied last."""
    wanted, folder = _queue_source()
    last = _newest_queue(applied)
    if last is not None and _numbers(last) >= _numbers(wanted):
        return
    report(f"Migrating: procrastinate {wanted}")
    connection.execute("set local search_path = tocsin_queue")
    if last is None:
        _run(connection, folder / "schema.sql")
    else:
        for path in sorted((folder / "migrations").glob("*.sql")):
            if _numbers(last) < _numbers(path.name.split("_")[0]) <= _numbers(wanted):
                _run(connection, path)
    for (statement,) in connection.execute(_QUERIES["pin_queue_functions"]).fetchall():
        connection.execute(statement)
    connection.execute("set local search_path = pg_catalog, pg_temp")
    _record(connection, _QUEUE + wanted, "")


def _queue_source() -> tuple[str, Path]:
    """Returns the version and folder of Procrastinate's SQL files: those of Tocsin, or newer installed ones.

    An app may have an older Procrastinate of its own installed, or none.
    """
    folder = Path(str(_SQL / "procrastinate"))
    own = (folder / "VERSION").read_text(encoding="utf-8").strip()
    try:
        installed = version("procrastinate")
    except PackageNotFoundError:
        return own, folder
    if _numbers(installed) <= _numbers(own):
        return own, folder
    return installed, Path(str(files("procrastinate") / "sql"))


def _newest_queue(applied: dict[str, str]) -> str | None:
    """Returns the version of Procrastinate that was applied last; None: none was."""
    versions = [name.removeprefix(_QUEUE) for name in applied if name.startswith(_QUEUE)]
    return max(versions, key=_numbers, default=None)


def _function_files() -> list[Path]:
    return sorted(sql_files("functions"), key=lambda path: (path.name in _LAST, path))


def _checksum(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def _record(connection: _AnyConnection, name: str, checksum: str) -> None:
    connection.execute(_QUERIES["record_migration"], {"name": name, "checksum": checksum})


def _run(connection: _AnyConnection, path: Path) -> None:
    connection.execute(path.read_text(encoding="utf-8"))


def _numbers(version_text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version_text.split(".")[:3])
