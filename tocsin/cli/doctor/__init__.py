"""`tocsin doctor`: checks one by one all that an installation needs, and names the cure of what is wrong."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tocsin.cli.doctor.examination import Check, DoctorOptions, Finding

_OPTIONS = {"purpose", "needs", "limit"}  # of a check, in findings.toml
_COLOURS = {"green": "green", "yellow": "yellow", "red": "red", "skipped": "bright_black"}


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


def all_checks() -> list[Check]:
    """Returns the checks of findings.toml in its order; the function of each is `check_` and its name."""
    from tocsin.cli.doctor import database, providers, services
    from tocsin.cli.doctor.examination import TEXTS, Check

    functions = vars(database) | vars(providers) | vars(services)
    return [
        Check(name, functions[f"check_{name}"], **{key: row[key] for key in _OPTIONS & row.keys()})
        for name, row in TEXTS.items()
        if "purpose" in row
    ]


async def run_checks(
    environ: Mapping[str, str], options: DoctorOptions, names: Collection[str] = ()
) -> list[tuple[str, list[Finding]]]:
    """Returns what each check (of these names) found, in the table's order. They run at the same time."""
    import asyncio

    from tocsin.cli.doctor.examination import Examination, examine

    checks = [check for check in all_checks() if not names or check.name in names]
    examination = Examination(environ, options)
    async with examination.opened():
        found = await asyncio.gather(*(examine(check, examination) for check in checks))
    return [(check.name, findings) for check, findings in zip(checks, found, strict=True)]


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
