"""The commands that run services, and those that set up the database and show how to reach it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeVar

import click

from tocsin.settings import Settings, SettingsError, read_settings
from tocsin.settings.running_instance import check_port, with_running_instance

if TYPE_CHECKING:
    from tocsin.engine.model import Channel

T = TypeVar("T")
_MOST_EVENTS = 20


@click.command()
def up() -> None:
    """Run everything: PostgreSQL, HTTP, a worker, and catchers of mail and push."""
    import asyncio

    from tocsin.dev.up import up as run_up

    sys.exit(asyncio.run(run_up(read_settings())))


@click.command(hidden=True)
def reset() -> None:
    """Remove what `make up` stored: database, mails, pushes, secrets."""
    from tocsin.dev.up import reset as run_reset

    data_dir = read_settings().data_dir
    run_reset(data_dir)
    click.echo(f"{data_dir} is reset.")


@click.command()
@click.option("--dev", is_flag=True, hidden=True, help="Serve /dev/ too (`tocsin up`).")
def serve(dev: bool) -> None:
    """Serve HTTP: REST, the badge stream, the pages."""
    gc.disable()  # until the server is made: there is no garbage yet, and a start takes a seventh less

    import asyncio

    from tocsin.engine.store.health import check_start, run_service
    from tocsin.http.app import serve as run_server

    settings = _set_up_service()
    development_key = _development_key(settings) if dev else None
    if settings.replica_url is not None and settings.max_connections == 3:
        raise SettingsError(
            "TOCSIN_MAX_CONNECTIONS is 3, and with TOCSIN_REPLICA_URL serve needs 4: raise it, or leave one out."
        )
    if settings.public_url is None:
        raise SettingsError(
            "TOCSIN_PUBLIC_URL is not set: the address under which people reach this service, such as https://notify.example.com."
        )
    if not settings.jwt_algorithms:
        raise SettingsError(
            "No JWT key is set: TOCSIN_JWT_SECRET, TOCSIN_JWT_PUBLIC_KEY or TOCSIN_JWKS_URL of the host app."
        )
    check_port(settings)
    asyncio.run(
        check_start(database_url(settings), settings.pooler_url, wait=settings.database_wait)
    )
    extra_routes = _dev_routes() if dev else ()
    start = partial(
        run_server, settings, extra_routes=extra_routes, development_key=development_key
    )
    _run(run_service(start, wait=settings.database_wait))


def _development_key(settings: Settings) -> str:
    """Returns the key of `tocsin up`'s own tokens; raises SettingsError where others could reach the service."""
    from tocsin.settings.running_instance import DEVELOPMENT_KEY, check_bind, keep_secrets

    check_bind(settings)
    return keep_secrets(settings.data_dir, DEVELOPMENT_KEY)[DEVELOPMENT_KEY]


def _dev_routes() -> Sequence[Any]:
    from tocsin.dev.pages.demo import dev_routes

    return dev_routes()


@click.command()
@click.option(
    "--channels",
    default="",
    metavar="NAMES",
    help="Deliver only by these channels, such as email,push. Other workers have to deliver by the rest.",
)
def worker(channels: str) -> None:
    """Run the worker, which delivers by all channels."""
    from tocsin.engine.jobs import run_worker

    wanted = _read_channels(channels)
    _set_up_service()
    _collect_less()
    _run(run_worker(wanted))


def _read_channels(names: str) -> list[Channel]:
    """Returns the channels of a list with commas; raises BadParameter for what a worker does not deliver by."""
    from tocsin.engine.model import Channel

    known = [each.value for each in Channel if each is not Channel.IN_APP]
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if wrong := [name for name in wanted if name not in known]:
        raise click.BadParameter(
            f"there is no channel {wrong[0]!r} to deliver by; there are {', '.join(known)}",
            param_hint="--channels",
        )
    return [Channel(name) for name in wanted]


