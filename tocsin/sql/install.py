"""Installs both schemas on an open connection: roles, migrations, functions, Procrastinate's schema, and event types.

It needs psycopg alone, so that a framework can run it in a transaction of its own (docs/adr/0006-migrations.md).
"""

from __future__ import annotations

import hashlib
import tomllib
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
_HAD_FUNCTIONS = "functions "  # the prefix of the checksums that it had
_QUEUE = "procrastinate "  # the prefix of its versions there

_DEFAULTS: dict[str, Any] = {
    "mandatory": [],
    "priority": "normal",
    "time_to_live": "3d",
    "max_attempts": 10,
    "digest": True,
    "delay": {},
    "skip_if_read": [],
    "alone": False,
    "mention": False,
    "group": True,
    "title_many": {},
    "throttle": None,
    "unread_retention": None,
}

_Report = Callable[[str], None]
_AnyConnection = psycopg.Connection[Any]

CONCURRENT = ".concurrent.sql"
"""The ending of migrations whose indexes `tocsin migrate` builds concurrently, after its transaction."""
AFTER = ".after.sql"
"""The ending of migrations that wait until no process of another version runs."""

State = Literal["missing", "unreadable", "behind", "unfinished", "current", "newer", "incompatible"]
"""How the schemas relate to this version. It can work on those of a newer version, until that finishes its changes."""


class RoleError(Exception):
    """A role is missing or lacks a right: one line for each, with the cure."""


class MigrationError(Exception):
    """The database can't be brought to this version; one line with the reason and the cure."""


def install(
    connection: _AnyConnection,
    catalogue: Mapping[str, object],
    report: _Report | None = None,
    *,
    online: bool = False,
    lock_timeout: str = "0",
) -> None:
    """Brings both schemas to this version in the connection's transaction; repeats nothing that was done before.

    `catalogue` is what a new database starts with, as `CatalogueFile.in_order()` has it. Where it is `online`, what
    `tocsin.migrate` does is left out. A table that stays locked for longer than `lock_timeout` raises
    LockNotAvailable. Role and settings of the session are put back at the end. Raises MigrationError or RoleError.
    """
    report = report or _ignore
    with installing(connection, lock_timeout):
        _create_migration(connection)
        lock(connection, report, lock_timeout)
        applied: dict[str, str] = dict(
            connection.execute(_QUERIES["applied_migrations"]).fetchall()
        )
        _apply_queue(connection, applied, report)
        _apply_migrations(connection, applied, report, online=online)
        for path in _function_files():
            _run(connection, path)
        functions = checksum(*_function_files())
        _record(connection, _FUNCTIONS, functions)
        _record(connection, _HAD_FUNCTIONS + functions, "")
        connection.execute(_QUERIES["reset_foreign_xids"])
        connection.execute(_QUERIES["refresh_default_decisions"])
        connection.execute(_QUERIES["apply_default_catalogue"], {"catalogue": Jsonb(catalogue)})


def uninstall(connection: _AnyConnection) -> None:
    """Drops both schemas with all that is in them, in the connection's transaction; the roles stay."""
    with installing(connection):
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
    newer, functions = _newer(applied), checksum(*_function_files())
    if any(name.endswith(AFTER) for name in newer):
        return "incompatible"
    if newer:
        return "newer"
    missing = {path.name for path in sql_files("migrations")} - applied.keys()
    queue = _newest_queue(applied)
    if (
        any(not name.endswith((CONCURRENT, AFTER)) for name in missing)
        or _HAD_FUNCTIONS + functions not in applied
        or queue is None
        or _numbers(queue) < _numbers(_queue_source()[0])
    ):
        return "behind"
    if applied[_FUNCTIONS] != functions:
        return "newer"
    return "unfinished" if missing else "current"


def other_processes(connection: _AnyConnection) -> list[str]:
    """Returns the running processes of another version."""
    try:
        own = version("tocsin")
    except PackageNotFoundError:  # a checkout on the path: then each is another one
        own = ""
    rows = connection.execute(_QUERIES["other_processes"], {"version": own})
    return [f"{kind} {pid} on {host} ({other})" for kind, host, pid, other in rows.fetchall()]


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
def installing(connection: _AnyConnection, lock_timeout: str = "0") -> Iterator[None]:
    """Sets what the files rely on, and puts back what was set before: the transaction may be a framework's."""
    before = connection.execute(_QUERIES["installation_settings"]).fetchall()
    connection.execute(_QUERIES["configure_installation"], {"lock_timeout": lock_timeout})
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


