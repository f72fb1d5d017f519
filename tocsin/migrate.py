"""Brings a database to this version's schema: roles, migrations, functions, and Procrastinate's schema.

Everything is one transaction that locks the table tocsin.migration: a crash leaves the old schema unchanged, and
several processes may start at once. docs/adr/0006-migrations.md has the reasons against a migration tool.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, LiteralString, cast
from urllib.parse import quote

import psycopg
from procrastinate.schema import SchemaManager
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from tocsin.engine.store.connection import connect, find_fault
from tocsin.event_types import CatalogueFile, default_catalogue
from tocsin.settings.running_instance import SecretFileError, keep_secrets
from tocsin.sql import load

_ROLE_QUERIES = load("role")

_SQL = files("tocsin.sql")
_QUERIES = load("migration")
_LAST = {"grants.sql", "planner_profiles.sql"}  # they change the functions of the other files
_QUEUE = "procrastinate "  # the prefix of its versions in tocsin.migration

_Connection = psycopg.Connection[TupleRow]
_Report = Callable[[str], None]
_AnyConnection = psycopg.Connection[Any]


class RoleError(Exception):
    """A role is missing or lacks a right: one line for each, with the cure."""


def act_as_owner(connection: _AnyConnection) -> None:
    """Creates missing roles, and acts as the owner of the schemas until the transaction ends.

    The owner is never a superuser: what a superuser migrates belongs to `tocsin_owner`
    (docs/adr/0040-roles.md). Raises RoleError with every right that the session's role lacks.
    """
    if faults := connection.execute(_ROLE_QUERIES["missing_rights"]).fetchall():
        raise RoleError(_lines("The database can't be migrated yet", faults))
    _run_each(connection, "create_roles")
    owner, acting = connection.execute(_ROLE_QUERIES["owner"]).fetchone() or ("", "")
    if connection.execute(_ROLE_QUERIES["is_superuser"]).fetchone() == (True,):
        _run_each(connection, "give_to_owner", owner=owner)
    if owner != acting:
        connection.execute(_ROLE_QUERIES["act_as"], {"owner": owner})


def login_dsn(owner_dsn: str, data_dir: Path, role: Literal["app", "service"]) -> str:
    """The DSN of a login that is granted `tocsin_app` or `tocsin_service`; the first call creates the login.

    Its password is kept in the data directory. Raises RoleError where the owner can't create it.
    """
    login, granted, secret = f"tocsin_{role}_login", f"tocsin_{role}", f"{role}_password"
    with connect(owner_dsn, autocommit=True) as connection:
        names = {"login": login, "granted": granted}
        if faults := connection.execute(_ROLE_QUERIES["login_faults"], names).fetchall():
            raise RoleError(_lines(f"The login {login} can't be created", faults))
        password = _kept_password(data_dir, secret)
        # hashed here, so that no statement in the server's log has it
        hashed = connection.pgconn.encrypt_password(password.encode(), login.encode()).decode()
        try:
            _run_each(connection, "create_login", **names, password=hashed)
        except psycopg.errors.InsufficientPrivilege as error:
            fault = (
                f"run as an administrator: grant {granted} to {login};",
                error.diag.message_primary or str(error),
            )
            raise RoleError(_lines(f"The login {login} can't be created", [fault])) from error
        host, port = connection.info.host, connection.info.port
        database = quote(connection.info.dbname)
    if host.startswith("/"):  # a Unix socket
        where = f"/{database}?host={quote(host, safe='')}&port={port}"
    else:
        where = f"{f'[{host}]' if ':' in host else host}:{port}/{database}"
    return f"postgresql://{login}:{quote(password)}@{where}"


def _kept_password(data_dir: Path, secret: str) -> str:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        return keep_secrets(data_dir, secret)[secret]
    except OSError as error:
        raise SecretFileError(
            f"TOCSIN_DATA_DIR {data_dir} can't keep the password: {error.strerror}"
        ) from None


def _run_each(connection: _AnyConnection, name: str, **arguments: str) -> None:
    """Runs the statements that a query returns; the names in them are quoted by the server."""
    for (statement,) in connection.execute(_ROLE_QUERIES[name], arguments or None).fetchall():
        connection.execute(cast("LiteralString", statement))


def _lines(what: str, faults: list[tuple[str, str]]) -> str:
    return "\n".join([f"{what}:", *(f"  {cure}  -- {reason}" for cure, reason in faults)])


class MigrationError(Exception):
    """The database can't be brought to this version; one line with the reason and the cure."""


