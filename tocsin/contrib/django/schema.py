"""Both schemas in Django's database: installed by the first migration, and brought up to date by each `migrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import mail
from django.core.management.base import CommandError
from django.db import DEFAULT_DB_ALIAS, connections, router, transaction
from django.db.migrations.recorder import MigrationRecorder
from psycopg.types.json import Jsonb

from tocsin.contrib.django.conf import options
from tocsin.sql import load
from tocsin.sql.install import (
    MigrationError,
    RoleError,
    State,
    catalogue,
    install,
    state,
    uninstall,
)

_SQL = load("django")
_CATALOGUE = load("migration")["apply_catalogue"]
_CHANNELS = load("testing")["make_channels_available"]
_FIRST = ("tocsin", "0001_initial")


def is_ours(connection: Any) -> bool:
    """Returns whether Tocsin's schemas are in this database, and no router of the project forbids it."""
    alias: str = connection.alias
    return alias == options().database and router.allow_migrate(alias, "tocsin")


def create(_apps: Any, schema_editor: Any) -> None:
    """Installs both schemas in the transaction of the first migration."""
    if is_ours(schema_editor.connection):
        _install(schema_editor.connection)


def drop(_apps: Any, schema_editor: Any) -> None:
    """Drops both schemas, with all notifications, when the first migration is reversed."""
    if is_ours(schema_editor.connection):
        uninstall(_psycopg(schema_editor.connection))


def state_of(connection: Any) -> State:
    """Returns how the schemas relate to the installed version of Tocsin."""
    connection.ensure_connection()
    return state(connection.connection)


def after_migrate(
    sender: AppConfig, using: str = DEFAULT_DB_ALIAS, verbosity: int = 1, **arguments: Any
) -> None:
    """Brings the schemas to the installed version after `migrate`; empties them after `flush`."""
    connection = connections[using]
    if not is_ours(connection) or not _is_migrated(connection):
        return
    if "plan" not in arguments:
        _flush(connection)
        return
    found = state_of(connection)
    if found in ("missing", "behind", "unfinished"):
        if verbosity > 0:
            print("  Installing Tocsin's schemas")
        with transaction.atomic(using=using):
            _install(connection)
    if found not in ("newer", "incompatible", "unreadable"):
        _configure(connection)


def _configure(connection: Any) -> None:
    """Applies the project's event types; in tests, also lets notify() decide as where workers have providers."""
    with connection.cursor() as cursor:
        if path := options().event_types:
            cursor.execute(_CATALOGUE, {"catalogue": Jsonb(catalogue(Path(path)))})
        if hasattr(mail, "outbox"):  # Django's documented sign of a test
            cursor.execute(_CHANNELS, {"channels": ["email", "push"]})


def _install(connection: Any) -> None:
    try:
        install(_psycopg(connection), catalogue())
    except (MigrationError, RoleError) as error:
        raise CommandError(str(error)) from error


def _psycopg(connection: Any) -> Any:
    """Returns the connection below Django's, in a transaction that has begun."""
    with connection.cursor() as cursor:
        cursor.execute("select")
    return connection.connection


def _is_migrated(connection: Any) -> bool:
    """Returns whether the app's first migration is applied, or Django creates tables without migrations (in tests)."""
    modules = settings.MIGRATION_MODULES
    if "tocsin" in modules and modules["tocsin"] is None:
        return True
    return _FIRST in MigrationRecorder(connection).applied_migrations()


def _flush(connection: Any) -> None:
    """Removes people and notifications; event types, keys and settings of the installation stay."""
    if state_of(connection) == "current":
        with connection.cursor() as cursor:
            cursor.execute(_SQL["flush"])
