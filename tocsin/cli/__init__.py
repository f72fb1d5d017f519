"""The commands of `tocsin`, and the one line that each prints when it fails."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import click
import psycopg

from tocsin.cli import administration, imports, services, suppressions
from tocsin.cli.doctor import doctor
from tocsin.cli.templates import templates
from tocsin.settings import SettingsError


class _Commands(click.Group):
    """Prints the error and its cure in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        from tocsin.cli.import_sources import ImportFault
        from tocsin.client import NotifyError
        from tocsin.dev.embedded_postgres import PostgresError
        from tocsin.dev.supervisor import UpError
        from tocsin.engine.catalogue_file import CatalogueError
        from tocsin.engine.mail.loader import TemplateFailed, TemplatesError
        from tocsin.engine.model import Conflict, Invalid, NotFound, Unavailable
        from tocsin.engine.store.health import NotReady
        from tocsin.settings.running_instance import AlreadyRunning, SecretFileError
        from tocsin.sql.install import MigrationError, RoleError

        try:
            return super().invoke(ctx)
        except (
            SettingsError,
            AlreadyRunning,
            CatalogueError,
            ImportFault,
            MigrationError,
            PostgresError,
            RoleError,
            SecretFileError,
            UpError,
            NotFound,
            NotReady,
            NotifyError,
            Conflict,
        ) as error:
            _fail(str(error))
        except (TemplateFailed, TemplatesError) as error:
            _fail(str(error), prefix="")
        except Invalid as error:
            _fail("; ".join(cure for _, cure in error.fields) or str(error))
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

    Settings come from the environment (TOCSIN_…, see docs/settings.md). While `make up` runs in the same directory,
    every command finds its database by itself.
    """


COMMANDS = (
    *services.COMMANDS,
    *administration.COMMANDS,
    *suppressions.COMMANDS,
    *imports.COMMANDS,
    templates,
    doctor,
)
for command in COMMANDS:
    main.add_command(command)
