"""The test kit of host apps: the outbox, the pytest plugin and the schema in a fresh database."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

import tocsin
from tests.support.shared_database import drop_database
from tocsin import notify
from tocsin.migrate import login_dsn
from tocsin.testing import AsyncOutbox, Outbox, OutboxError, install_schema, plugin

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def app(dsn: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """An app's connection in a test, whose transaction is rolled back at its end."""
    connection = psycopg.connect(dsn, row_factory=dict_row)
    tocsin.upsert_recipient(connection, "alice", email="alice@example.com")
    tocsin.upsert_recipient(connection, "bob", email="bob@example.com")
    yield connection
    connection.close()


def reply(conn: Any, recipient: str | list[str] = "alice", **options: Any) -> Any:
    return notify(
        conn, recipient=recipient, event_type="forum.new_reply", title="New reply", **options
    )


def test_an_outbox_sees_what_the_open_transaction_notified(app: psycopg.Connection[Any]) -> None:
    outbox = Outbox(app)
    outbox.assert_nothing()

    event_id = reply(app, ["alice", "bob"], metadata={"post": 12}, body="Yes")

    (event,) = outbox.events
    assert (event.id, event.title, event.body) == (event_id, "New reply", "Yes")
    assert event.metadata == {"post": 12}
    assert event.recipients == ("alice", "bob")
    notification = outbox.assert_notified("alice", "forum.new_reply")
    assert notification.event == event
    assert notification.channels == ("in_app", "email")
    assert str(notification.decisions["push"]) == "push off (no_provider)"
    assert [each.address for each in outbox.deliveries("email")] == [
        "alice@example.com",
        "bob@example.com",
    ]
    assert outbox.deliveries("push") == []
    app.rollback()
    outbox.assert_nothing()


def test_a_failed_assertion_lists_what_was_notified_instead(app: psycopg.Connection[Any]) -> None:
    outbox = Outbox(app)
    reply(app, ["alice", "bob"], initiator="bob")
    notify(
        app,
        recipient="alice",
        event_type="bulletin.new_org",
        title="Later",
        send_at=datetime.now(UTC) + timedelta(hours=1),
    )

    with pytest.raises(AssertionError) as failed:
        outbox.assert_notified("bob", "forum.new_reply")

    message = str(failed.value)
    assert message.startswith("bob was not notified of forum.new_reply. In the outbox:\n")
    assert 'alice: forum.new_reply "New reply": in_app on (default), email on (default)' in message
    assert "bob is its initiator" in message
    assert "scheduled for" in message
    with pytest.raises(AssertionError, match="Something was notified"):
        outbox.assert_nothing()
    outbox.clear()
    outbox.assert_nothing()
    with pytest.raises(
        AssertionError,
        match=r"alice was not notified of forum\.new_reply by push\. The outbox is empty",
    ):
        outbox.assert_notified("alice", "forum.new_reply", channel="push")


def test_a_failed_assertion_names_only_the_event_s_own_initiator(
    app: psycopg.Connection[Any],
) -> None:
    outbox = Outbox(app)
    reply(app, ["alice"], initiator=None)

    with pytest.raises(AssertionError) as failed:
        outbox.assert_notified("bob", "forum.new_reply")
    with pytest.raises(AssertionError) as something:
        outbox.assert_nothing()

    assert "initiator" not in str(failed.value)
    assert "initiator" not in str(something.value)


def test_who_muted_a_topic_is_not_notified(app: psycopg.Connection[Any]) -> None:
    outbox = Outbox(app)
    tocsin.subscribe(app, "alice", "forum.thread:7")
    tocsin.subscribe(app, "bob", "forum.thread:7", "muted")

    tocsin.notify_topic(app, topic="forum.thread:7", event_type="forum.new_reply", title="Hello")

    assert outbox.assert_notified("alice", "forum.new_reply", channel="email").because == "followed"
    outbox.assert_not_notified("bob")
    (muted,) = outbox.notifications(recipient="bob")
    assert str(muted.decisions["email"]) == "email off (muted)"
    with pytest.raises(AssertionError, match=r"bob: forum\.new_reply .*email off \(muted\)"):
        outbox.assert_notified("bob", "forum.new_reply")
    with pytest.raises(AssertionError, match="alice was notified:"):
        outbox.assert_not_notified("alice")


