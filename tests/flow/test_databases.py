"""Databases as they are: our sessions set what they rely on, an app's may have set anything, the rest is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.support.database_flow import HOSTILE, reinstall, run_flow, set_on_database
from tests.support.shared_database import drop_database
from tocsin.client import notify
from tocsin.engine.store.health import NotReady, check_start
from tocsin.migrate import migrate
from tocsin.sql.install import MigrationError

Db = psycopg.Connection[Any]

# the app's own affair: what these forbid is refused to it
APP = (
    "default_transaction_read_only = off",
    "statement_timeout = 0",
    "lock_timeout = 0",
    "idle_in_transaction_session_timeout = 0",
    "idle_session_timeout = 0",
)


async def test_all_works_on_a_database_that_set_everything_otherwise(
    dsn: str, tmp_path: Path
) -> None:
    set_on_database(dsn, HOSTILE)
    reinstall(dsn)
    await run_flow(dsn, tmp_path, APP)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_notify_keeps_its_promises_at_each_isolation_level(db: Db, dsn: str, level: str) -> None:
    """It counts in its own transaction, is gone on rollback, and never makes another one's wait or fail."""
    db.execute("select tocsin.upsert_recipient(n) from unnest(array['alice', 'bob']) n")
    count = "select tocsin.unread_count('alice')"
    with psycopg.connect(dsn) as one, psycopg.connect(dsn) as other:
        for app in (one, other):
            app.execute(f"set session characteristics as transaction isolation level {level}")
            app.commit()
            assert app.execute(count).fetchone() == (0,)
        for app in (one, other):
            notify(app, recipient=["alice", "bob"], event_type="forum.new_reply", title="Hi")
            notify(app, recipient="alice", event_type="forum.new_reply", title="Hi")
            assert app.execute(count).fetchone() == (2,)
        one.commit()
        other.rollback()
        assert db.execute(count).fetchone() == (2,)


def test_two_calls_with_one_key_store_one_event_at_each_isolation_level(db: Db, dsn: str) -> None:
    """With an older snapshot the later one gets a serialization failure, and the same event when it retries."""
    db.execute("select tocsin.upsert_recipient('alice')")
    call = "select tocsin.notify('forum.new_reply', array['alice'], 'Hi', idempotency_key => 'k')"
    with psycopg.connect(dsn) as one, psycopg.connect(dsn) as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        other.execute("select 1 from tocsin.event_type limit 1")  # takes its snapshot
        first = one.execute(call).fetchone()
        failed: list[Exception] = []

        def notify_people() -> None:
            try:
                other.execute(call)
            except psycopg.Error as error:
                failed.append(error)

        calling = threading.Thread(target=notify_people)
        calling.start()
        one.commit()
        calling.join()
        assert [type(each) for each in failed] == [psycopg.errors.SerializationFailure]
        other.rollback()
        assert other.execute(call).fetchone() == first
    assert db.execute("select count(*) from tocsin.event").fetchone() == (1,)


@pytest.mark.parametrize("key", [None, "a key"], ids=["usual", "with key"])
def test_a_read_only_transaction_is_refused_with_the_cure(
    db: Db, dsn: str, key: str | None
) -> None:
    db.execute("select tocsin.upsert_recipient('alice')")
    with psycopg.connect(dsn) as app:
        app.read_only = True
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as caught:
            notify(
                app,
                recipient="alice",
                event_type="forum.new_reply",
                title="Hi",
                idempotency_key=key,
            )
        assert caught.value.diag.message_primary == (
            "an event can't be stored in a read-only transaction"
        )
        assert "READ WRITE" in (caught.value.diag.message_hint or "")
        app.rollback()
        assert app.execute("select tocsin.unread_count('alice')").fetchone() == (0,)


def test_no_duration_depends_on_the_zone_of_the_session_that_adds_it(db: Db) -> None:
    found = db.execute(
        "select event_type from tocsin.event_type t"
        " where extract(day from t.time_to_live) <> 0"
        "   or exists (select from jsonb_each_text(t.delays) d where extract(day from d.value::interval) <> 0)"
    ).fetchall()
    assert found == []


def test_each_table_can_be_published(db: Db) -> None:
    """A publication of all tables refuses changes of rows that it can't identify, in Procrastinate's tables too."""
    found = db.execute(
        "select c.oid::regclass::text from pg_class c"
        " where c.relkind in ('r', 'p') and c.relnamespace in ('tocsin'::regnamespace, 'tocsin_queue'::regnamespace)"
        "   and c.relreplident <> 'f'"
        "   and not exists (select from pg_index i where i.indrelid = c.oid and (i.indisprimary or i.indisreplident))"
    ).fetchall()
    assert found == []


@pytest.fixture
def ascii_dsn(db: Db, dsn: str) -> Iterator[str]:
    """A database without an encoding."""
    name = f"{db.info.dbname}_ascii"
    db.execute(f"create database {name} encoding 'SQL_ASCII' locale 'C' template template0")
    yield make_conninfo(dsn, dbname=name)
    drop_database(db, name)


async def test_a_database_without_an_encoding_is_refused_in_one_line(ascii_dsn: str) -> None:
    with pytest.raises(MigrationError, match=r"^The database's encoding is SQL_ASCII: [^\n]+$"):
        migrate(ascii_dsn)
    with pytest.raises(NotReady, match=r"^The database's encoding is SQL_ASCII: [^\n]+$"):
        await check_start(ascii_dsn, wait=0)
