"""Where notifications are imported from: a CSV file, and the table of django-notifications."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Protocol

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from tocsin.engine.store.connection import connect
from tocsin.sql import load

_QUERIES = load("import")

REQUIRED = ("key", "recipient", "event_type", "title", "created_at")
OPTIONAL = ("body", "action_url", "metadata", "initiator", "read_at")


class ImportFault(Exception):
    """Nothing can be imported from this source; one line with the cure."""


@dataclass(frozen=True)
class Row:
    """One notification as the database takes it, or the fault for which it can't."""

    place: str  # for people: "line 12"
    entry: dict[str, object] = field(default_factory=dict)
    fault: str | None = None


class ImportSource(Protocol):
    """What can be imported: its name in tocsin.imported, how long it is in steps of progress, and its rows."""

    @property
    def name(self) -> str: ...

    def length(self) -> int: ...

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Yields each row with the progress since the one before."""


@dataclass(frozen=True)
class CsvFile:
    """A CSV file in UTF-8 whose first line names the columns; progress is in bytes."""

    path: Path
    name: str

    def length(self) -> int:
        return self.path.stat().st_size

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Raises ImportFault where the file can't be read, or lacks a column."""
        with (
            self.path.open("rb") as binary,
            TextIOWrapper(binary, encoding="utf-8-sig", newline="") as file,
        ):
            reader = csv.DictReader(file, strict=True, restkey="", restval=None)
            at = 0
            try:
                _check_columns(reader.fieldnames or [])
                for found in reader:
                    now = binary.tell()
                    yield now - at, _csv_row(f"line {reader.line_num}", found)
                    at = now
            except (UnicodeDecodeError, csv.Error) as error:
                reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
                fault = f"{self.path}, after line {reader.line_num}: {reason}"
                raise ImportFault(fault) from error


@dataclass(frozen=True)
class DjangoNotifications:
    """The table of django-notifications, read on a connection of its own in the order of its ids."""

    dsn: str
    table: str
    event_type: str | None  # of all verbs that are not named
    verbs: Mapping[str, str]  # {verb: event type}
    name: str = "django-notifications"

    def length(self) -> int:
        with connect(self.dsn) as connection:
            row = connection.execute(_QUERIES["find_table"], {"name": self._name()}).fetchone()
            if row == (None,):
                raise ImportFault(
                    f"There is no table {self._name()}: name it with --table, or its database with --dsn."
                )
            counted = connection.execute(self._query("count_django_notifications")).fetchone()
        return int(counted[0]) if counted else 0

    def rows(self) -> Iterator[tuple[int, Row]]:
        with connect(self.dsn) as connection:
            names = _names(connection)
            with connection.cursor("import", row_factory=dict_row) as cursor:
                cursor.itersize = 1000
                cursor.execute(self._query("django_notifications"))
                for found in cursor:
                    yield 1, self._row(found, names)

    def _name(self) -> str:
        schema, _, table = self.table.rpartition(".")
        return f'"{schema or "public"}"."{table}"'

    def _query(self, name: str) -> sql.Composed:
        schema, _, table = self.table.rpartition(".")
        return sql.SQL(_QUERIES[name]).format(
            table=sql.Identifier(schema or "public", table),
            content_type=sql.Identifier(schema or "public", "django_content_type"),
        )

    def _row(self, found: dict[str, Any], names: Mapping[str, str]) -> Row:
        place = f"id {found['id']}"
        event_type = self.verbs.get(found["verb"], self.event_type)
        if event_type is None:
            fault = f"no event type for the verb {found['verb']!r:.60}; give --verb or --event-type"
            return Row(place, fault=fault)
        data = _json(found["data"])
        url = data.get("action_url") or data.get("url") if isinstance(data, dict) else None
        actor, verb = names.get(found["initiator"] or ""), " ".join(found["verb"].split())
        title = f"{actor} {verb}" if actor else verb[:1].upper() + verb[1:]
        return Row(
            place,
            {
                "key": str(found["id"]),
                "recipient": str(found["recipient_id"]),
                "event_type": event_type,
                "title": title[:500],
                "body": found["description"],
                "action_url": url if isinstance(url, str) else None,
                "metadata": {"django_notifications": _without_none(found["objects"], data=data)},
                "initiator": found["initiator"],
                "created_at": found["timestamp"].isoformat(),
                # when it was read is not stored there
                "read_at": None if found["unread"] else found["timestamp"].isoformat(),
            },
        )


def _names(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """Returns the names of all recipients by their ids, where Tocsin is in the same database."""
    row = connection.execute(_QUERIES["find_table"], {"name": "tocsin.recipient"}).fetchone()
    if row == (None,):
        return {}
    return dict(connection.execute(_QUERIES["names"]).fetchall())


def _check_columns(names: Any) -> None:
    known = (*REQUIRED, *OPTIONAL)
    if missing := [name for name in REQUIRED if name not in names]:
        raise ImportFault(
            f"The first line has no column {missing[0]}: it names the columns, {', '.join(REQUIRED)} and "
            f"where wanted {', '.join(OPTIONAL)}."
        )
    if unknown := [name for name in names if name not in known]:
        raise ImportFault(f"There is no column {unknown[0]!r}; the columns are {', '.join(known)}.")


def _csv_row(place: str, found: dict[str, Any]) -> Row:
    if found.pop("", None) is not None:
        return Row(place, fault="it has more fields than the first line; put commas into quotes")
    entry: dict[str, object] = {name: value for name, value in found.items() if value}
    for name in REQUIRED:
        if name not in entry:
            return Row(place, fault=f"{name} is empty")
    for name in ("created_at", "read_at"):
        if name in entry:
            try:
                entry[name] = _moment(str(entry[name]))
            except ValueError:
                fault = f"{name} {entry[name]!r:.60} is no time such as 2026-11-21T09:30:00Z"
                return Row(place, fault=fault)
    if "metadata" in entry:
        entry["metadata"] = _json(str(entry["metadata"]))
    return Row(place, entry)


def _moment(text: str) -> str:
    """Returns a time in ISO 8601; without a zone it is UTC."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def _json(text: str | None) -> object:
    """Returns the value of a JSON text; another text as it is."""
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


def _without_none(objects: Mapping[str, Any], **more: object) -> dict[str, object]:
    return {name: value for name, value in {**objects, **more}.items() if value is not None}
