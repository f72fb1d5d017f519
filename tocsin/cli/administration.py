"""The commands on notifications, event types, digests, deliveries, suppressed addresses, keys; and `tocsin doctor`."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tocsin.cli.services import find_dsn, find_settings, with_database

if TYPE_CHECKING:
    from tocsin.cli.doctor.examination import Finding
    from tocsin.engine.store.credential import ApiKey


_COLOURS = {"green": "green", "yellow": "yellow", "red": "red", "skipped": "bright_black"}
_STANDARD_SCOPES = (
    "events:write",
    "events:read",
    "recipients",
    "erase",
    "channels",
    "suppressions",
)


@click.command()
@click.argument("notification_id", type=int)
def why(notification_id: int) -> None:
    """Explain for each channel why a notification was or was not sent."""
    from tocsin.engine.explain.why import explain_in_lines

    for line in with_database(lambda database: explain_in_lines(database, notification_id)):
        click.echo(line)


@click.group(name="event-types")
def event_types() -> None:
    """Show or change the catalogue of event types."""


@event_types.command(name="list")
def event_types_list() -> None:
    """List the event types with their channels and throttles."""
    from tocsin.engine.store.event import list_event_types

    for entry in with_database(list_event_types):
        channels = [
            f"{channel} (mandatory)" if channel in entry.mandatory_channels else channel
            for channel in entry.default_channels
        ]
        throttle = f"; at most {entry.throttle}" if entry.throttle else ""
        click.echo(f"{entry.event_type:<30} {entry.label:<26} {', '.join(channels)}{throttle}")


@event_types.command(name="apply")
@click.argument("file", type=click.Path(path_type=Path))
def event_types_apply(file: Path) -> None:
    """Add to or change the catalogue from a TOML FILE, all or nothing."""
    from tocsin.engine.store.catalogue_file import read_catalogue
    from tocsin.migrate import apply_catalogue

    count = apply_catalogue(find_dsn(), read_catalogue(file))
    click.echo(f"The catalogue has {count} event type{'s' * (count != 1)} now.")


@click.group()
def digest() -> None:
    """Make or preview digests: daily or weekly mails that replace single ones."""


@digest.command(name="run")
@click.option("--now", help="Use this time instead of now: 2026-11-21T06:00:00Z.")
def digest_run(now: str | None) -> None:
    """Make the digests that are due, now or at another time. Workers do it every minute, and send them."""
    from tocsin.engine.store.digest import make_digests

    def report(so_far: Any) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{so_far.people} people", nl=False, err=True)

    moment = _moment(now)
    made = with_database(
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
    """Show the digest of RECIPIENT as if it were made now; nothing is sent or changed."""
    from tocsin.engine.mail.loader import Templates
    from tocsin.engine.mail.samples import preview

    settings = find_settings()
    templates = Templates(settings.templates_dir)
    text = with_database(
        lambda database: preview(database, recipient, settings.email_from, templates)
    )
    click.echo(text.rstrip())


@click.command()
@click.option("--now", help="Use this time instead of now: 2026-11-21T09:30:00Z.")
@click.option("--dry-run", is_flag=True, help="Print how many would be removed, and keep them.")
def cleanup(now: str | None, dry_run: bool) -> None:
    """Remove notifications that were read more than TOCSIN_RETENTION_DAYS ago, and those that are unread for more than
    TOCSIN_UNREAD_RETENTION_DAYS. Workers do it daily.
    """
    from tocsin.engine.store.installation import Retention, clean_up, count_over

    act, word = (count_over, "would be removed") if dry_run else (clean_up, "removed")
    moment, settings = _moment(now), find_settings()
    retention = Retention(settings.retention_days, settings.unread_retention_days)
    count = with_database(lambda database: act(database, now=moment, retention=retention))
    click.echo(f"{count} notification{'s' * (count != 1)} {word}.")


@click.group()
def deliveries() -> None:
    """Count or retry deliveries that failed permanently."""


@deliveries.command(name="failed")
@click.option("--days", default=7, show_default=True, help="Failed in the last DAYS days.")
def deliveries_failed(days: int) -> None:
    """Count failed deliveries by channel and reason, with the meaning of each reason."""
    from tocsin.engine.explain.reasons import meaning_and_cure
    from tocsin.engine.store.operations import dead_letter_reasons

    since = datetime.now(UTC) - timedelta(days=days)
    for each in with_database(lambda database: dead_letter_reasons(database, since)):
        meaning = meaning_and_cure(each.reason)[0]
        last = f"{each.last_at:%Y-%m-%d %H:%M}"
        click.echo(f"{each.n:>7}  {each.channel:<6} {each.reason:<28} last {last}  {meaning}")


@deliveries.command(name="replay")
@click.argument("delivery_ids", nargs=-1, type=int)
@click.option("--channel", help="Deliveries of this channel.")
@click.option("--reason", help="Deliveries with this reason.")
@click.option("--days", default=7, show_default=True, help="Failed in the last DAYS days.")
@click.option("--all", "every", is_flag=True, help="All of them, whatever channel and reason.")
@click.option(
    "--lift",
    is_flag=True,
    help="Also where this failure suppressed the address or disabled the device: allow it again.",
)
def deliveries_replay(
    delivery_ids: tuple[int, ...],
    channel: str | None,
    reason: str | None,
    days: int,
    every: bool,
    lift: bool,
) -> None:
    """Try failed deliveries again: DELIVERY_IDS, or those of a channel or reason."""
    from tocsin.engine.store.operations import DeadFilter, replay, replay_all

    matching = bool(channel or reason or every)
    if bool(delivery_ids) == matching:
        raise click.UsageError("Name deliveries, or give --channel, --reason or --all.")
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


@click.group(name="api-key")
def api_key() -> None:
    """Create, list or revoke API keys of apps and operators."""


@api_key.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="SCOPE",
    help=f"A permission; may be repeated. One of {', '.join(_STANDARD_SCOPES)} (by default all of these), "
    "mail-events, ops.",
)
@click.option(
    "--event-types",
    "event_types",
    multiple=True,
    metavar="PATTERN",
    help="Only events of these types: forum.new_reply or 'forum.*'; may be repeated.",
)
def create(name: str, scopes: tuple[str, ...], event_types: tuple[str, ...]) -> None:
    """Create a key called NAME; it is printed only now.

    A second key of the same NAME is valid together with the first, so that one can replace the other without a gap.
    """
    from tocsin.engine.store.credential import APP_SCOPES, create_api_key

    _, key = with_database(
        lambda database: create_api_key(
            database, name, scopes=scopes or APP_SCOPES, event_types=event_types
        )
    )
    click.echo("Store it now: only its hash is kept.", err=True)
    click.echo(key)


@api_key.command(name="list")
def list_keys() -> None:
    """List all keys, revoked ones too."""
    from tocsin.engine.store.credential import list_api_keys

    keys = with_database(list_api_keys)
    if not keys:
        click.echo("There are no keys yet: `tocsin api-key create NAME` creates one.", err=True)
    for key in keys:
        click.echo(_line(key))


@api_key.command()
@click.argument("key")
def revoke(key: str) -> None:
    """Revoke at once: the one key of this id or first characters (tocsin_…), or all keys of this name."""
    from tocsin.engine.store.credential import revoke_api_keys

    for each in with_database(lambda database: revoke_api_keys(database, key)):
        click.echo(f"Revoked {each.id} ({each.name}).")


@click.command(name="vapid-key")
def vapid_key() -> None:
    """Make a key for Web Push, the value of TOCSIN_VAPID_KEY; nothing is stored."""
    from tocsin.settings.keys import new_vapid_key

    click.echo("Keep it: with another key, browsers have to subscribe again.", err=True)
    click.echo(new_vapid_key())


def _line(key: ApiKey) -> str:
    from tocsin.engine.store.credential import SCOPES

    used = f"last used {key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never used"
    state = f"revoked {key.revoked_at:%Y-%m-%d}" if key.revoked_at else used
    scopes = ",".join(each for each in SCOPES if each in key.scopes)
    limit = f" for {','.join(key.event_types)}" if key.event_types else ""
    first = f"{key.prefix}…" if key.prefix else "tocsin_…"
    return f"{key.id:>4}  {key.name:<24} {first:<14}  made {key.created_at:%Y-%m-%d}  {state:<26}  {scopes}{limit}"


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
    from tocsin.engine.store.mail_event import list_suppressions

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
    from tocsin.engine.store.mail_event import lift as lift_suppression

    reason = with_database(lambda database: lift_suppression(database, address))
    click.echo(f"{address} may be mailed again (it was suppressed: {reason}).")


@click.command()
@click.argument("checks", nargs=-1, metavar="[CHECK]...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--token", help="A person's JWT from the host app, to try.")
@click.option(
    "--dns-server", metavar="ADDRESS", help="The resolver to ask, as address or address:port."
)
@click.option("--heartbeat", is_flag=True, help="Wait for a stream's heartbeat too, up to 20 s.")
@click.pass_context
def doctor(
    context: click.Context,
    checks: tuple[str, ...],
    as_json: bool,
    token: str | None,
    dns_server: str | None,
    heartbeat: bool,
) -> None:
    """Check everything that Tocsin needs here, or each CHECK alone; changes and sends nothing.

    Each line is green, yellow or red, with its cure. Run it with the settings of `serve` and `worker`. The exit status
    is 1 if a check is red.
    """
    import asyncio

    from tocsin.cli.doctor import all_checks, run_checks
    from tocsin.cli.doctor.examination import DoctorOptions

    names = [check.name for check in all_checks()]
    if unknown := sorted(set(checks) - set(names)):
        raise click.BadParameter(
            f"there is no check {unknown[0]!r}: {', '.join(names)}", param_hint="CHECK"
        )

    _quiet()
    options = DoctorOptions(token=token, dns_server=dns_server, wait_for_heartbeat=heartbeat)
    found = asyncio.run(run_checks(dict(os.environ), options, checks))
    red = sum(each.status == "red" for _, findings in found for each in findings)
    if as_json:
        click.echo(json.dumps(_to_json(found), indent=2))
    else:
        for name, findings in found:
            for finding in findings:
                _print(name, finding)
        click.echo(f"{red} of {len(found)} checks are red." if red else "No check is red.")
    context.exit(1 if red else 0)


def _print(name: str, finding: Finding) -> None:
    status = click.style(f"{finding.status:<8}", fg=_COLOURS[finding.status])
    click.echo(f"{status}{name:<14}{finding.sentence}")
    if finding.cure:
        click.echo(f"{'':<22}→ {finding.cure}")


def _to_json(found: list[tuple[str, list[Finding]]]) -> dict[str, Any]:
    checks = [
        {"check": name, "status": each.status, "sentence": each.sentence, "cure": each.cure or None}
        for name, findings in found
        for each in findings
    ]
    order = ("red", "yellow", "green")
    status = next((each for each in order if any(row["status"] == each for row in checks)), "green")
    return {"status": status, "checks": checks}


def _quiet() -> None:
    """Keeps log lines away: the findings contain what matters."""
    import structlog

    logging.disable(logging.CRITICAL)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


COMMANDS = (
    why,
    event_types,
    digest,
    cleanup,
    deliveries,
    suppressions,
    api_key,
    vapid_key,
    doctor,
)
