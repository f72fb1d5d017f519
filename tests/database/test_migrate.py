"""Migrations: repeatable, concurrent, tamper-evident; and each table has its comments."""

from __future__ import annotations

import threading
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec import structs
from psycopg.conninfo import make_conninfo

from tocsin.engine.store.catalogue_file import default_catalogue
from tocsin.migrate import apply_catalogue, login_dsn, migrate
from tocsin.sql import install as module
from tocsin.sql.install import MigrationError

Db = psycopg.Connection[Any]
DEFAULT_TYPES = len(default_catalogue().event_types)


def test_each_table_and_column_has_a_comment(db: Db) -> None:
    missing = """
        select c.relname || coalesce('.' || a.attname, '')
        from pg_class c
        left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where c.relnamespace = 'tocsin'::regnamespace
            and c.relkind = 'r'
            and (obj_description(c.oid, 'pg_class') is null or col_description(c.oid, a.attnum) is null)
    """
    assert db.execute(missing).fetchall() == []


def test_migrating_again_changes_nothing(db: Db, dsn: str) -> None:
    db.execute("select tocsin.upsert_recipient('alice')")
    lines: list[str] = []
    migrate(dsn, lines.append)
    assert lines == []
    assert db.execute("select count(*) from tocsin.recipient").fetchone() == (1,)


