"""The Python helper on the app's own connection."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date, datetime

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import set_json_dumps

import tocsin
from tocsin import notify


@pytest.fixture
def conn(dsn: str) -> psycopg.Connection[dict[str, object]]:
    """An app's connection, with a row factory of its own and a transaction open."""
    connection = psycopg.connect(dsn, row_factory=dict_row)
    tocsin.upsert_recipient(connection, "alice", email="alice@example.com")
    tocsin.upsert_recipient(connection, "bob")
    connection.commit()
    return connection


def test_it_happens_if_and_only_if_the_caller_commits(
    conn: psycopg.Connection[dict[str, object]],
) -> None:
    with conn:
        event_id = notify(
            conn,
            recipient=(name for name in ("alice", "bob")),
            event_type="forum.new_reply",
            title="Hello",
            metadata={"a": 1},
        )
        assert isinstance(event_id, int)
        assert tocsin.unread_count(conn, "alice") == 1
        conn.rollback()
        assert tocsin.unread_count(conn, "alice") == 0
        again = notify(conn, recipient="alice", event_type="forum.new_reply", title="Hello")
        conn.commit()
        assert tocsin.unread_count(conn, "alice") == 1
        assert tocsin.cancel(conn, again) == 1
        assert tocsin.unread_count(conn, "alice") == 0


def test_any_connection_of_an_app_will_do(
    conn: psycopg.Connection[dict[str, object]], dsn: str
) -> None:
    conn.close()
    of_clients = psycopg.connect(dsn, cursor_factory=psycopg.ClientCursor, prepare_threshold=None)
    prepared = psycopg.connect(dsn, prepare_threshold=0, client_encoding="latin1")
    set_json_dumps(lambda value: json.dumps(value, default=str), prepared)
    piped = psycopg.connect(dsn, autocommit=True)
    with of_clients, prepared, piped, piped.pipeline():
        for other in (of_clients, prepared, piped):
            for _ in range(7):  # psycopg prepares a statement that comes for the sixth time
                notify(
                    other,
                    recipient="alice",
                    event_type="forum.new_reply",
                    title="Ü",
                    metadata={"on": date(2026, 11, 22)} if other is prepared else None,
                )
            assert tocsin.unread_count(other, "alice") == 7
            if not other.autocommit:
                other.rollback()


async def test_an_async_connection_is_awaited(
    conn: psycopg.Connection[dict[str, object]], dsn: str
) -> None:
    conn.close()
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await tocsin.upsert_recipient(other, "carol", email="carol@example.com")
        event_id = await notify(other, recipient="carol", event_type="forum.new_reply", title="Hi")
        assert await tocsin.unread_count(other, "carol") == 1
        assert await tocsin.cancel(other, event_id) == 1
        with pytest.raises(tocsin.UnknownRecipient):
            await notify(other, recipient="nobody", event_type="forum.new_reply", title="Hi")
        await other.rollback()


def test_what_an_event_is_about_is_read_replaced_and_withdrawn(
    conn: psycopg.Connection[dict[str, object]],
) -> None:
    with conn:
        for number in range(3):
            notify(
                conn,
                recipient=["alice", "zoe"],
                event_type="forum.new_reply",
                title=f"Build {number} of 3",
                subject="build:7",
                replaces=True,
                content={"translations": {"de": {"title": f"Bau {number} von 3"}}},
                actions=[{"key": "stop", "label": "Stop"}],
                unknown="create",
            )
        assert tocsin.unread_count(conn, "alice") == 1
        assert tocsin.mark_read(conn, "alice", "build:7") == 1
        assert tocsin.unread_count(conn, "alice") == 0
        tocsin.notify_topic(
            conn,
            topic="forum.thread:42",
            event_type="forum.new_reply",
            title="New reply",
            initiator="bob",
            subscribe_initiator=True,
            subject="forum.thread:42",
        )
        assert tocsin.withdraw(conn, "forum.thread:42") == 1
        assert tocsin.withdraw(conn, "build:7", "forum.new_reply") == 3
        with pytest.raises(tocsin.InvalidArgument, match="replaces is true without a subject"):
            notify(conn, recipient="alice", event_type="forum.new_reply", title="x", replaces=True)


def test_an_address_is_notified_and_claimed(conn: psycopg.Connection[dict[str, object]]) -> None:
    with conn:
        invited = tocsin.notify_email(
            conn,
            email="Zoe@example.com",
            event_type="event.invited",
            title="Join us",
            initiator="bob",
        )
        assert isinstance(invited, int)
        assert tocsin.claim_email(conn, "zoe@example.com", "alice") == 1
        assert tocsin.unread_count(conn, "alice") == 1
        with pytest.raises(tocsin.UnknownRecipient) as unknown:
            tocsin.claim_email(conn, "zoe@example.com", "nobody")
        assert unknown.value.argument == "recipient"


async def test_an_address_is_notified_and_claimed_on_an_async_connection(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await tocsin.upsert_recipient(other, "carol")
        await tocsin.notify_email(
            other, email="carol@example.com", event_type="event.invited", title="Join us"
        )
        assert await tocsin.claim_email(other, "carol@example.com", "carol") == 1
        assert await tocsin.unread_count(other, "carol") == 1


def test_refusals_are_typed_and_name_the_cure(conn: psycopg.Connection[dict[str, object]]) -> None:
    with conn, pytest.raises(tocsin.UnknownEventType) as unknown, conn.transaction():
        notify(conn, recipient="alice", event_type="forum.new_repyl", title="x")
    assert "forum.new_reply" in unknown.value.hint
    assert unknown.value.argument == "event_type"
    assert isinstance(unknown.value.__cause__, psycopg.Error)


def test_one_text_with_several_ids_is_named(conn: psycopg.Connection[dict[str, object]]) -> None:
    with conn, pytest.raises(tocsin.UnknownRecipient) as unknown, conn.transaction():
        notify(conn, recipient="alice,bob", event_type="forum.new_reply", title="x")
    assert "several elements of an array" in unknown.value.hint


def test_each_refusal_has_its_own_type(conn: psycopg.Connection[dict[str, object]]) -> None:
    def call(title: str = "x", recipient: str = "alice") -> None:
        with conn.transaction():
            notify(
                conn,
                recipient=recipient,
                event_type="forum.mention",
                title=title,
                idempotency_key="k",
            )

    with conn:
        with pytest.raises(tocsin.UnknownRecipient):
            call(recipient="nobody")
        call()
        with pytest.raises(tocsin.IdempotencyConflict):
            call("other")
        with pytest.raises(tocsin.InvalidArgument):
            call("")
        with pytest.raises(tocsin.InvalidArgument), conn.transaction():
            tocsin.upsert_recipient(conn, "x", timezone="Mars/Base")
        naive = datetime(2030, 1, 1)  # noqa: DTZ001
        with pytest.raises(tocsin.InvalidArgument):
            notify(conn, recipient="alice", event_type="forum.mention", title="x", send_at=naive)


def test_importing_it_imports_nothing_but_psycopg() -> None:
    code = """
import sys, psycopg
before = set(sys.modules)
import tocsin
added = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(added - sys.stdlib_module_names))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['tocsin']"
