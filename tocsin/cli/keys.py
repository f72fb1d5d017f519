"""`tocsin api-key`: the keys of apps and operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tocsin.cli.database import with_database

if TYPE_CHECKING:
    from tocsin.engine.store.credential import ApiKey

_STANDARD = ("events:write", "events:read", "recipients", "erase", "channels", "suppressions")


@click.group(name="api-key")
def api_key() -> None:
    """Keys for apps that notify over HTTP, and for operators."""


@api_key.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="SCOPE",
    help=f"What it may do; several times for several. One of {', '.join(_STANDARD)} (by default all of these), "
    "mail-events, ops.",
)
@click.option(
    "--event-types",
    "event_types",
    multiple=True,
    metavar="PATTERN",
    help="Only events of these types: forum.new_reply or 'forum.*'; several times for several.",
)
def create(name: str, scopes: tuple[str, ...], event_types: tuple[str, ...]) -> None:
    """Make a key called NAME; it is shown this once.

    A second key of the same NAME is live beside the first, so that one can replace the other without a gap.
    """
    from tocsin.engine.store.credential import APP_SCOPES, create_api_key

    _, key = with_database(
        lambda database: create_api_key(
            database, name, scopes=scopes or APP_SCOPES, event_types=event_types
        )
    )
    click.echo("Keep it now: only its hash is stored.", err=True)
    click.echo(key)


@api_key.command(name="list")
def list_keys() -> None:
    """List all keys, revoked ones too."""
    from tocsin.engine.store.credential import list_api_keys

    keys = with_database(list_api_keys)
    if not keys:
        click.echo("There are no keys yet: `tocsin api-key create NAME` makes one.", err=True)
    for key in keys:
        click.echo(_line(key))


@api_key.command()
@click.argument("key")
def revoke(key: str) -> None:
    """End at once: the one key of this id or first characters (tocsin_…), or all keys of this name."""
    from tocsin.engine.store.credential import revoke_api_keys

    for each in with_database(lambda database: revoke_api_keys(database, key)):
        click.echo(f"Revoked {each.id} ({each.name}).")


def _line(key: ApiKey) -> str:
    from tocsin.engine.store.credential import SCOPES

    used = f"last used {key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never used"
    state = f"revoked {key.revoked_at:%Y-%m-%d}" if key.revoked_at else used
    scopes = ",".join(each for each in SCOPES if each in key.scopes)
    limit = f" for {','.join(key.event_types)}" if key.event_types else ""
    first = f"{key.prefix}…" if key.prefix else "tocsin_…"
    return f"{key.id:>4}  {key.name:<24} {first:<14}  made {key.created_at:%Y-%m-%d}  {state:<26}  {scopes}{limit}"