def test_a_digest_notifies_without_a_delivery(app: psycopg.Connection[Any]) -> None:
    app.execute(
        "insert into tocsin.digest_preference (recipient_id, frequency) values ('alice', 'daily')"
    )
    outbox = Outbox(app)

    reply(app)

    decision = outbox.assert_notified("alice", "forum.new_reply").decisions["email"]
    assert not decision.on
    assert decision.joins_digest
    assert outbox.deliveries() == []


def test_a_cancelled_event_notified_nobody(app: psycopg.Connection[Any]) -> None:
    outbox = Outbox(app)

    tocsin.cancel(app, reply(app))

    outbox.assert_nothing()
    outbox.assert_not_notified("alice")
    assert [each.state for each in outbox.deliveries()] == ["cancelled"]
    with pytest.raises(AssertionError, match=r'alice: forum\.new_reply "New reply": cancelled'):
        outbox.assert_notified("alice", "forum.new_reply")


def test_an_address_without_an_account_has_a_delivery(app: psycopg.Connection[Any]) -> None:
    tocsin.notify_email(app, email="zoe@example.org", event_type="event.invited", title="Come")

    (delivery,) = Outbox(app).deliveries("email")

    assert (delivery.address, delivery.recipient, delivery.event.email) == (
        "zoe@example.org",
        None,
        "zoe@example.org",
    )


def test_a_push_names_the_device_and_quiet_hours_hold_it(dsn: str) -> None:
    with psycopg.connect(dsn) as app:
        install_schema(app)
        tocsin.upsert_recipient(app, "alice", timezone="UTC")
        app.execute(
            "insert into tocsin.device (token, recipient_id, platform, provider)"
            " values ('t0ken', 'alice', 'ios', 'apns')"
        )
        app.execute(
            "insert into tocsin.quiet_hours (recipient_id, starts, ends)"
            " values ('alice', (now() - interval '1 hour')::time, (now() + interval '1 hour')::time)"
        )
        reply(app)

        (delivery,) = Outbox(app).deliveries(recipient="alice")

    assert (delivery.channel, delivery.address, delivery.provider) == ("push", "t0ken", "apns")
    assert (delivery.state, delivery.reason) == ("deferred", "quiet_hours")
    assert delivery.due_at is not None


