"""What `manage.py check` finds: each with the cure. `--database default` looks into the database too."""

from __future__ import annotations

import tomllib
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
from tocsin.sql.install import catalogue

_TEXTS: dict[str, dict[str, str]] = tomllib.loads(
    Path(__file__).with_name("checks.toml").read_text("utf-8")
)
_CAN_CALL = load("django")["can_call"]


def register_all() -> None:
    """Registers the checks; Django asks for those of databases by `--database` and before `migrate`."""
    register(check_settings, "tocsin")
    register(check_database, Tags.database)


def check_settings(app_configs: Any = None, **_: Any) -> list[CheckMessage]:
    """Checks the setting TOCSIN, the engine and driver of the database, the user model and the event types."""
    if found := [_message("setting", fault=fault, cure=cure) for fault, cure in faults()]:
        return found
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
    if found in ("missing", "behind", "newer", "incompatible"):
        return [_message("newer" if found == "incompatible" else found)]
    with connection.cursor() as cursor:
        cursor.execute(_CAN_CALL)
        role, allowed = cursor.fetchone()
    return [] if allowed else [_message("right", role=role)]


def _check_engine() -> Iterator[CheckMessage]:
    alias = options().database
    if alias not in connections:
        yield _message("alias", alias=alias, known=", ".join(connections))
        return
    vendor = connections[alias].vendor
    if vendor != "postgresql":
        yield _message("vendor", alias=alias, vendor=vendor)
        return
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    if not is_psycopg3:
        yield _message("driver")


def _check_user() -> Iterator[CheckMessage]:
    try:
        model: Any = get_user_model()
    except ImproperlyConfigured as error:
        if options().sync_users:
            yield _message("user_model", error=error)
        return
    for name, mapped in options().user_map.items():
        first = mapped.split(".")[0] if isinstance(mapped, str) else "pk"
        if first == "pk" or hasattr(model, first):
            continue
        try:
            model._meta.get_field(first)
        except FieldDoesNotExist:
            model_name = model._meta.label
            yield _message("user_field", name=name, mapped=mapped, model=model_name, first=first)


def _check_event_types() -> Iterator[CheckMessage]:
    path = options().event_types
    if path is None:
        return
    try:
        catalogue(Path(path))
    except (OSError, ValueError, LookupError, AttributeError) as error:
        yield _message("event_types", error=error, path=path)


def _message(name: str, /, **values: object) -> CheckMessage:
    """Returns a message of checks.toml with these values."""
    row = _TEXTS[name]
    kind = Error if ".E" in row["id"] else Warning
    cure = row["cure"].format_map(values)
    return kind(row["fault"].format_map(values), hint=cure, id=row["id"])
