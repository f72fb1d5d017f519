"""`tocsin restored`: what to run between a restore of the database and the start of the services."""

from __future__ import annotations

from typing import TextIO

import click

from tocsin.cli.services import find_dsn

_MOST_EVENTS = 20


@click.command()
@click.option(
    "--log",
    "logs",
    type=click.File("r", errors="replace"),
    multiple=True,
    help="A log of workers, or of the mail server, since the backup; - is standard input. May be repeated.",
)
@click.option(
    "--hold", is_flag=True, help="Do not send what may have been sent; a replay sends it later."
)
def restored(logs: tuple[TextIO, ...], hold: bool) -> None:
    """Settle what was sent after the backup that the database was restored from, before services start.

    Run it as the owner of the schemas, after `tocsin migrate`.
    """
    from tocsin.engine.ops.restored import settle_restored

    found = settle_restored(find_dsn(), logs, hold=hold)
    click.echo(f"Shown as sent by the logs, and settled: {_counts(found.settled)}.")
    if hold:
        click.echo(
            f"Held, with the reason restored: {_counts(found.held)}. "
            "`tocsin deliveries replay --reason restored` sends them."
        )
    click.echo(f"Due, and sent when a worker starts: {_counts(found.unknown)}.")
    if found.events:
        ids = ", ".join(map(str, found.events[:_MOST_EVENTS]))
        more = ", …" if len(found.events) > _MOST_EVENTS else ""
        click.echo(
            f"Scheduled events that are due, and sent when a worker starts: {len(found.events)} ({ids}{more}). "
            "`select tocsin.cancel(id)` stops one."
        )
    if found.digests:
        click.echo(
            f"People whose digest is due, and is made when a worker starts: {found.digests}."
        )
    click.echo("Ids continue 1,000,000 later, so that none of what was lost is used again.")


def _counts(by_channel: dict[str, int]) -> str:
    return ", ".join(f"{n} {channel}" for channel, n in by_channel.items()) or "none"
