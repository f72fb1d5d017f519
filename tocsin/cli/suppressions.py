"""The commands on addresses that must not be mailed."""

from __future__ import annotations

import click

from tocsin.cli.services import with_database

_MOST = 1_000


@click.group()
def suppressions() -> None:
    """List addresses that must not be mailed, or allow one again."""


@suppressions.command(name="list")
@click.option("--reason", help="Only those with this reason.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, _MOST))
@click.option("--unmasked", is_flag=True, help="Show the addresses in full.")
def list_command(reason: str | None, limit: int, unmasked: bool) -> None:
    """List the newest suppressed addresses, masked, with the reason of each."""
    from tocsin.engine.explain.reasons import meaning_and_cure
    from tocsin.engine.explain.why import mask
    from tocsin.engine.store.suppression import list_suppressions

    page = with_database(
        lambda database: list_suppressions(database, reason, cursor=None, limit=limit)
    )
    if not page.results:
        click.echo("No address is suppressed.", err=True)
    for each in page.results:
        shown = each.address and (each.address if unmasked else mask(each.address))
        meaning, _ = meaning_and_cure(each.reason)
        day = f"{each.created_at:%Y-%m-%d %H:%M}"
        click.echo(f"{day}  {shown or '(erased)':<40} {each.reason:<20} {meaning}".rstrip())
    if page.next is not None:
        click.echo(f"There are more: --limit {min(_MOST, 4 * limit)} lists more of them.", err=True)


@suppressions.command()
@click.argument("address")
def lift(address: str) -> None:
    """Allow mail to ADDRESS again, whatever the reason of its suppression."""
    from tocsin.engine.store.suppression import lift as lift_suppression

    reason = with_database(lambda database: lift_suppression(database, address))
    click.echo(f"{address} may be mailed again (it was suppressed: {reason}).")


COMMANDS = (suppressions,)
