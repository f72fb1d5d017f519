"""`tocsin import`: notifications of an earlier inbox, with their time and read state; nothing is sent.

The sources are a CSV file, and the table of django-notifications.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tocsin.cli.services import find_dsn
from tocsin.sql import load

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

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


@dataclass(frozen=True)
class CsvFile:
    """A CSV file in UTF-8 whose first line names the columns; `rows` yields each with the progress in bytes."""

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
    """The table of django-notifications, read on a connection of its own in the order of its ids, row by row."""

    dsn: str
    table: str
    event_type: str | None  # of all verbs that are not named
    verbs: Mapping[str, str]  # {verb: event type}
    name: str = "django-notifications"

    def length(self) -> int:
        from tocsin.engine.store.connection import connect

        with connect(self.dsn) as connection:
            row = connection.execute(
                load("import")["find_table"], {"name": self._name()}
            ).fetchone()
            if row == (None,):
                raise ImportFault(
                    f"There is no table {self._name()}: name it with --table, or its database with --dsn."
                )
            counted = connection.execute(self._query("count_django_notifications")).fetchone()
        return int(counted[0]) if counted else 0

    def rows(self) -> Iterator[tuple[int, Row]]:
        from psycopg.rows import dict_row

        from tocsin.engine.store.connection import connect

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
        from psycopg import sql

        schema, _, table = self.table.rpartition(".")
        return sql.SQL(load("import")[name]).format(
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
    row = connection.execute(load("import")["find_table"], {"name": "tocsin.recipient"}).fetchone()
    if row == (None,):
        return {}
    return dict(connection.execute(load("import")["names"]).fetchall())


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


_SHOWN = 20  # faults


@click.group(name="import")
def import_group() -> None:
    """Import notifications of an earlier inbox. Nothing is sent; what was imported before is left out."""


_COMMON = (
    click.option("--dry-run", is_flag=True, help="Check everything and count, and keep nothing."),
    click.option("--batch", default=1000, show_default=True, help="Rows in a transaction."),
    click.option(
        "--create-recipients",
        is_flag=True,
        help="Create people that are not known, by their ids alone.",
    ),
)


def _common(command: Any) -> Any:
    for option in reversed(_COMMON):
        command = option(command)
    return command


@import_group.command(name="csv")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--source", help="A name for the keys of this file; by default the file's name.")
@_common
def import_csv(file: Path, source: str | None, **options: Any) -> None:
    """Import a CSV FILE with the columns key, recipient, event_type, title, created_at, and more (docs/guides)."""
    _run(CsvFile(file, source or file.name), **options)


@import_group.command(name="django-notifications")
@click.option("--event-type", help="The event type of all verbs that --verb does not name.")
@click.option(
    "--verb",
    "verbs",
    multiple=True,
    metavar="VERB=TYPE",
    help="The event type of one verb; may be repeated.",
)
@click.option("--dsn", help="The database of the table; by default the one that Tocsin is in.")
@click.option("--table", default="notifications_notification", show_default=True)
@_common
def import_django_notifications(
    event_type: str | None, verbs: tuple[str, ...], dsn: str | None, table: str, **options: Any
) -> None:
    """Import the table of django-notifications; those that were deleted there are left out."""
    named = dict(each.rpartition("=")[::2] for each in verbs)
    if "" in named:
        raise click.BadParameter("not VERB=TYPE", param_hint="--verb")
    if not named and event_type is None:
        raise click.UsageError("Give --event-type, or --verb for each verb.")
    _run(DjangoNotifications(dsn or find_dsn(), table, event_type, named), **options)


def _run(
    source: CsvFile | DjangoNotifications, *, dry_run: bool, batch: int, create_recipients: bool
) -> None:
    """Imports batch by batch, each in a transaction; prints faults and counts, and exits with 1 if there are faults."""

    from tocsin.engine.store.connection import connect

    done = _Counts()
    with connect(find_dsn(), autocommit=True) as connection:
        bar = click.progressbar(length=source.length(), file=sys.stderr)
        with bar if sys.stderr.isatty() else nullcontext() as shown:
            rows = source.rows()
            while taken := list(islice(rows, max(batch, 1))):
                with connection.transaction(force_rollback=dry_run):
                    done.add(connection, source.name, [row for _, row in taken], create_recipients)
                if shown is not None:
                    shown.update(sum(step for step, _ in taken))
    for line in done.lines(dry_run):
        click.echo(line, err=line is not done.summary)
    if done.refused:
        sys.exit(1)


class _Counts:
    """What became of the rows so far."""

    def __init__(self) -> None:
        self.imported = self.known = 0
        self.refused: list[str] = []
        self.summary = ""

    def add(self, connection: Any, source: str, rows: list[Row], create_recipients: bool) -> None:
        """Imports one batch."""
        import psycopg
        from psycopg.types.json import Jsonb

        good = [row for row in rows if row.fault is None]
        self.refused += [f"{row.place}: {row.fault}" for row in rows if row.fault is not None]
        arguments = {
            "source": source,
            "rows": Jsonb([row.entry for row in good]),
            "create_recipients": create_recipients,
        }
        try:
            with connection.transaction():
                row = connection.execute(load("import")["import_notifications"], arguments)
                imported, known, faults = row.fetchone()
        except psycopg.DataError as error:  # such as \x00, which no text of PostgreSQL may have
            if len(good) > 1:
                for each in good:
                    self.add(connection, source, [each], create_recipients)
            else:
                self.refused.append(f"{good[0].place}: {error.diag.message_primary or error}")
            return
        self.imported += imported
        self.known += known
        self.refused += [f"{good[position - 1].place}: {fault}" for position, fault in faults]

    def lines(self, dry_run: bool) -> Iterator[str]:
        """Yields the first faults, and the counts."""
        yield from self.refused[:_SHOWN]
        if len(self.refused) > _SHOWN:
            yield f"and {len(self.refused) - _SHOWN} more."
        word = "would be imported" if dry_run else "imported"
        self.summary = f"{self.imported} {word}, {self.known} were imported before, {len(self.refused)} refused."
        yield self.summary
