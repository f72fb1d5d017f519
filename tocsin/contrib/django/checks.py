"""What `manage.py check` finds: each with the cure. `--database default` looks into the database too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured
from django.db import connections

from tocsin.contrib.django.conf import faults, options
from tocsin.contrib.django.schema import is_ours, state_of
from tocsin.sql import load
from tocsin.sql.catalogue import catalogue

_CAN_CALL = load("django")["can_call"]


def register_all() -> None:
    """Registers the checks; Django asks for those of databases by `--database` and before `migrate`."""
    register(check_settings, "tocsin")
    register(check_database, Tags.database)


def check_settings(app_configs: Any = None, **_: Any) -> list[CheckMessage]:
    """Checks the setting TOCSIN, the engine and driver of the database, the user model and the event types."""
    if found := [Error(fault, hint=cure, id="tocsin.E001") for fault, cure in faults()]:
        return list(found)
    return [*_check_engine(), *_check_user(), *_check_event_types()]


def check_database(
    app_configs: Any = None, databases: Sequence[str] | None = None, **_: Any
) -> list[CheckMessage]:
    """Checks the schemas and the rights in the database."""
    alias = options().database
    if alias not in (databases or ()) or check_settings():
        return []
    connection = connections[alias]
    if not is_ours(connection):
        return []
    found = state_of(connection)
    if found in ("missing", "behind"):
        words = "not there" if found == "missing" else "behind the installed version"
        return [
            Warning(
                f"Tocsin's schemas are {words}.", hint="Run manage.py migrate.", id="tocsin.W010"
            )
        ]
    if found == "newer":
        fault = "Tocsin's schemas are newer than the installed version."
        return [
            Warning(
                fault, hint="Install the newer version: pip install -U tocsin.", id="tocsin.W011"
            )
        ]
    with connection.cursor() as cursor:
        cursor.execute(_CAN_CALL)
        role, allowed = cursor.fetchone()
    if allowed:
        return []
    cure = f'Run as the owner of the schema: grant tocsin_app to "{role}";'
    return [Error(f"The role {role} may not call Tocsin.", hint=cure, id="tocsin.E012")]


def _check_engine() -> Iterator[CheckMessage]:
    alias = options().database
    if alias not in connections:
        known = ", ".join(connections)
        yield Error(
            f'TOCSIN["DATABASE"] is {alias!r}, which DATABASES does not have.',
            hint=f"Name one of {known}.",
            id="tocsin.E002",
        )
        return
    vendor = connections[alias].vendor
    if vendor != "postgresql":
        yield Error(
            f"The database {alias!r} is {vendor}; Tocsin's schemas need PostgreSQL.",
            hint='Use "ENGINE": "django.db.backends.postgresql", or name another alias in TOCSIN["DATABASE"].',
            id="tocsin.E003",
        )
        return
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    if not is_psycopg3:
        yield Error(
            "Django uses psycopg2; Tocsin needs psycopg 3.",
            hint='pip install "psycopg[binary]>=3.3", which Django prefers where both are installed.',
            id="tocsin.E004",
        )


def _check_user() -> Iterator[CheckMessage]:
    try:
        model: Any = get_user_model()
    except ImproperlyConfigured as error:
        if options().sync_users:
            cure = 'Install "django.contrib.auth", or set "SYNC_USERS": False in TOCSIN.'
            yield Error(f"There is no user model: {error}", hint=cure, id="tocsin.E005")
        return
    for name, mapped in options().user_map.items():
        first = mapped.split(".")[0] if isinstance(mapped, str) else "pk"
        if first == "pk" or hasattr(model, first):
            continue
        try:
            model._meta.get_field(first)
        except FieldDoesNotExist:
            yield Error(
                f'TOCSIN["USER"]["{name}"] is {mapped!r}, and {model._meta.label} has no {first!r}.',
                hint="Name a field, a property or a method of the user model, or pass a function of the user.",
                id="tocsin.E005",
            )


def _check_event_types() -> Iterator[CheckMessage]:
    path = options().event_types
    if path is None:
        return
    try:
        catalogue(Path(path))
    except (OSError, ValueError, LookupError, AttributeError) as error:
        yield Error(
            f'TOCSIN["EVENT_TYPES"] can\'t be read: {error}',
            hint=f"Correct {path}: docs/event-types.md has the keys.",
            id="tocsin.E006",
        )
