"""`tocsin doctor` where a whole PostgreSQL server has a fault: each one is made, found, and named with its cure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from servers import NEWEST, OWNER, Server, server, standby

from tests.support.doctor import find, is_green, is_red, is_yellow
from tests.support.run_folder import run_folder
from tests.support.services import until
from tocsin.cli.doctor.examination import DoctorOptions
from tocsin.migrate import migrate

# small, so that its limits can be reached; WAL that is kept takes no time
SETTINGS = (
    "max_connections=20",
    "max_prepared_transactions=1",
    "max_notify_queue_pages=64",
    "wal_init_zero=off",
    "wal_recycle=off",
    "max_wal_size=8GB",
)
AT_ONCE = DoctorOptions(long_transaction=timedelta(0))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with run_folder() as found:
        yield found


@pytest.fixture(scope="module")
def own(folder: Path) -> Iterator[Server]:
    """A server that these tests may change; each restores what it changed."""
    with server(NEWEST, folder, *SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def dsn(own: Server) -> Iterator[str]:
    """A migrated database, as its owner."""
    with own.database("app", "locale_provider builtin builtin_locale 'C.UTF-8'") as found:
        migrate(found)
        yield found


@contextmanager
def altered(own: Server, **settings: str) -> Iterator[None]:
    """Yields the server with other settings, until the end of the block."""
    with as_superuser(own) as admin:
        admin.execute("set synchronous_commit = local")
        before = {name: _value(admin, name) for name in settings}
        _alter(admin, settings)
        try:
            yield
        finally:
            _alter(admin, before)


def _alter(admin: psycopg.Connection[Any], settings: dict[str, str]) -> None:
    for name, value in settings.items():
        admin.execute(f"alter system set {name} = '{value}'".encode())
    admin.execute("select pg_reload_conf()")
    while any(_value(admin, name) != value for name, value in settings.items()):
        admin.execute("select pg_sleep(0.01)")  # until the session has read them


def _value(admin: psycopg.Connection[Any], name: str) -> str:
    row = admin.execute("select current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])


def as_superuser(own: Server, database: str = "postgres") -> psycopg.Connection[Any]:
    return psycopg.connect(own.dsn(database), autocommit=True)


async def test_a_queue_of_notify_that_fills_is_yellow_and_then_red(dsn: str) -> None:
    """A session that listens, and stays in a transaction, keeps what comes after it."""
    with psycopg.connect(dsn) as listening, psycopg.connect(dsn, autocommit=True) as app:
        listening.execute("listen something")
        listening.commit()
        listening.execute("select 1")
        _fill(app, pages=20)
        await is_yellow("notify", "of the queue of NOTIFY", "`transactions`", database_url=dsn)
        _fill(app, pages=30)
        await is_red("notify", "every commit that notifies fails", "end it", database_url=dsn)


def _fill(app: psycopg.Connection[Any], *, pages: int) -> None:
    for number in range(pages):
        app.execute("select pg_notify('something', %s || repeat('x', 7900))", [f"{number}"])


async def test_a_prepared_transaction_that_was_forgotten_is_red(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as app:
        app.execute("begin; create table made_in_it (number int); prepare transaction 'forgotten'")
    options = {"database_url": dsn, "options": AT_ONCE}
    try:
        await is_red("transactions", "forgotten", "rollback prepared 'forgotten'", **options)
    finally:
        with psycopg.connect(dsn, autocommit=True) as app:
            app.execute("rollback prepared 'forgotten'")


async def test_a_full_disk_is_red(own: Server, dsn: str) -> None:
    """The file of a table is on a device that is always full."""
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute("truncate tocsin.idempotency")
        row = owner.execute("select pg_relation_filepath('tocsin.idempotency')").fetchone()
        assert row is not None
        file = own.data / row[0]
        file.unlink()
        file.symlink_to("/dev/full")
        try:
            await is_red("storage", "No space left on device", "Free space", database_url=dsn)
        finally:
            owner.execute("truncate tocsin.idempotency")


async def test_what_a_server_neglects_is_named(own: Server, dsn: str) -> None:
    """Autovacuum, transaction ids that were never frozen, indexes of an earlier library, and fsync."""
    old = "update pg_database set datfrozenxid = %s::text::xid, datcollversion = %s where datname = 'app'"
    with altered(own, autovacuum="off"), as_superuser(own) as admin:
        admin.execute("set allow_system_table_mods = on")
        row = admin.execute(
            "select datfrozenxid::text, datcollversion, pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
            " from pg_database where datname = 'app'"
        ).fetchone()
        assert row is not None
        frozen, version, current = row
        admin.execute(old, [(current - 1_100_000_000) % 2**32, "0"])
        try:
            found = await find("storage", database_url=dsn)
        finally:
            admin.execute(old, [frozen, version])
    for status, sentence, cure in (
        ("red", "Autovacuum is off", "autovacuum = on"),
        ("red", "The oldest transaction id is 1,100,000,", "vacuum (freeze)"),
        ("yellow", "collation library changed", "refresh collation version"),
        ("yellow", "fsync is off", "fsync = on"),
    ):
        (one,) = [each for each in found if sentence in each.sentence]
        assert (one.status, cure in one.cure) == (status, True)


async def test_a_server_without_a_free_connection_is_red(dsn: str) -> None:
    with ExitStack() as apps:
        with suppress(psycopg.OperationalError):
            while True:
                apps.enter_context(psycopg.connect(dsn))
        await is_red(
            "database", "remaining connection slots", "raise max_connections", database_url=dsn
        )


async def test_a_login_that_pg_hba_does_not_have_is_red(own: Server, dsn: str) -> None:
    file = own.data / "pg_hba.conf"
    before = file.read_text()
    with as_superuser(own) as admin:
        file.write_text("host all postgres 127.0.0.1/32 trust\n")
        admin.execute("select pg_reload_conf()")
        try:
            await until(lambda: not _may_connect(dsn))
            await is_red("database", "no pg_hba.conf entry", "Allow this host", database_url=dsn)
        finally:
            file.write_text(before)
            admin.execute("select pg_reload_conf()")
            await until(lambda: _may_connect(dsn))


def _may_connect(dsn: str) -> bool:
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError:
        return False
    return True


async def test_a_missing_synchronous_standby_is_red_since_commits_wait(
    own: Server, dsn: str
) -> None:
    with altered(own, synchronous_standby_names="nowhere"):
        await is_red("replication", "commits wait", "Start the standby", database_url=dsn)

        async def waits() -> bool:  # once the checkpointer has read the setting too
            found = await find("storage", database_url=dsn)
            return any("did not end within" in each.sentence for each in found)

        await until(waits)


async def test_a_slot_that_nobody_reads_is_yellow(own: Server, dsn: str) -> None:
    with as_superuser(own) as admin:
        admin.execute("select pg_create_physical_replication_slot('old', true)")
        try:
            for _ in range(66):  # segments of 16 MB
                admin.execute("select pg_logical_emit_message(false, 'doctor', 'x')")
                admin.execute("select pg_switch_wal()")
            await is_yellow(
                "replication",
                "The replication slot old",
                "pg_drop_replication_slot('old')",
                database_url=dsn,
            )
        finally:
            admin.execute("select pg_drop_replication_slot('old')")
            admin.execute("checkpoint")


async def test_a_standby_is_refused_and_one_that_is_late_is_yellow(
    own: Server, dsn: str, folder: Path
) -> None:
    with standby(own, folder / "standby", *SETTINGS) as follower, as_superuser(follower) as paused:
        await is_red(
            "requirements", "standby", "", database_url=make_conninfo(dsn, port=follower.port)
        )
        seeing = own.dsn("app")

        async def keeps_up() -> bool:
            found = await find("replication", database_url=seeing)
            return [each.sentence for each in found] == ["1 standbys are connected, and keep up."]

        await until(keeps_up)
        (hidden,) = await find("replication", database_url=dsn)
        assert (hidden.status, "pg_read_all_stats" in hidden.sentence) == ("skipped", True)
        paused.execute("select pg_wal_replay_pause()")
        with psycopg.connect(dsn, autocommit=True) as app:
            app.execute("select tocsin.upsert_recipient('alice')")
        await is_yellow(
            "replication", "has not replayed within 5 s", "load and network", database_url=seeing
        )


async def test_commits_that_wait_for_a_slow_standby_are_yellow(
    own: Server, dsn: str, folder: Path
) -> None:
    with (
        standby(own, folder / "slow", *SETTINGS, "recovery_min_apply_delay=300"),
        altered(own, synchronous_standby_names="*"),
        as_superuser(own) as admin,
    ):
        admin.execute("set synchronous_commit = local")
        admin.execute("alter database app set synchronous_commit = remote_apply")

        async def is_late() -> bool:  # once the standby has connected
            found = await find("storage", database_url=dsn)
            return any("A commit takes" in each.sentence for each in found)

        await until(is_late)
        await is_yellow("storage", "A commit takes", "a synchronous standby", database_url=dsn)
        admin.execute("alter database app reset synchronous_commit")


async def test_a_server_that_starts_is_red_and_so_is_a_closed_standby(
    own: Server, dsn: str, folder: Path
) -> None:
    """At its start it waits for a file of the archive."""
    archive = "restore_command='sleep 30; false'"
    with standby(own, folder / "starting", *SETTINGS, archive, accepting=False) as starting:
        url = make_conninfo(dsn, port=starting.port)
        await is_red("database", "starting up", "Wait until PostgreSQL", database_url=url)
    with standby(own, folder / "closed", *SETTINGS, "hot_standby=off") as closed:
        url = make_conninfo(dsn, port=closed.port)
        await is_red("database", "Hot standby mode is disabled", "the primary", database_url=url)


async def test_an_old_postgresql_is_red(folder: Path) -> None:
    with server(14, folder / "old") as old:
        await is_red(
            "requirements", "PostgreSQL 14 is too old", "15 or newer", database_url=old.dsn()
        )


async def test_roles_that_are_not_as_they_should_be_are_named(own: Server, dsn: str) -> None:
    superuser = own.dsn("app")
    await is_yellow(
        "rights",
        "postgres of TOCSIN_DATABASE_URL is a superuser",
        "tocsin_service",
        database_url=superuser,
    )
    with as_superuser(own, "app") as admin:
        admin.execute("alter schema tocsin owner to postgres")
        await is_red(
            "rights", "belongs to the superuser postgres", "as a superuser", database_url=superuser
        )
        admin.execute(f"alter schema tocsin owner to {OWNER}".encode())
        admin.execute("alter role tocsin_app rename to another")
        await is_red(
            "rights", "The role tocsin_app does not exist", "tocsin migrate", database_url=dsn
        )
        admin.execute("alter role another rename to tocsin_app")
    await is_green("rights", database_url=dsn)
