"""Tocsin in SQLAlchemy and Alembic: people kept in step with a mapped class, and Tocsin's schemas left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import event

from tocsin.client import erase_recipient, upsert_recipient

SCHEMAS = {"tocsin", "tocsin_queue"}
FIELDS = {"email", "name", "locale", "timezone", "avatar_url"}

Source = str | Callable[[Any], Any]


def keep_recipients(model: Any, *, id: Source = "id", **fields: Source) -> None:  # noqa: A002
    """Keeps recipients in step with the rows of a mapped class, in the transaction of each flush.

    `fields` (email, name, locale, timezone, avatar_url) and `id` are the attributes of the class, or functions of its
    objects. A new or changed object upserts its recipient, a deleted one erases it. Raises TypeError for an unknown
    field or attribute. Bulk statements such as insert(model) change no objects: call upsert_recipient() for their
    rows, or use a trigger.
    """
    if unknown := fields.keys() - FIELDS:
        raise TypeError(f"no field {min(unknown)!r}; there are {', '.join(sorted(FIELDS))}")

    for source in (id, *fields.values()):
        if not callable(source) and not hasattr(model, source):
            raise TypeError(
                f"{model.__name__} has no attribute {source!r}: pass the name of one, or a function of its objects"
            )

    def upsert(_mapper: Any, connection: Any, target: Any) -> None:
        upsert_recipient(
            connection,
            _read(target, id),
            **{field: _read(target, source) for field, source in fields.items()},
        )

    def erase(_mapper: Any, connection: Any, target: Any) -> None:
        erase_recipient(connection, _read(target, id))

    event.listen(model, "after_insert", upsert, propagate=True)
    event.listen(model, "after_update", upsert, propagate=True)
    event.listen(model, "after_delete", erase, propagate=True)


def include_name(name: str | None, type_: str, parent_names: dict[str, Any]) -> bool:
    """For Alembic's `context.configure(include_name=include_name, …)`: autogenerate leaves Tocsin's schemas alone."""
    schema = name if type_ == "schema" else parent_names.get("schema_name")
    return schema not in SCHEMAS


def _read(target: Any, source: Source) -> Any:
    return source(target) if callable(source) else getattr(target, source)
