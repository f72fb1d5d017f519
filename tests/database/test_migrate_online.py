"""Migrations beside running services of the earlier version: short locks, indexes built concurrently, late changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.services import LONGEST, service_dsn
from tocsin.engine.store.catalogue_file import default_catalogue
from tocsin.engine.store.health import NotReady, check_start
from tocsin.migrate import migrate
from tocsin.sql import install as module
from tocsin.sql.install import MigrationError

Db = psycopg.Connection[Any]
Later = Callable[..., None]

REPORT = """
    insert into tocsin.process (process_id, kind, host, pid, version, started_at, reported_at, report)
    values (gen_random_uuid(), 'worker', 'there', 7, %s, now(), now(), '{}')
"""
INDEX = "create index concurrently if not exists later on tocsin.notification (recipient_id, in_inbox);\n"


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Later:
    """Adds migrations to this version, as files with these names and texts."""
    files = module.sql_files
    added: list[Path] = []

    def with_added(folder: str) -> list[Path]:
        return [*files(folder), *(sorted(added) if folder == "migrations" else [])]

    def add(name: str, text: str) -> None:
        (tmp_path / name).write_text(text)
        added.append(tmp_path / name)

    monkeypatch.setattr(module, "sql_files", with_added)
    monkeypatch.setattr("tocsin.migrate.sql_files", with_added)
    return add


def has(db: Db, regclass: str) -> bool:
    return db.execute("select to_regclass(%s) is not null", [regclass]).fetchone() == (True,)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(0.01)


def test_apps_go_on_while_a_migration_waits_for_a_long_transaction(
    db: Db, dsn: str, later: Later
) -> None:
    later("0002_column.sql", "alter table tocsin.notification add column later text;")
    db.execute("select tocsin.upsert_recipient('alice')")
    lines: list[str] = []
    with psycopg.connect(dsn, application_name="report") as slow:
        slow.execute("select from tocsin.notification")
        migrating = threading.Thread(target=migrate, args=(dsn, lines.append))
        migrating.start()
        until(lambda: any("Waiting for locks" in line for line in lines))
        db.execute("set statement_timeout = '30s'")
        for _ in range(3):
            db.execute("select tocsin.notify('forum.new_reply', array['alice'], 'New')")
            assert migrating.is_alive()
        assert any("report" in line for line in lines)
    migrating.join(LONGEST)
    assert lines.count("Migrating: 0002_column") == 1
    assert module.state(db) == "current"


def test_a_migration_that_gets_no_lock_changes_nothing_and_names_the_session(
    db: Db, dsn: str, later: Later
) -> None:
    later("0002_column.sql", "alter table tocsin.notification add column later text;")
    with psycopg.connect(dsn, application_name="report") as slow:
        slow.execute("select from tocsin.notification")
        with pytest.raises(MigrationError, match=r"Nothing was changed.*report, open for"):
            migrate(dsn, wait=0)
    assert module.state(db) == "behind"


def test_an_index_is_built_beside_writers_and_again_where_it_is_invalid(
    db: Db, dsn: str, later: Later
) -> None:
    later("0002_later.concurrent.sql", INDEX + "comment on index tocsin.later is 'A list.';\n")
    db.execute("select tocsin.upsert_recipient('alice')")
    for _ in range(2):
        db.execute("select tocsin.notify('forum.new_reply', array['alice'], 'The same')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        db.execute(
            "create unique index concurrently later on tocsin.notification (recipient_id, in_inbox)"
        )
    assert module.state(db) == "unfinished"
    lines: list[str] = []
    with psycopg.connect(dsn) as writer:
        writer.execute("create temporary table one (n integer)")
        migrate(dsn, lines.append)
    assert lines == ["Building: 0002_later"]
    valid = "select indisvalid, not indisunique from pg_index where indexrelid = 'tocsin.later'::regclass"
    assert db.execute(valid).fetchone() == (True, True)
    assert module.state(db) == "current"


def test_in_the_transaction_of_a_framework_an_index_is_built_too(
    db: Db, dsn: str, later: Later
) -> None:
    later("0002_later.concurrent.sql", INDEX)
    with db.transaction():
        module.install(db, default_catalogue().in_order())
    assert has(db, "tocsin.later")
    assert module.state(db) == "current"


def test_a_late_change_waits_for_processes_of_another_version(
    db: Db, dsn: str, later: Later
) -> None:
    later("0002_old.after.sql", "drop function tocsin.unread_count(text);")
    db.execute(REPORT, ["0.0.1"])
    db.execute(REPORT, [version("tocsin")])
    lines: list[str] = []
    migrate(dsn, lines.append)
    with db.transaction():  # that of a framework
        module.install(db, default_catalogue().in_order())
    (line,) = lines
    assert "worker 7 on there (0.0.1)" in line
    assert version("tocsin") not in line
    assert module.state(db) == "unfinished"
    db.execute("update tocsin.process set reported_at = now() - interval '2 minutes'")
    migrate(dsn, lines.append)
    assert lines[1:] == ["Finishing: 0002_old"]
    assert db.execute("select to_regproc('tocsin.unread_count')").fetchone() == (None,)
    assert module.state(db) == "current"


def test_the_functions_of_a_later_version_are_no_earlier_ones(db: Db) -> None:
    """A process of the earlier version that starts again after the migration goes on."""
    db.execute("update tocsin.migration set checksum = 'of a later one' where name = 'functions'")
    assert module.state(db) == "newer"
    db.execute("delete from tocsin.migration where name like 'functions %'")
    assert module.state(db) == "behind"
    db.execute("insert into tocsin.migration (name, checksum) values ('0008_later.sql', '')")
    assert module.state(db) == "newer"  # from an earlier version to a later one than this
    db.execute("insert into tocsin.migration (name, checksum) values ('0009_later.after.sql', '')")
    assert module.state(db) == "incompatible"


async def test_a_service_does_not_start_on_a_schema_that_is_older_or_too_new(
    db: Db, dsn: str
) -> None:
    service = service_dsn(dsn)
    await check_start(service, wait=0)
    db.execute("insert into tocsin.migration (name, checksum) values ('0009_later.sql', '')")
    await check_start(service, wait=0)
    db.execute("insert into tocsin.migration (name, checksum) values ('0010_later.after.sql', '')")
    with pytest.raises(NotReady, match="of a newer version"):
        await check_start(service, wait=0)
    db.execute("delete from tocsin.migration where name like '%later%' or name like 'functions %'")
    with pytest.raises(NotReady, match="run `tocsin migrate` of this version first"):
        await check_start(service, wait=0)
