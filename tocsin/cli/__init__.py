"""The commands of `tocsin`; the only place that wires things together."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

import click
import psycopg

from tocsin.cli.database import database_url as _database_url
from tocsin.cli.database import dsn as _dsn
from tocsin.cli.database import settings as _settings
from tocsin.cli.database import with_database as _with_database
from tocsin.cli.deliveries import deliveries
from tocsin.cli.keys import api_key
from tocsin.cli.templates import templates
from tocsin.dev.supervisor import parent_fd, stop_with_parent
from tocsin.settings import Settings, SettingsError, read_settings


class _Commands(click.Group):
    """Says what went wrong in one line, and what to do about it."""

    def invoke(self, ctx: click.Context) -> Any:
        from tocsin.client import NotifyError
        from tocsin.dev.embedded_postgres import PostgresError
        from tocsin.engine.mail.loader import TemplateFailed, TemplatesError
        from tocsin.engine.model import Conflict, Invalid, NotFound, Unavailable
        from tocsin.engine.store.health import NotReady
        from tocsin.event_types import CatalogueError
        from tocsin.migrate import MigrationError, RoleError
        from tocsin.settings.running_instance import SecretFileError

        try:
            return super().invoke(ctx)
        except (
            SettingsError,
            CatalogueError,
            MigrationError,
            PostgresError,
            RoleError,
            SecretFileError,
            NotFound,
            NotReady,
            Conflict,
        ) as error:
            _fail(str(error))
        except (TemplateFailed, TemplatesError) as error:
            _fail(str(error), prefix="")
        except Invalid as error:
            _fail("; ".join(cure for _, cure in error.fields) or str(error))
        except NotifyError as error:
            _fail(str(error))
        except (Unavailable, psycopg.OperationalError) as error:
            _fail(f"TOCSIN_DATABASE_URL can't be reached: {' '.join(str(error).split())}")
        except psycopg.Error as error:
            _fail(
                f"{error.diag.message_primary or error}. {error.diag.message_hint or ''}".rstrip()
            )


def _fail(line: str, *, prefix: str = "tocsin: ") -> NoReturn:
    click.echo(f"{prefix}{line}", err=True)
    sys.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tocsin")
def main() -> None:
    """Tocsin delivers what your app notifies: in-app inbox, email and push, from your own PostgreSQL.

    Settings come from the environment (TOCSIN_…, see docs/settings.md). Beside a running `make up` of the same
    directory, every command finds its database by itself.
    """


main.add_command(templates)
main.add_command(deliveries)
main.add_command(api_key)


@main.command()
def up() -> None:
    """Run it all: PostgreSQL, HTTP, a worker, a mailbox that catches mail, phones that catch pushes."""
    from tocsin.dev.up import UpError
    from tocsin.dev.up import up as run_up

    try:
        sys.exit(asyncio.run(run_up(read_settings())))
    except UpError as error:
        _fail(str(error))


@main.command()
@click.option("--dev", is_flag=True, hidden=True, help="Serve /dev/ too (`tocsin up`).")
def serve(dev: bool) -> None:
    """Serve HTTP: REST, the badge stream, the pages."""
    from tocsin.engine.store.health import check_start, run_service
    from tocsin.http.server import serve as run_server

    settings = _started()
    development_key = _development_key(settings) if dev else None
    if settings.public_url is None:
        raise SettingsError(
            "TOCSIN_PUBLIC_URL is not set: the address under which people reach this service, such as https://notify.example.com."
        )
    if not settings.jwt_algorithms:
        raise SettingsError(
            "No JWT key is set: TOCSIN_JWT_SECRET, TOCSIN_JWT_PUBLIC_KEY or TOCSIN_JWKS_URL of the host app."
        )
    asyncio.run(check_start(_database_url(settings), wait=settings.database_wait))
    extra_routes = _dev_routes() if dev else ()
    start = partial(
        run_server, settings, extra_routes=extra_routes, development_key=development_key
    )
    _run(run_service(start, wait=settings.database_wait))


def _development_key(settings: Settings) -> str:
    """The key of `tocsin up`'s own tokens; raises SettingsError where others could reach the service."""
    from tocsin.settings.running_instance import DEVELOPMENT_KEY, check_bind, keep_secrets

    check_bind(settings)
    return keep_secrets(settings.data_dir, DEVELOPMENT_KEY)[DEVELOPMENT_KEY]