def _run(service: Coroutine[Any, Any, None]) -> None:
    """Runs it on uvloop where that is installed: about half as fast again as asyncio's own loop."""
    try:
        from uvloop import run
    except ImportError:
        import asyncio

        asyncio.run(service)
    else:
        run(service)


def _collect_less() -> None:
    """Excludes imported modules from garbage collection and runs it less often: a worker makes few cycles."""
    gc.freeze()
    gc.set_threshold(10_000)


def _set_up_service() -> Settings:
    """Returns the settings of a service, after its logs were set up."""
    from tocsin.dev.supervisor import stop_with_parent
    from tocsin.logs import configure_logs

    stop_with_parent()
    settings = find_settings()
    configure_logs(settings)
    for name in settings.unknown:
        click.echo(f"tocsin: {name} is no setting; see docs/settings.md", err=True)
    return settings


@click.command()
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    help="For how many seconds to try again while sessions keep tables locked.",
)
def migrate(wait: float) -> None:
    """Bring the database to this version's schema."""
    from tocsin.migrate import migrate as run_migrations

    run_migrations(find_dsn(), click.echo, wait=wait)
    click.echo("The database is up to date.")


@click.command()
def seed() -> None:
    """Add demo people, their phones and notifications."""
    from tocsin.dev.seed import seed as run_seed

    # a real provider must not get the tokens of demo phones
    embedded = read_settings().database_url is None
    click.echo(run_seed(find_dsn(), again=True, phones=embedded))


@click.command()
@click.argument("recipient")
def token(recipient: str) -> None:
    """Print a JWT for RECIPIENT that is valid for a day, to try things out."""
    from tocsin.settings.running_instance import development_key, sign_token

    if not 1 <= len(recipient) <= 200:
        raise click.BadParameter("an id has 1 to 200 characters", param_hint="RECIPIENT")
    settings = find_settings()
    # a running `tocsin up` accepts its own tokens, whatever key the host app signs with
    configured = read_settings().jwt_secret is not None
    key = None if configured else development_key(settings.data_dir)
    click.echo(sign_token(settings, recipient, development_key=key))


@click.command()
@click.option(
    "--role",
    type=click.Choice(["owner", "app", "service"]),
    default="owner",
    help="The role of the login.",
)
def dsn(role: Literal["owner", "app", "service"]) -> None:
    """Print a DSN of the owner, or of a login that is granted tocsin_app or tocsin_service."""
    from tocsin.migrate import login_dsn

    click.echo(
        find_dsn() if role == "owner" else login_dsn(find_dsn(), find_settings().data_dir, role)
    )


def find_settings() -> Settings:
    """Returns the settings; those that are missing are taken from a running `tocsin up` of this data directory."""
    return with_running_instance(read_settings())


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


def find_dsn() -> str:
    """Returns the database's DSN; raises SettingsError where there is none."""
    return database_url(find_settings())


def database_url(settings: Settings) -> str:
    """Returns the database's DSN in these settings; raises SettingsError where there is none."""
    if settings.database_url is None:
        raise SettingsError(
            "TOCSIN_DATABASE_URL is not set, and no `tocsin up` runs with the data directory "
            f"{settings.data_dir}: set it, or start `make up`."
        )
    return settings.database_url


def with_database(use: Callable[[Any], Awaitable[T]]) -> T:
    """Returns the result of `use`, with a pool of one connection; raises Unavailable within 5 s."""
    import asyncio

    from tocsin.engine.model import Unavailable
    from tocsin.engine.store.connection import probe
    from tocsin.engine.store.database import Database

    async def run() -> T:
        if reason := await probe(find_dsn(), within=3.0):
            raise Unavailable(reason)
        database = Database(find_dsn(), max_size=1)
        await database.open()
        try:
            return await use(database)
        finally:
            await database.close()

    return asyncio.run(run())


COMMANDS = (up, reset, serve, worker, migrate, restored, seed, token, dsn)
