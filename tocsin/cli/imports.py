"""`tocsin import`: notifications of an earlier inbox, with their time and read state; nothing is sent."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import psycopg
from psycopg.types.json import Jsonb

from tocsin.cli.services import find_dsn
from tocsin.sql import load

if TYPE_CHECKING:
    from tocsin.cli.import_sources import ImportSource, Row

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
    from tocsin.cli.import_sources import CsvFile

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
    from tocsin.cli.import_sources import DjangoNotifications

    named = dict(each.rpartition("=")[::2] for each in verbs)
    if "" in named:
        raise click.BadParameter("not VERB=TYPE", param_hint="--verb")
    if not named and event_type is None:
        raise click.UsageError("Give --event-type, or --verb for each verb.")
    _run(DjangoNotifications(dsn or find_dsn(), table, event_type, named), **options)


def _run(source: ImportSource, *, dry_run: bool, batch: int, create_recipients: bool) -> None:
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


COMMANDS = (import_group,)