def _dev_routes() -> Sequence[Any]:
    from tocsin.dev.pages.demo import dev_routes

    return dev_routes()


@main.command()
def worker() -> None:
    """Deliver: run jobs with the channels' actors."""
    from tocsin.engine.jobs import run_worker

    _started()
    _collect_less()
    _run(run_worker())


def _run(service: Coroutine[Any, Any, None]) -> None:
    """On uvloop where there is one: it carries about half as much again as asyncio's own loop."""
    try:
        from uvloop import run
    except ImportError:
        asyncio.run(service)
    else:
        run(service)


def _collect_less() -> None:
    """Leaves what is imported out of garbage collections, and has fewer: a worker makes much, and hardly a cycle."""
    gc.freeze()
    gc.set_threshold(10_000)


def _started() -> Settings:
    """The settings of a long-running command, with its logs set up."""
    from tocsin.logs import configure_logs

    stop_with_parent(parent_fd())
    settings = _settings()
    configure_logs(settings)
    for name in settings.unknown:
        click.echo(f"tocsin: {name} is no setting; see docs/settings.md", err=True)
    return settings


@main.command()
def migrate() -> None:
    """Bring the database to this version's schema."""
    from tocsin.migrate import migrate as run_migrations

    run_migrations(_dsn(), click.echo)
    click.echo("The database is up to date.")


@main.command()
def seed() -> None:
    """Add demo people, their phones and notifications."""
    from tocsin.dev.seed import seed as run_seed

    embedded = read_settings().database_url is None  # a real provider would meet demo tokens else
    click.echo(run_seed(_dsn(), again=True, phones=embedded))


@main.command(name="notify")
@click.argument("event_type")
@click.argument("recipients", nargs=-1, required=True)
@click.option("--title", required=True, help="What happened, in one line.")
@click.option("--body", default="", help="More of it, as plain text.")
@click.option("--action-url", help="Where it leads: a path or an http(s) address.")
@click.option("--metadata", default="{}", help="A JSON object, for clients.")
@click.option("--initiator", help="Who caused it; never notified of it.")
@click.option("--idempotency-key", help="The same key and content within a day is the same event.")
def notify_command(
    event_type: str, recipients: tuple[str, ...], metadata: str, **named: Any
) -> None:
    """Tell RECIPIENTS of an event of EVENT_TYPE; prints the event's id."""
    from tocsin.client import notify
    from tocsin.engine.store.connection import connect

    try:
        parsed = json.loads(metadata)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="--metadata") from error
    with connect(_dsn()) as connection:
        click.echo(
            notify(
                connection, recipient=recipients, event_type=event_type, metadata=parsed, **named
            )
        )


@main.command()
@click.argument("notification_id", type=int)
def why(notification_id: int) -> None:
    """Say why a notification did (not) reach its person, channel by channel."""
    from tocsin.engine.explain.why import explain_in_lines

    for line in _with_database(lambda database: explain_in_lines(database, notification_id)):
        click.echo(line)


@main.command()
@click.argument("recipient")
def token(recipient: str) -> None:
    """Print a JWT for RECIPIENT, good for a day; to try things out."""
    from tocsin.settings.running_instance import development_key, sign_token

    if not 1 <= len(recipient) <= 200:
        raise click.BadParameter("an id has 1 to 200 characters", param_hint="RECIPIENT")
    settings = _settings()
    # a running `tocsin up` accepts its own, whatever key the host app signs with
    configured = read_settings().jwt_secret is not None
    key = None if configured else development_key(settings.data_dir)
    click.echo(sign_token(settings, recipient, development_key=key))


