"""The database server's log: failing calls write nothing into it that people wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.support.cluster import *  # noqa: F403 - fixtures
from tests.support.cluster import Admin
from tocsin.engine.model import Invalid
from tocsin.engine.store.database import Database
from tocsin.engine.store.dispatch import LeaderSession
from tocsin.migrate import login_dsn, migrate

# -- the server's log

CANARY = "kanarienvogel"


FAILING = [
    "select tocsin.notify('forum.nothing', array['alice'], %(text)s, %(text)s)",
    "select tocsin.notify('forum.new_reply', array['nobody'], %(text)s, %(text)s, body_html => %(text)s)",
    "select tocsin.notify('forum.new_reply', array['alice'], %(lines)s, %(text)s)",
    "select tocsin.notify('forum.new_reply', array['alice'], %(long)s, %(text)s)",
    "select tocsin.notify('forum.new_reply', array['alice'], 'x', action_url => %(text)s)",
    "select tocsin.notify('forum.new_reply', array['alice'], 'x', metadata => to_jsonb(%(text)s::text))",
    "select tocsin.notify('forum.new_reply', array['alice', null], %(text)s, %(text)s)",
    "select tocsin.notify('forum.new_reply', array['alice'], %(text)s, initiator => repeat('x', 201))",
    "select tocsin.notify('forum.new_reply', array['alice'], %(text)s, idempotency_key => 'used')",
    "select tocsin.notify_topic('no topic', 'forum.new_reply', %(text)s, %(text)s)",
    "select tocsin.notify_email(%(text)s, 'forum.new_reply', %(text)s, %(text)s)",
    "select tocsin.upsert_recipient('carol', email => %(text)s)",
    "select tocsin.upsert_recipient('carol', email => %(address)s, name => %(lines)s)",
    "select tocsin.upsert_recipient('carol', email => %(address)s, locale => %(text)s)",
    "select tocsin.claim_email(%(text)s, 'alice')",
    "select tocsin.claim_email(%(address)s, 'nobody')",
]  # fmt: skip


@pytest.fixture
def logged(server_folder: Path, admin_dsn: str) -> Callable[[], str]:
    """What the server has logged since the test began."""
    log = server_folder / "roles" / "postgres.log"
    begin = log.stat().st_size
    return lambda: log.read_bytes()[begin:].decode(errors="replace")


def fail_each(dsn: str, cursors: type[psycopg.Cursor[Any]]) -> None:
    """Makes all the failing calls, on one connection of an app."""
    texts = {
        "text": CANARY,
        "lines": f"{CANARY}\n{CANARY}",
        "long": f"{CANARY} " * 100,
        "address": f"{CANARY}@example.com",
    }
    with psycopg.connect(dsn, autocommit=True, cursor_factory=cursors) as app:
        app.execute("select tocsin.upsert_recipient('alice')")
        app.execute(
            "select tocsin.notify('forum.new_reply', array['alice'], 'x', idempotency_key => 'used')"
        )
        for call in FAILING:
            with pytest.raises(psycopg.Error) as caught:
                app.execute(call, texts)
            assert (caught.value.sqlstate or "").startswith("TC"), call


def test_messages_of_failing_calls_have_nothing_that_people_wrote(
    admin: Admin, admin_dsn: str, data_dir: Path, logged: Callable[[], str]
) -> None:
    """And the values of an app's login stay out of the log also where the database would log them."""
    migrate(admin_dsn)
    admin("alter database app set log_parameter_max_length_on_error = -1")
    fail_each(login_dsn(admin_dsn, data_dir, "app"), psycopg.Cursor)
    assert logged().count("ERROR:") == len(FAILING)
    assert CANARY not in logged()


def test_an_owner_that_may_keeps_the_literals_of_failing_calls_out_of_the_log(
    admin: Admin, admin_dsn: str, data_dir: Path, logged: Callable[[], str]
) -> None:
    migrate(admin_dsn)
    app = login_dsn(admin_dsn, data_dir, "app")
    fail_each(app, psycopg.ClientCursor)
    assert logged().count("STATEMENT:") == logged().count("ERROR:") == len(FAILING)
    assert CANARY in logged()
    admin("grant set on parameter log_min_error_statement to tocsin_owner")
    migrate(admin_dsn)
    before = len(logged())
    fail_each(app, psycopg.ClientCursor)
    assert logged()[before:].count("ERROR:") == len(FAILING)
    assert CANARY not in logged()[before:]
    admin("revoke set on parameter log_min_error_statement from tocsin_owner")
    migrate(admin_dsn)  # and without the right the calls work again
    fail_each(app, psycopg.Cursor)


async def test_a_services_own_sessions_keep_their_values_out_of_the_log(
    admin: Admin, admin_dsn: str, data_dir: Path, logged: Callable[[], str]
) -> None:
    migrate(admin_dsn)
    admin("create role plain login password 'x'")
    admin("grant tocsin_service to plain")
    admin("alter database app set log_parameter_max_length_on_error = -1")
    plain = make_conninfo(admin_dsn, user="plain", password="x")
    database = Database(plain)
    await database.open()
    bell = await LeaderSession.connect(plain)
    try:
        for session in (database, bell):
            with pytest.raises(Invalid):
                await session.value(
                    "select tocsin.notify('forum.nothing', array['alice'], %(title)s)", title=CANARY
                )
    finally:
        await bell.close()
        await database.close()
    assert logged().count("ERROR:") == 2
    assert CANARY not in logged()