def test_several_processes_may_migrate_at_once(db: Db, dsn: str) -> None:
    db.execute("drop schema tocsin cascade")
    db.execute("drop schema tocsin_queue cascade")
    lines: list[str] = []
    threads = [threading.Thread(target=migrate, args=(dsn, lines.append)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    migrated = [line for line in lines if line.startswith("Migrating")]  # others wait for a lock
    assert sorted(migrated) == sorted(set(migrated))  # each migration once
    assert len(migrated) > 1
    assert db.execute("select count(*) from tocsin.event_type").fetchone() == (DEFAULT_TYPES,)


def test_procrastinates_sql_in_the_wheel_is_that_of_the_installed_one() -> None:
    """After another version was locked: make queue-schema."""
    folder = module._SQL / "procrastinate"
    installed = files("procrastinate") / "sql"
    assert (folder / "VERSION").read_text().strip() == version("procrastinate")
    assert (folder / "schema.sql").read_text() == (installed / "schema.sql").read_text()
    later = {
        path.name: path.read_text()
        for path in Path(str(installed / "migrations")).glob("*.sql")
        if module._numbers(path.name.split("_")[0]) > (3, 10, 0)
    }
    copied = Path(str(folder / "migrations")).glob("*.sql")
    assert {path.name: path.read_text() for path in copied} == later


def test_the_state_of_the_schemas_names_what_to_do(db: Db, dsn: str, data_dir: Path) -> None:
    assert module.state(db) == "current"
    db.execute("delete from tocsin.migration where name like 'functions %'")
    assert module.state(db) == "behind"
    migrate(dsn)
    assert module.state(db) == "current"
    db.execute("insert into tocsin.migration (name, checksum) values ('9999_later.sql', '')")
    assert module.state(db) == "newer"
    with psycopg.connect(login_dsn(dsn, data_dir, "app")) as app:
        assert module.state(app) == "unreadable"
    module.uninstall(db)
    assert module.state(db) == "missing"


def test_an_installation_in_another_transaction_leaves_its_session_as_it_was(db: Db) -> None:
    """A framework's migrations run in one transaction, and write tables of the app's own afterwards."""
    settings = "select current_setting('role'), current_setting('search_path'), current_setting('lock_timeout')"
    db.execute("set lock_timeout = '7s'")
    before = db.execute(settings).fetchone()
    with db.transaction():
        module.uninstall(db)
        module.install(db, default_catalogue().in_order())
        assert db.execute(settings).fetchone() == before
    assert module.state(db) == "current"


def test_a_newer_procrastinate_of_the_database_is_left_as_it_is(db: Db, dsn: str) -> None:
    db.execute("update tocsin.migration set name = 'procrastinate 3.99.0' where name like 'procr%'")
    migrate(dsn)
    names = db.execute("select name from tocsin.migration where name like 'procr%'").fetchall()
    assert names == [("procrastinate 3.99.0",)]


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
    files = module.sql_files

    def with_broken(folder: str) -> list[Path]:
        return [*files(folder), *([broken] if folder == "migrations" else [])]

    monkeypatch.setattr(module, "sql_files", with_broken)
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(dsn)
    assert db.execute("select to_regclass('tocsin.half_made')").fetchone() == (None,)


def test_a_database_from_before_the_first_release_is_refused_and_left_as_it_is(
    db: Db, dsn: str
) -> None:
    db.execute("delete from tocsin.migration where name like 'procrastinate%'")
    db.execute(
        "insert into tocsin.migration (name, checksum) values ('0002_device.sql', ''), ('0024_databases.sql', '')"
    )
    db.execute("drop function tocsin.unread_count")
    before = db.execute("select * from tocsin.migration order by name").fetchall()
    with pytest.raises(MigrationError, match="before the first release") as refused:
        migrate(dsn)
    assert str(refused.value).count("\n") == 0
    assert db.execute("select * from tocsin.migration order by name").fetchall() == before
    assert db.execute("select to_regproc('tocsin.unread_count')").fetchone() == (None,)


def test_planner_settings_are_those_of_four_profiles(db: Db) -> None:
    found = db.execute(
        """
        select array(
            select s
            from unnest(p.proconfig) s
            where s ~ '^(enable_|plan_cache_mode|jit|work_mem|.*_cost)'
            order by s
        )::text[] as settings, array_agg(p.proname order by p.proname)::text[]
        from pg_proc p
        where p.pronamespace = 'tocsin'::regnamespace
            and p.proconfig::text ~ '(enable_|plan_cache_mode|jit|work_mem|_cost)'
        group by 1
        """
    ).fetchall()
    profiles = {
        tuple(settings): functions
        for settings, functions in found
        if functions not in (["unread_count"], ["finish_erasures"])
    }
    assert len(profiles) == 4
    assert sum(map(len, profiles.values())) == 17  # all that planner_profiles.sql lists


def test_procrastinates_schema_keeps_out_of_the_apps_way(db: Db) -> None:
    """An app may have a Procrastinate of its own, in public."""
    found = db.execute(
        "select distinct schemaname from pg_tables where tablename like 'procrastinate%'"
    ).fetchall()
    assert found == [("tocsin_queue",)]


def test_a_catalogue_is_applied_whole_or_not_at_all(db: Db, dsn: str) -> None:
    from tocsin.engine.store.catalogue_file import CatalogueError, parse_catalogue

    added = parse_catalogue(
        '[categories]\nshop = "Shop"\n'
        '[event_types]\n"shop.order_sent" = { label = "Order sent", channels = ["email"] }',
        "shop.toml",
    )
    assert apply_catalogue(dsn, added) == DEFAULT_TYPES + 1
    entry = added.event_types["shop.order_sent"]
    entries = {"shop.a": entry, "shop.b": structs.replace(entry, channels=["fax"])}
    with pytest.raises(psycopg.Error, match="unknown channel 'fax'"):
        apply_catalogue(dsn, structs.replace(added, event_types=entries))
    never_waits = parse_catalogue(
        '[event_types]\n"shop.a" = { label = "A", channels = ["email"], delay = { chat = "10m" } }',
        "shop.toml",
    )
    with pytest.raises(psycopg.Error, match="delay has 'chat'"):
        apply_catalogue(dsn, never_waits)
    assert db.execute("select count(*) from tocsin.event_type").fetchone() == (DEFAULT_TYPES + 1,)
    with pytest.raises(CatalogueError, match=r"shop\.toml.*label"):
        parse_catalogue('[event_types]\n"shop.a" = { channels = ["email"] }', "shop.toml")
    with pytest.raises(CatalogueError, match="mandatory"):
        parse_catalogue(
            '[event_types]\n"shop.a" = { label = "A", channels = [], mandatory = ["email"] }', "x"
        )


def test_a_catalogue_that_replaces_retires_the_rest(db: Db, dsn: str) -> None:
    from tocsin.engine.store.catalogue_file import parse_catalogue

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
    assert listed == list(default_catalogue().event_types)
    file = Path(event_types.__file__).with_suffix(".toml")
    constants = event_types.read_constants(file)
    assert list(constants.values()) == listed
    for constant, name in constants.items():
        assert getattr(event_types, constant) == name
    categories = db.execute("select category from tocsin.category order by position").fetchall()
    assert [name for (name,) in categories] == list(default_catalogue().categories)


def test_a_database_that_cannot_hold_all_scripts_is_refused(db: Db, dsn: str) -> None:
    db.execute("create database latin encoding 'LATIN1' locale 'C' template template0")
    try:
        with pytest.raises(MigrationError, match="encoding is LATIN1: Tocsin needs UTF8"):
            migrate(make_conninfo(dsn, dbname="latin"))
    finally:
        db.execute("drop database latin")
