"""Brings the database at a DSN to this version's schema, and creates logins for it.

Most of it is one transaction that locks the table tocsin.migration: a crash leaves the old schema unchanged, and
several processes may start at once. It never waits for a lock for long, since all calls of apps would wait behind it:
it is rolled back and tried again. docs/adr/0006-migrations.md has the reasons against a migration tool.

Two things are done outside of that transaction, so that services of two versions run meanwhile. Indexes of
`<name>.concurrent.sql` are built without a lock that keeps rows from being written. Changes of `<name>.after.sql`, such
as dropping what the earlier version uses, wait until no process of another version runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import psycopg
from psycopg.types.json import Jsonb

from tocsin.engine.store.catalogue_file import CatalogueFile, default_catalogue
from tocsin.engine.store.connection import connect, find_fault
from tocsin.settings.running_instance import SecretFileError, keep_secrets
from tocsin.sql import load
from tocsin.sql.install import (
    AFTER,
    CONCURRENT,
    MigrationError,
    RoleError,
    act_as_owner,
    checksum,
    install,
    installing,
    lines,
    lock,
    other_processes,
    run_each,
    sql_files,
)

_ROLE_QUERIES = load("role")
_QUERIES = load("migration")

_Report = Callable[[str], None]
_AnyConnection = psycopg.Connection[Any]

LOCKED_FOR = 300.0
"""For how many seconds a migration is tried again while tables are locked."""
_PAUSE = 3.0  # seconds in which they get their turn
_LOCKED = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
LOCK_TIMEOUT = "2s"
"""So long may calls of apps wait behind a migration that waits for a lock."""


def migrate(dsn: str, report: _Report | None = None, *, wait: float = LOCKED_FOR) -> None:
    """Migrates the database at `dsn`, its owner's; does nothing where it is up to date. Raises MigrationError.

    Tries for `wait` seconds where sessions keep its tables locked.
    """
    report = report or _ignore
    deadline = time.monotonic() + wait
    try:
        if fault := find_fault(dsn):
            raise MigrationError(fault)
        with connect(dsn, autocommit=True) as connection:
            _retried(connection, _install, report, deadline)
            with connect(dsn, autocommit=True) as guard:
                build_indexes(connection, guard, report)
            connection.execute(_QUERIES["stay_self"])
            _retried(connection, finish, report, deadline)
    except psycopg.errors.InsufficientPrivilege as error:
        raise MigrationError(
            f"{error.diag.message_primary}: migrate as the role that owns the schemas tocsin and tocsin_queue."
        ) from error
    except RoleError as error:
        raise MigrationError(str(error)) from error


def _ignore(line: str) -> None: ...


def _install(connection: psycopg.Connection[Any], report: _Report) -> None:
    catalogue = default_catalogue().in_order()
    install(connection, catalogue, report, online=True, lock_timeout=LOCK_TIMEOUT)


def _retried(
    connection: psycopg.Connection[Any],
    step: Callable[[psycopg.Connection[Any], _Report], None],
    report: _Report,
    deadline: float,
) -> None:
    """Runs a step in a transaction, again while a table is locked; reports once by which sessions."""
    reported: set[str] = set()

    def report_once(line: str) -> None:
        if line not in reported:
            reported.add(line)
            report(line)

    waits = False
    while True:
        before = lock_holders(connection)
        try:
            with connection.transaction():
                return step(connection, report_once)
        except _LOCKED as error:
            # those that began since only waited behind this attempt
            still = [text for key, text in lock_holders(connection).items() if key in before]
            holders = ", ".join(still) or "short transactions"
            if time.monotonic() >= deadline:
                raise MigrationError(
                    f"Nothing was changed: tables are locked by {holders}. End them, or migrate when they have ended."
                ) from error
            if not waits:
                report(f"Waiting for locks, held by {holders}.")
            waits = True
            time.sleep(_PAUSE)


def apply_catalogue(dsn: str, catalogue: CatalogueFile) -> int:
    """Adds to or changes the event types, all or nothing; returns how many there are."""
    with connect(dsn) as connection:
        arguments = {"catalogue": Jsonb(catalogue.in_order())}
        row = connection.execute(_QUERIES["apply_catalogue"], arguments).fetchone()
    return int(row[0]) if row else 0


def login_dsn(owner_dsn: str, data_dir: Path, role: Literal["app", "service"]) -> str:
    """Returns the DSN of a login that is granted `tocsin_app` or `tocsin_service`; the first call creates the login.

    Its password is kept in the data directory. Raises RoleError where the owner can't create it.
    """
    login, granted, secret = f"tocsin_{role}_login", f"tocsin_{role}", f"{role}_password"
    with connect(owner_dsn, autocommit=True) as connection:
        names = {"login": login, "granted": granted}
        if faults := connection.execute(_ROLE_QUERIES["login_faults"], names).fetchall():
            raise RoleError(lines(f"The login {login} can't be created", faults))
        password = _kept_password(data_dir, secret)
        # hashed here, so that no statement in the server's log has it
        hashed = connection.pgconn.encrypt_password(password.encode(), login.encode()).decode()
        try:
            run_each(connection, "create_login", **names, password=hashed)
        except psycopg.errors.InsufficientPrivilege as error:
            fault = (
                f"run as an administrator: grant {granted} to {login};",
                error.diag.message_primary or str(error),
            )
            raise RoleError(lines(f"The login {login} can't be created", [fault])) from error
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