async def test_an_async_connection_has_an_outbox_that_is_awaited(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as app:
        await tocsin.upsert_recipient(app, "alice", email="alice@example.com")
        outbox = AsyncOutbox(app)
        await reply(app)

        await outbox.assert_notified("alice", "forum.new_reply", channel="email")
        assert len(await outbox.events()) == len(await outbox.deliveries()) == 1
        await outbox.clear()
        await outbox.assert_nothing()
        with pytest.raises(OutboxError, match=r"AsyncOutbox\(connection\)"):
            Outbox(app)


def test_what_keeps_an_outbox_from_being_read_names_the_cure(
    app: psycopg.Connection[Any], dsn: str, tmp_path: Path
) -> None:
    with psycopg.connect(make_conninfo(dsn, dbname="postgres")) as empty:
        with pytest.raises(OutboxError, match="install_schema"):
            Outbox(empty).assert_nothing()
    with psycopg.connect(login_dsn(dsn, tmp_path, "app")) as foreign:
        with pytest.raises(OutboxError, match="the role that installed the schema"):
            Outbox(foreign).assert_nothing()
    with pytest.raises(tocsin.client.UnknownRecipient):
        reply(app, "nobody")
    with pytest.raises(OutboxError, match="savepoint"):
        Outbox(app).assert_nothing()


@pytest.fixture
def fresh(server_dsn: str) -> Iterator[str]:
    """A database without Tocsin."""
    name = f"fresh_{os.getpid()}"
    with psycopg.connect(server_dsn, dbname="postgres", autocommit=True) as admin:
        drop_database(admin, name)
        admin.execute(f"create database {name}".encode())
        yield make_conninfo(server_dsn, dbname=name)
        drop_database(admin, name)


def test_the_schema_is_installed_in_the_open_transaction_of_any_connection(fresh: str) -> None:
    with psycopg.connect(fresh, row_factory=dict_row) as connection:
        connection.execute("create schema app")
        connection.execute("set search_path = app")
        install_schema(connection)
        path = connection.execute(
            "select current_setting('search_path') as path, current_user as me"
        )
        assert path.fetchone() == {"path": "app", "me": "tocsin_owner"}
        tocsin.upsert_recipient(connection, "alice", email="alice@example.com")
        reply(connection)
        Outbox(connection).assert_notified("alice", "forum.new_reply", channel="email")
        connection.rollback()
        with pytest.raises(OutboxError, match="install_schema"):
            Outbox(connection).assert_nothing()
    install_schema(fresh)
    install_schema(fresh, channels=["push"])
    with psycopg.connect(fresh) as connection:
        tocsin.upsert_recipient(connection, "alice", email="alice@example.com")
        reply(connection)
        (only,) = Outbox(connection).notifications()
        assert str(only.decisions["email"]) == "email off (no_provider)"


def snippet(first_line: str) -> str:
    """The block of the guide that begins so."""
    guide = (ROOT / "docs" / "guides" / "testing.md").read_text("utf-8")
    (block,) = re.findall(rf"^```py\n({first_line}\n.*?)^```", guide, re.MULTILINE | re.DOTALL)
    return str(block)


MORE = """
def test_nothing_is_left_of_the_tests_before(tocsin_outbox):
    tocsin_outbox.assert_nothing()

def test_earlier_fixtures_of_the_same_transaction_count(connection, request):
    post_reply(connection, "carol")
    request.getfixturevalue("tocsin_outbox").assert_notified("alice", "forum.new_reply")

def test_what_was_committed_does_not_count_in_the_next_test(connection):
    post_reply(connection, "carol")
    connection.commit()

def test_the_next_test(tocsin_outbox):
    tocsin_outbox.assert_nothing()
"""


def run_pytest(folder: Path, dsn: str) -> str:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "tocsin.testing.plugin",
            "-p",
            "no:cacheprovider",
            folder,
        ],
        cwd=folder,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "TEST_DSN": dsn},
        capture_output=True,
        text=True,
        timeout=600,
    )
    return done.stdout + done.stderr


def test_the_guide_works_as_it_is_written(fresh: str, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(snippet("# conftest.py"))
    (tmp_path / "test_forum.py").write_text(snippet("# test_forum.py") + MORE)
    output = run_pytest(tmp_path, fresh)
    assert "8 passed" in output, output


def test_the_plugin_names_the_fixture_to_override(tmp_path: Path) -> None:
    (tmp_path / "test_app.py").write_text("def test_app(tocsin_outbox): ...")
    output = run_pytest(tmp_path, "")
    assert "override the fixture tocsin_connection in conftest.py" in output


def test_pytest_finds_the_plugin_by_its_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"tocsin": plugin.__name__}


def test_the_test_kit_loads_neither_a_server_nor_far_ends() -> None:
    code = (
        "import sys, tocsin.testing, tocsin.testing.plugin;"
        "heavy = {'msgspec', 'litestar', 'procrastinate', 'aiohttp', 'structlog', 'aiosql'} & set(sys.modules);"
        "sys.exit(f'loads {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
