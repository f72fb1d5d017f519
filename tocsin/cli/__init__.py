"""The commands of `tocsin`, and the one line that each prints when it fails."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import click

from tocsin.cli import administration, notify, services
from tocsin.cli.imports import import_group
from tocsin.cli.templates import templates
from tocsin.cli.top import top


class _Commands(click.Group):
    """Prints the error and its cure in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            import psycopg

            if isinstance(error, psycopg.Error) or type(error).__module__.startswith("tocsin."):
                _fail(error)
            raise


def _fail(error: Exception) -> NoReturn:
    """Prints an expected failure. Each exception of our own has one line for people, with the cure."""
    import psycopg

    from tocsin.engine.mail.loader import TemplateFailed, TemplatesError
    from tocsin.engine.model import Invalid, Unavailable

    match error:
        case TemplateFailed() | TemplatesError():  # lines that begin with the template's name
            click.echo(str(error), err=True)
            sys.exit(1)
        case Invalid():
            line = "; ".join(cure for _, cure in error.fields) or str(error)
        case Unavailable() | psycopg.OperationalError():
            line = f"TOCSIN_DATABASE_URL can't be reached: {' '.join(str(error).split())}"
        case psycopg.Error():
            message, hint = error.diag.message_primary, error.diag.message_hint or ""
            line = f"{message}. {hint}".rstrip() if message else str(error)
        case _:
            line = str(error)
    click.echo(f"tocsin: {line}", err=True)
    sys.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tocsin")
def main() -> None:
    """Tocsin delivers what your app notifies: in-app inbox, email and push, from your own PostgreSQL.

    Settings come from the environment (TOCSIN_…, see docs/settings.md). While `make up` runs in the same directory,
    every command finds its database by itself.
    """


COMMANDS = (
    *services.COMMANDS,
    *notify.COMMANDS,
    *administration.COMMANDS,
    import_group,
    templates,
    top,
)
for command in COMMANDS:
    main.add_command(command)
