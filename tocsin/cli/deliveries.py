"""`tocsin deliveries`: what failed for good, and trying it anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from tocsin.cli.database import with_database


@click.group()
def deliveries() -> None:
    """The ledger: what failed for good."""


@deliveries.command(name="failed")
@click.option("--days", default=7, show_default=True, help="How far back.")
def deliveries_failed(days: int) -> None:
    """Count what failed for good, by channel and reason, and say what each means."""
    from tocsin.engine.explain.reasons import meaning_and_cure
    from tocsin.engine.store.delivery import dead_letter_reasons

    since = datetime.now(UTC) - timedelta(days=days)
    for each in with_database(lambda database: dead_letter_reasons(database, since)):
        meaning = meaning_and_cure(each.reason)[0]
        last = f"{each.last_at:%Y-%m-%d %H:%M}"
        click.echo(f"{each.n:>7}  {each.channel:<6} {each.reason:<28} last {last}  {meaning}")


@deliveries.command(name="replay")
@click.argument("delivery_ids", nargs=-1, type=int)
@click.option("--channel", help="Those of this channel.")
@click.option("--reason", help="Those with this reason.")
@click.option("--days", default=7, show_default=True, help="How far back.")
@click.option("--all", "every", is_flag=True, help="All of them, without a channel or a reason.")
@click.option(
    "--lift", is_flag=True, help="Also where this very failure closed the address or device."
)
def deliveries_replay(
    delivery_ids: tuple[int, ...],
    channel: str | None,
    reason: str | None,
    days: int,
    every: bool,
    lift: bool,
) -> None:
    """Try failed deliveries anew: DELIVERY_IDS, or those of a channel or reason."""
    from tocsin.engine.store.delivery import DeadFilter, replay, replay_all

    matching = bool(channel or reason or every)
    if bool(delivery_ids) == matching:
        raise click.UsageError("Name deliveries, or a --channel or --reason, or say --all.")
    wanted = DeadFilter(datetime.now(UTC) - timedelta(days=days), channel, reason)
    done = with_database(
        lambda database: (
            replay(database, delivery_ids, lift=lift)
            if delivery_ids
            else replay_all(database, wanted, lift=lift)
        )
    )
    kept = "".join(f", {n} stay ({cause})" for cause, n in sorted(done.kept.items()))
    click.echo(f"{done.replayed} due again{kept}.")
