"""`tocsin notify`: an event for people or for the followers of a topic, and the progress of its fan-out."""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from tocsin.cli.services import find_dsn
from tocsin.sql import load

_INTERVAL = 0.2  # seconds between two readings of the progress
_STANDING = 3.0  # without progress for so long: is there a leader?
_LEADER_SILENT = timedelta(seconds=15)


@click.command(name="notify")
@click.argument("event_type", required=False)
@click.argument("recipients", nargs=-1)
@click.option("--topic", help="The followers of this topic, in place of RECIPIENTS.")
@click.option("--title", help="What happened, in one line.")
@click.option("--body", default="", help="The details, as plain text.")
@click.option("--action-url", help="The page that it opens: a path or an http(s) address.")
@click.option("--metadata", default="{}", help="A JSON object, for clients.")
@click.option("--initiator", help="The person who caused it, and is not notified of it.")
@click.option("--idempotency-key", help="The same key and content within a day is the same event.")
@click.option("--progress", is_flag=True, help="Show the fan-out until all are notified.")
@click.option("--event", "event_id", type=int, help="Show the fan-out of this event; creates none.")
def notify_command(
    event_type: str | None,
    recipients: tuple[str, ...],
    topic: str | None,
    progress: bool,
    event_id: int | None,
    **named: Any,
) -> None:
    """Notify RECIPIENTS, or the followers of a topic, of an event of EVENT_TYPE; prints the event's id.

    A topic with many followers is fanned out by the service after the call. Ctrl-C ends only what `--progress` shows.
    """
    from tocsin.engine.store.connection import connect

    _check_usage(event_type, recipients, topic, event_id, named["title"])
    named["metadata"] = _parse_metadata(named["metadata"])
    with connect(find_dsn(), autocommit=True) as connection:
        if event_id is None:
            event_id = _create(connection, recipients, topic, event_type=event_type, **named)
            click.echo(event_id)
            if not progress:
                return
        try:
            _Progress(connection, event_id).show()
        except KeyboardInterrupt:
            line = f"The fan-out goes on. To see it again: tocsin notify --event {event_id}"
            click.echo(f"\n{line}", err=True)
            sys.exit(130)


def _check_usage(
    event_type: str | None,
    recipients: tuple[str, ...],
    topic: str | None,
    event_id: int | None,
    title: str | None,
) -> None:
    if event_id is not None:
        if event_type or topic or title is not None:
            raise click.UsageError("--event shows an event that exists: give it alone.")
    elif not event_type or (topic is None) == (not recipients):
        raise click.UsageError("Give EVENT_TYPE, and either RECIPIENTS or --topic.")
    elif title is None:
        raise click.UsageError("Give --title.")


def _parse_metadata(metadata: str) -> object:
    try:
        return json.loads(metadata)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="--metadata") from error


def _create(connection: Any, recipients: tuple[str, ...], topic: str | None, **named: Any) -> int:
    from tocsin.client import notify, notify_topic

    if topic is not None:
        created: int = notify_topic(connection, topic=topic, **named)
    else:
        created = notify(connection, recipient=recipients, **named)
    return created


class _Progress:
    """Reads the progress of a fan-out until its end, and shows it on standard error."""

    def __init__(self, connection: Any, event_id: int) -> None:
        self._connection = connection
        self._event_id = event_id
        self._moved_at = time.monotonic()

    def show(self) -> None:
        """Returns at the end, and prints how many were notified."""
        state = self._read()
        if state.total is not None:
            self._follow(state)
            state = self._read()
        (notified,) = self._row("event", "count_notified", event_id=self._event_id)
        click.echo(self._summary(state, notified), err=True)

    def _follow(self, state: Any) -> None:
        shown = click.progressbar(length=state.total, file=sys.stderr)
        with shown if sys.stderr.isatty() else nullcontext() as bar:
            done = length = 0
            while state.total is not None:
                length = state.total
                if bar is not None:
                    bar.length = length
                    bar.update(state.fanned_out - done)
                self._warn_if_it_stands(state.fanned_out > done)
                done = state.fanned_out
                time.sleep(_INTERVAL)
                state = self._read()
            if bar is not None and state.fanned_out_at is not None:
                bar.update(length - done)

    def _warn_if_it_stands(self, moved: bool) -> None:
        now = time.monotonic()
        if moved:
            self._moved_at = now
        elif now - self._moved_at > _STANDING:
            self._moved_at = float("inf")  # once
            if not self._row("dispatch", "has_leader", within=_LEADER_SILENT)[0]:
                line = "No `tocsin worker` or `tocsin serve` runs: it goes on when one does."
                click.echo(f"\n{line}", err=True)

    def _read(self) -> Any:
        from psycopg.rows import namedtuple_row

        with self._connection.cursor(row_factory=namedtuple_row) as cursor:
            cursor.execute(load("event")["fan_out_progress"], {"event_id": self._event_id})
            state = cursor.fetchone()
        if state is None:
            raise click.BadParameter(f"there is no event {self._event_id}", param_hint="--event")
        return state

    def _row(self, queries: str, name: str, **arguments: Any) -> Any:
        return self._connection.execute(load(queries)[name], arguments).fetchone() or (None,)

    def _summary(self, state: Any, notified: int) -> str:
        people = "1 person" if notified == 1 else f"{notified:,} people"
        if state.cancelled_at is not None:
            return f"Event {self._event_id} was cancelled; {people} had been notified."
        if state.fanned_out_at is None:
            return f"Event {self._event_id} is fanned out {_when(state.send_at)}."
        return f"{people} notified."


def _when(send_at: datetime) -> str:
    return f"at {send_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


COMMANDS = (notify_command,)