def lock(connection: _AnyConnection, report: _Report, lock_timeout: str = "0") -> None:
    """Waits for another migration to end, and reports which sessions it waits for."""
    reported = False
    while True:
        try:
            with connection.transaction():
                connection.execute("set local lock_timeout = '3s'")
                connection.execute(_QUERIES["lock_migration"])
            restored = {"name": "lock_timeout", "value": lock_timeout}
            connection.execute(_QUERIES["restore_setting"], restored)
        except psycopg.errors.LockNotAvailable:
            if not reported:
                for pid, role, program in connection.execute(_QUERIES["migration_blockers"]):
                    report(f"Waiting for session {pid} (role {role}, {program or 'no name'}).")
            reported = True
        else:
            return


def _apply_migrations(
    connection: _AnyConnection, applied: dict[str, str], report: _Report, *, online: bool
) -> None:
    if newer := _newer(applied):
        raise MigrationError(
            f"The database is newer than this Tocsin (it has {max(newer)}): install the newer version."
        )
    paths = sql_files("migrations")
    late = any(path.name.endswith(AFTER) and path.name not in applied for path in paths)
    later: tuple[str, ...] = ()
    if paths[0].name in applied and online:
        later = (CONCURRENT, AFTER)
    elif paths[0].name in applied and late and other_processes(connection):
        later = (AFTER,)
    for path in paths:
        if path.name not in applied and path.name.endswith(later):
            continue
        if path.name not in applied:
            report(f"Migrating: {path.stem}")
            _run(connection, path)
            _record(connection, path.name, checksum(path))
        elif applied[path.name] != checksum(path):
            raise MigrationError(
                f"{path.name} was edited after it was applied: put it back and write a new migration."
            )


def _newer(applied: dict[str, str]) -> list[str]:
    """Returns what a later version of Tocsin applied."""
    known = {_FUNCTIONS, *(path.name for path in sql_files("migrations"))}
    ours = (_QUEUE, _HAD_FUNCTIONS)
    return [name for name in applied if not name.startswith(ours) and name not in known]


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


def checksum(*paths: Path) -> str:
    """Returns the SHA-256 of files, as tocsin.migration has it."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def _record(connection: _AnyConnection, name: str, checksum: str) -> None:
    connection.execute(_QUERIES["record_migration"], {"name": name, "checksum": checksum})


def _run(connection: _AnyConnection, path: Path) -> None:
    """Runs a file; in a transaction, an index can't be built concurrently."""
    text = path.read_text(encoding="utf-8")
    if path.name.endswith(CONCURRENT):
        text = text.replace("index concurrently", "index")
    connection.execute(text)


def _numbers(version_text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version_text.split(".")[:3])


def catalogue(path: Path | None = None) -> dict[str, object]:
    """Returns the event types of a file (None: the default ones) for the database. Raises OSError or ValueError."""
    file = path or files("tocsin") / "event_types.toml"
    found = tomllib.loads(file.read_text(encoding="utf-8"))
    return {
        "categories": [
            {"category": name, "label": label}
            for name, label in found.get("categories", {}).items()
        ],
        "event_types": [
            {"event_type": name, **_complete(name, entry)}
            for name, entry in found["event_types"].items()
        ],
        "replace": found.get("replace", False),
    }


def _complete(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Returns an entry with its defaults. The database checks the values; keys are checked here."""
    keys = ["label", "channels", *_DEFAULTS]
    if unknown := entry.keys() - set(keys):
        raise ValueError(f"{name} has no key {min(unknown)!r}; the keys are {', '.join(keys)}")
    if missing := {"label", "channels"} - entry.keys():
        raise ValueError(f"{name} needs the key {min(missing)!r}")
    return {key: entry.get(key, _DEFAULTS.get(key)) for key in keys}