@main.group(name="event-types")
def event_types() -> None:
    """The catalogue of what can happen."""


@event_types.command(name="list")
def event_types_list() -> None:
    """List the event types with their channels."""
    from tocsin.engine.store.event import list_event_types

    for entry in _with_database(list_event_types):
        channels = [
            f"{channel} (mandatory)" if channel in entry.mandatory_channels else channel
            for channel in entry.default_channels
        ]
        click.echo(f"{entry.event_type:<30} {entry.label:<26} {', '.join(channels)}")


@event_types.command(name="apply")
@click.argument("file", type=click.Path(path_type=Path))
def event_types_apply(file: Path) -> None:
    """Add to or change the catalogue by a TOML FILE, all or nothing."""
    from tocsin.event_types import read_catalogue
    from tocsin.migrate import apply_catalogue

    count = apply_catalogue(_dsn(), read_catalogue(file))
    click.echo(f"The catalogue has {count} event types now.")


@main.group()
def digest() -> None:
    """One mail in place of many, daily or weekly."""


@digest.command(name="run")
@click.option("--now", help="As if it were this time: 2026-11-21T06:00:00Z.")
def digest_run(now: str | None) -> None:
    """Make the digests that are due, now or at another time; workers do it every minute, and send them."""
    from tocsin.engine.deliver.digests import make_digests

    def report(so_far: Any) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{so_far.people} people", nl=False, err=True)

    moment = _moment(now)
    made = _with_database(
        lambda database: make_digests(database, moment, at_once=True, on_progress=report)
    )
    if sys.stderr.isatty():
        click.echo("\r", nl=False, err=True)
    click.echo(
        f"{made.people} due: {made.digests} digest{'s' * (made.digests != 1)} made, "
        f"{made.unsent} with nothing unread, {made.people - made.digests - made.unsent} with nothing at all."
    )


@digest.command(name="preview")
@click.argument("recipient")
def digest_preview(recipient: str) -> None:
    """Show what RECIPIENT's digest would say if it were made now; nothing is sent or changed."""
    from tocsin.engine.deliver.digests import preview
    from tocsin.engine.mail.loader import Templates

    settings = _settings()
    templates = Templates(settings.templates_dir)
    text = _with_database(
        lambda database: preview(database, recipient, settings.email_from, templates)
    )
    click.echo(text.rstrip())


@main.command()
@click.option("--now", help="As if it were this time: 2026-11-21T09:30:00Z.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and keep it.")
def cleanup(now: str | None, dry_run: bool) -> None:
    """Remove notifications that were read longer ago than TOCSIN_RETENTION_DAYS; workers do it daily."""
    from tocsin.engine.store.installation import clean_up, count_over

    act, word = (count_over, "would go") if dry_run else (clean_up, "removed")
    moment, retention = _moment(now), timedelta(days=_settings().retention_days)
    count = _with_database(lambda database: act(database, now=moment, retention=retention))
    click.echo(f"{count} notification{'s' * (count != 1)} {word}.")


def _moment(text: str | None) -> datetime:
    try:
        moment = datetime.fromisoformat(text) if text else datetime.now(UTC)
    except ValueError as error:
        raise click.BadParameter(
            "not a time such as 2026-11-21T09:30:00Z", param_hint="--now"
        ) from error
    if not 2000 <= moment.year < 3000:
        raise click.BadParameter("not between the years 2000 and 3000", param_hint="--now")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@main.command()
@click.option(
    "--role", type=click.Choice(["owner", "app", "service"]), default="owner", help="Whose."
)
def dsn(role: Literal["owner", "app", "service"]) -> None:
    """Print a DSN: the owner's, or one of a login that is granted tocsin_app or tocsin_service."""
    from tocsin.migrate import login_dsn

    click.echo(_dsn() if role == "owner" else login_dsn(_dsn(), _settings().data_dir, role))