def migrate(dsn: str, report: _Report | None = None) -> None:
    """Migrates the database at `dsn`, its owner's; does nothing where it is up to date. Raises MigrationError."""
    try:
        if fault := find_fault(dsn):
            raise MigrationError(fault)
        with connect(dsn, autocommit=True) as connection:
            _create_migration(connection)
            with connection.transaction():
                _migrate(connection, report or _ignore)
    except psycopg.errors.InsufficientPrivilege as error:
        raise MigrationError(
            f"{error.diag.message_primary}: migrate as the role that owns the schemas tocsin and tocsin_queue."
        ) from error
    except RoleError as error:
        raise MigrationError(str(error)) from error


def _ignore(line: str) -> None: ...


def apply_catalogue(dsn: str, catalogue: CatalogueFile) -> int:
    """Adds to or changes the event types, all or nothing; returns how many there are."""
    with connect(dsn) as connection:
        arguments = {"catalogue": Jsonb(catalogue.in_order())}
        row = connection.execute(_QUERIES["apply_catalogue"], arguments).fetchone()
    return int(row[0]) if row else 0


def _create_migration(connection: _Connection) -> None:
    """Creates the table that a migration locks. Of two processes that do so at once, one fails and tries again."""
    for _ in range(3):
        with suppress(
            psycopg.errors.UniqueViolation,
            psycopg.errors.DuplicateObject,
            psycopg.errors.DuplicateSchema,
        ):
            with connection.transaction():
                connection.execute("set local client_min_messages = warning")
                act_as_owner(connection)
                connection.execute(_QUERIES["create_schemas"])
                connection.execute(_QUERIES["create_migration"])
            return


def _lock(connection: _Connection, report: _Report) -> None:
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


def _migrate(connection: _Connection, report: _Report) -> None:
    act_as_owner(connection)
    _lock(connection, report)
    connection.execute("set local client_min_messages = warning")
    # functions call functions of files that come later
    connection.execute("set local check_function_bodies = off")
    applied: dict[str, str] = dict(connection.execute(_QUERIES["applied_migrations"]).fetchall())
    _apply_queue(connection, applied, report)
    _apply_migrations(connection, applied, report)
    for path in sorted(_sql_files("functions"), key=lambda path: (path.name in _LAST, path)):
        _run(connection, path)
    connection.execute(_QUERIES["reset_foreign_xids"])
    connection.execute(_QUERIES["refresh_default_decisions"])
    catalogue = Jsonb(default_catalogue().in_order())
    connection.execute(_QUERIES["apply_default_catalogue"], {"catalogue": catalogue})


def _apply_migrations(connection: _Connection, applied: dict[str, str], report: _Report) -> None:
    paths = _sql_files("migrations")
    names = {path.name for path in paths}
    if newer := [name for name in applied if not name.startswith(_QUEUE) and name not in names]:
        raise MigrationError(
            f"The database is newer than this Tocsin (it has {max(newer)}): install the newer version."
        )
    for path in paths:
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        if path.name not in applied:
            report(f"Migrating: {path.stem}")
            _run(connection, path)
            _record(connection, path.name, checksum)
        elif applied[path.name] != checksum:
            raise MigrationError(
                f"{path.name} was edited after it was applied: put it back and write a new migration."
            )


def _apply_queue(connection: _Connection, applied: dict[str, str], report: _Report) -> None:
    """Procrastinate's own schema, or its migrations since the version that was applied last."""
    installed = version("procrastinate")
    earlier = [name.removeprefix(_QUEUE) for name in applied if name.startswith(_QUEUE)]
    if installed in earlier:
        return
    report(f"Migrating: procrastinate {installed}")
    connection.execute("set local search_path = tocsin_queue")
    if earlier:
        last = max(map(_numbers, earlier))
        for path in sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql")):
            if last < _numbers(path.name.split("_")[0]) <= _numbers(installed):
                _run(connection, path)
    else:
        connection.execute(SchemaManager.get_schema())
    for (statement,) in connection.execute(_QUERIES["pin_queue_functions"]).fetchall():
        connection.execute(statement)
    connection.execute("set local search_path = pg_catalog, pg_temp")
    _record(connection, _QUEUE + installed, "")


def _record(connection: _Connection, name: str, checksum: str) -> None:
    connection.execute(_QUERIES["record_migration"], {"name": name, "checksum": checksum})


def _run(connection: _Connection, path: Path) -> None:
    connection.execute(path.read_text(encoding="utf-8"))


def _sql_files(folder: str) -> list[Path]:
    return sorted(Path(str(_SQL / folder)).glob("*.sql"))


def _numbers(version_text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version_text.split(".")[:3])
