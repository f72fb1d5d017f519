"""Databases with a large stock of notifications (large_stock.sql), in a PostgreSQL of their own."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from bench import stage
from tocsin.dev import embedded_postgres
from tocsin.migrate import migrate

Db = psycopg.Connection[Any]
STOCK = Path(__file__).parent / "large_stock.sql"
TABLES = (
    "action",
    "attempt",
    "delivery",
    "digest_item",
    "event",
    "idempotency",
    "mail_event",
    "notification",
    "subscription",
)
# those of constraints stay
INDEXES = """
select i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)
from pg_index i
where i.indrelid = any (select ('tocsin.' || t)::regclass from unnest(%s::text[]) t)
    and not exists (select from pg_constraint c where c.conindid = i.indexrelid)
order by 1
"""
# The measurements start each vacuum themselves.
SETTINGS = {
    "autovacuum": "off",
    "maintenance_work_mem": "512MB",
    "max_wal_size": "8GB",
    "shared_buffers": "1GB",
}


@contextmanager
def server(folder: Path) -> Iterator[embedded_postgres.Postgres]:
    """Yields a durable PostgreSQL with its data in this folder."""
    running = embedded_postgres.start(folder)
    try:
        with psycopg.connect(running.superuser_dsn, autocommit=True) as admin:
            for name, value in SETTINGS.items():
                admin.execute(f"alter system set {name} = '{value}'")
        embedded_postgres.stop(running, seconds=60)
        running = embedded_postgres.start(folder)
        yield running
    finally:
        embedded_postgres.stop(running, seconds=60)


def stocked(running: embedded_postgres.Postgres, rows: int) -> str:
    """Returns the owner's DSN of the database with that many notifications; makes it where it does not exist."""
    name = name_of(rows)
    dsn = make_conninfo(running.dsn, dbname=name)
    with psycopg.connect(running.superuser_dsn, autocommit=True, dbname="postgres") as admin:
        known = "select datname from pg_database where datname = %s"
        if admin.execute(known, (name,)).fetchone() is None:
            admin.execute('drop database if exists "large_new" with (force)')
            admin.execute(f'create database "large_new" owner {embedded_postgres.OWNER}')
            made = make_conninfo(running.dsn, dbname="large_new")
            migrate(made)
            maker = make_conninfo(running.superuser_dsn, dbname="large_new")
            with psycopg.connect(maker, autocommit=True) as superuser:
                _fill(superuser, rows)
            admin.execute("checkpoint")
            admin.execute(f'alter database "large_new" rename to "{name}"')
    migrate(dsn)
    return dsn


def name_of(rows: int) -> str:
    """Returns the name of the database with that many notifications, and with the present tables."""
    return f"large_{rows}_{stage.hash_of(STOCK)}"


def _fill(superuser: Db, rows: int) -> None:
    superuser.execute(f"set bench.rows = '{rows}'")
    superuser.execute("set synchronous_commit = off")
    superuser.execute("set work_mem = '256MB'")
    indexes = superuser.execute(INDEXES, (list(TABLES),)).fetchall()
    for name, _ in indexes:
        superuser.execute(f"drop index {name}")
    for statement in STOCK.read_text(encoding="utf-8").split(";\n\n"):
        large = any(f"insert into tocsin.{name} " in statement for name in TABLES)
        # The keys of a large table are right by construction: checking each takes longer than the insert.
        superuser.execute(f"set session_replication_role = {'replica' if large else 'origin'}")
        _run(superuser, statement)
        if "into tocsin.notification" in statement:
            _run(superuser, "analyze tocsin.notification")
    for _, definition in indexes:
        _run(superuser, definition)
    _run(superuser, "vacuum (analyze)")


def _run(owner: Db, statement: str) -> None:
    started = time.monotonic()
    owner.execute(statement.encode())
    first = next(line for line in statement.splitlines() if line and not line.startswith("--"))
    print(f"  {time.monotonic() - started:6.1f} s  {first[:90]}", file=sys.stderr, flush=True)
