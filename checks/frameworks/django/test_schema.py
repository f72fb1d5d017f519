"""Migrations: there and back, on the right database, together with `tocsin migrate`, and a flush."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from accounts.models import Member
from django.conf import settings as project
from django.core.management import call_command
from django.db import connection, connections

from tocsin import notify, unread_count

HERE = Path(__file__).parent
ROOT = HERE.parent.parent.parent
SERVICE_PYTHON = os.environ.get("SERVICE_PYTHON", str(ROOT / ".venv/bin/python"))
SERVER = os.environ["FRAMEWORKS_DSN"]

Manage = Callable[..., str]


@pytest.fixture
def name() -> Iterator[str]:
    """An empty database of its own."""
    name = f"django_schema_{os.getpid()}"
    with psycopg.connect(SERVER, autocommit=True) as server:
        server.execute(f"drop database if exists {name}".encode())
        server.execute(f"create database {name}".encode())
        yield name
        server.execute(f"drop database {name}".encode())
        server.execute("drop role if exists plain_django")


@pytest.fixture
def manage(name: str) -> Manage:
    """Runs manage.py on that database, and returns what it prints."""

    def run(*arguments: str, **environ: str) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=HERE,
            env={**os.environ, "FRAMEWORKS_DATABASE": name, **environ},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def tocsin(name: str, *arguments: str) -> str:
    """Runs the tocsin command of the development environment on that database."""
    dsn = psycopg.conninfo.make_conninfo(SERVER, dbname=name)
    done = subprocess.run(
        [SERVICE_PYTHON, "-m", "tocsin", *arguments],
        env={**os.environ, "TOCSIN_DATABASE_URL": dsn, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def schemas(name: str) -> list[Any]:
    """Returns all that both schemas contain, with owners, rights and definitions, and what was recorded."""
    with psycopg.connect(SERVER, dbname=name) as found:
        return [
            found.execute(query).fetchall()
            for query in (
                "select name, checksum from tocsin.migration order by name",
                """
                select c.oid::regclass::text, c.relkind, c.relowner::regrole::text, c.relacl::text
                from pg_class c where c.relnamespace in ('tocsin'::regnamespace, 'tocsin_queue'::regnamespace)
                order by 1
                """,
                """
                select p.oid::regprocedure::text, p.prosrc, p.proconfig::text, p.proacl::text
                from pg_proc p where p.pronamespace in ('tocsin'::regnamespace, 'tocsin_queue'::regnamespace)
                order by 1
                """,
                "select event_type, label, position from tocsin.event_type order by 1",
            )
        ]


def test_django_and_tocsin_migrate_make_the_same_and_accept_each_other(
    name: str, manage: Manage
) -> None:
    tocsin(name, "migrate")
    made_by_tocsin = schemas(name)
    manage("migrate", "tocsin", DJANGO_SETTINGS_MODULE="project.settings")
    own_types = schemas(name)[-1]
    assert [each for each in own_types if each[0] != "shop.order_sent"] == made_by_tocsin[-1]
    assert schemas(name)[:-1] == made_by_tocsin[:-1]
    assert "  Installing" not in manage("migrate")

    assert "tocsin" in manage("migrate", "tocsin", "zero")
    with psycopg.connect(SERVER, dbname=name) as found:
        assert found.execute("select to_regnamespace('tocsin')").fetchone() == (None,)
        assert found.execute("select to_regnamespace('tocsin_queue')").fetchone() == (None,)
    manage("migrate", "accounts")  # another app's migration doesn't bring them back
    with psycopg.connect(SERVER, dbname=name) as found:
        assert found.execute("select to_regnamespace('tocsin')").fetchone() == (None,)

    manage("migrate")
    assert schemas(name)[:-1] == made_by_tocsin[:-1]
    assert tocsin(name, "migrate") == "The database is up to date.\n"


def test_a_later_version_is_applied_by_the_next_migrate(name: str, manage: Manage) -> None:
    manage("migrate")
    before = schemas(name)
    with psycopg.connect(SERVER, dbname=name) as found:
        found.execute("drop function tocsin.why")
        found.execute("delete from tocsin.migration where name like 'functions %'")
    assert "Run manage.py migrate." in manage("check", "--database", "default")
    assert "Installing Tocsin's schemas" in manage("migrate")
    assert schemas(name) == before
    assert "no issues" in manage("check", "--database", "default")


def test_a_role_that_lacks_rights_gets_the_statements_for_an_administrator(name: str) -> None:
    server = psycopg.conninfo.conninfo_to_dict(SERVER)
    with psycopg.connect(SERVER, autocommit=True) as owner:
        owner.execute("create role plain_django login password 'plain'")
    with psycopg.connect(SERVER, dbname=name, autocommit=True) as owner:
        owner.execute("grant create on schema public to plain_django")
    dsn = psycopg.conninfo.make_conninfo(
        host=server["host"],
        port=server["port"],
        user="plain_django",
        password="plain",
        dbname="postgres",
    )
    done = subprocess.run(
        [sys.executable, "manage.py", "migrate"],
        cwd=HERE,
        env={**os.environ, "FRAMEWORKS_DSN": dsn, "FRAMEWORKS_DATABASE": name},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "\nCommandError: The database can't be migrated yet:\n" in done.stderr
    assert f"grant create on database {name} to plain_django;" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.django_db(databases=["default", "archive", "local"])
def test_the_schemas_are_in_one_database_only() -> None:
    with connections["archive"].cursor() as cursor:
        cursor.execute("select to_regnamespace('tocsin')")
        assert cursor.fetchone() == (None,)
    assert "django_migrations" in connections["local"].introspection.table_names()


class KeepsTocsinOut:
    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return False if app_label == "tocsin" else None


@pytest.mark.django_db
def test_a_router_of_the_project_is_asked(settings: Any) -> None:
    from tocsin.contrib.django.schema import is_ours

    assert is_ours(connection)
    settings.DATABASE_ROUTERS = [KeepsTocsinOut()]
    assert not is_ours(connection)


@pytest.mark.django_db
def test_event_types_of_the_project_are_there_in_tests() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "select count(*) from tocsin.event_type where event_type = 'shop.order_sent'"
        )
        assert cursor.fetchone() == (1,)


@pytest.mark.django_db(transaction=True)
def test_a_flush_between_tests_empties_the_inboxes_and_keeps_the_event_types() -> None:
    alice = Member.objects.create_user("alice")
    notify(connection, recipient=alice.pk, event_type="shop.order_sent", title="Sent")
    call_command("flush", interactive=False, verbosity=0)
    assert unread_count(connection, alice.pk) == 0
    with connection.cursor() as cursor:
        cursor.execute("select count(*) from tocsin.recipient")
        assert cursor.fetchone() == (0,)
    again = Member.objects.create_user("alice")
    notify(connection, recipient=again.pk, event_type="shop.order_sent", title="Sent")
    assert unread_count(connection, again.pk) == 1


def test_a_flush_leaves_what_a_migration_made(name: str, manage: Manage) -> None:
    manage("migrate")
    with psycopg.connect(SERVER, dbname=name, autocommit=True) as found:
        before = counts(found)
        assert len(before) > 5
        manage("flush", "--no-input")
        assert counts(found) == before


def counts(found: psycopg.Connection[Any]) -> dict[str, int]:
    """Returns how many rows each table has that has any."""
    tables = found.execute(
        "select c.relname from pg_class c where c.relnamespace = 'tocsin'::regnamespace and c.relkind = 'r'"
    ).fetchall()
    count = {
        table: found.execute(f"select count(*) from tocsin.{table}".encode()).fetchone()
        for (table,) in tables
    }
    return {table: row[0] for table, row in count.items() if row and row[0]}


def test_the_default_event_types_are_those_of_tocsin() -> None:
    script = (
        "import json; from tocsin.migrate import default_catalogue as c; "
        "print(json.dumps(c().in_order()))"
    )
    from tocsin.sql.install import catalogue

    done = subprocess.run([SERVICE_PYTHON, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert json.loads(done.stdout) == catalogue()
    assert project.TOCSIN["EVENT_TYPES"].exists()


def test_the_models_and_the_migrations_agree(manage: Manage) -> None:
    assert "No changes detected" in manage("makemigrations", "--check", "--dry-run")
