"""The calls on connections of asyncpg, and the code of docs/guides/asyncpg.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from tests.support import guides
from tocsin import (
    InvalidArgument,
    NotifyError,
    UnknownRecipient,
    claim_email,
    erase_recipient,
    notify,
    notify_email,
    notify_topic,
    register_push_token,
    subscribe,
    unread_count,
    unsubscribe,
    upsert_recipient,
)
from tocsin.testing import AsyncOutbox

REPLY: dict[str, Any] = {"event_type": "forum.new_reply", "title": "Hello"}


@pytest.fixture
async def pool() -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(os.environ["APP_DSN"], min_size=1, max_size=2) as pool:
        yield pool


async def test_every_call_works_on_a_connection_of_a_pool(pool: asyncpg.Pool) -> None:
    alice, address = uuid4(), f"{uuid4()}@example.com"
    async with pool.acquire() as connection, connection.transaction():
        assert await upsert_recipient(connection, alice) is None
        assert await subscribe(connection, alice, "forum.thread:1") is True
        assert await notify_topic(connection, topic="forum.thread:1", **REPLY) > 0
        assert await notify(
            connection, recipient=[alice], metadata={"at": datetime.now(UTC)}, **REPLY
        )
        assert await notify_email(connection, email=address, **REPLY) > 0
        assert await claim_email(connection, address, alice) == 1
        assert await unread_count(connection, alice) == 3
        assert await unsubscribe(connection, alice, "forum.thread:1") is True
        assert await register_push_token(connection, alice, f"fcm:{alice}", "android") > 0
        assert await erase_recipient(connection, alice) is True
        assert await unread_count(connection, alice) == 0


async def test_a_rolled_back_call_notified_nobody(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        await upsert_recipient(connection, 41)
        before = await unread_count(connection, 41)
        transaction = connection.transaction()
        await transaction.start()
        await notify(connection, recipient=41, **REPLY)
        await transaction.rollback()
        assert await unread_count(connection, 41) == before


async def test_a_refusal_is_an_error_of_asyncpg_too(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection, connection.transaction():
        with pytest.raises(asyncpg.PostgresError) as refused:
            async with connection.transaction():
                await notify(connection, recipient="nobody", **REPLY)
        assert isinstance(refused.value, UnknownRecipient)
        assert refused.value.sqlstate == "TC002"
        assert "upsert_recipient" in refused.value.hint
        with pytest.raises(asyncpg.PostgresError) as wrong:
            notify(connection, recipient=object(), **REPLY)  # type: ignore[call-overload]
        assert isinstance(wrong.value, InvalidArgument)
        # asyncpg's own errors of that class stay as they are
        with pytest.raises(asyncpg.PostgresError) as own:
            async with connection.transaction():
                await connection.execute("select tocsin.notify('a.b', '{}', 'A')")
        assert not isinstance(own.value, NotifyError)


async def test_codecs_of_the_app_change_nothing(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        await connection.set_type_codec(
            "jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads
        )
        await upsert_recipient(connection, 42)
        event = await notify(connection, recipient=42, metadata={"a": [1]}, **REPLY)
    owner = await asyncpg.connect(os.environ["OWNER_DSN"])
    found = await owner.fetchval("select metadata from tocsin.event where event_id = $1", event)
    await owner.close()
    assert json.loads(found) == {"a": [1]}


async def test_a_pool_is_no_connection(pool: asyncpg.Pool) -> None:
    with pytest.raises(InvalidArgument, match=r"pool\.acquire"):
        notify(pool, recipient=1, **REPLY)  # type: ignore[call-overload]


def try_it(folder: Path) -> str:
    """Returns the output of the guide's script."""
    environ = os.environ | {"DATABASE_URL": os.environ["APP_DSN"]}
    command = [sys.executable, "try_it.py"]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_the_guides_code_does_what_it_claims(
    pool: asyncpg.Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guides.write("asyncpg.md", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import bookings

    await pool.execute((tmp_path / "tables.sql").read_text())
    assert try_it(tmp_path) == "unread: 1\nunread: 0\n"
    guest = await bookings.sign_up(pool, "guest@example.com")
    booking = await bookings.book(pool, guest, "12")
    async with pool.acquire() as connection:
        assert await unread_count(connection, guest) == 1
        assert "event.invited" in await bookings.invite(connection, guest)
    assert await bookings.take_back(pool, booking) == 1  # the mail
    async with pool.acquire() as connection:
        assert await unread_count(connection, guest) == 0
    await pool.execute("drop table guest, booking")


async def test_a_test_asserts_on_what_its_transaction_notified() -> None:
    alice = uuid4()
    connection = await asyncpg.connect(os.environ["OWNER_DSN"])
    transaction = connection.transaction()
    await transaction.start()
    outbox = AsyncOutbox(connection)
    await outbox.clear()
    await outbox.assert_nothing()
    await upsert_recipient(connection, alice, email="alice@example.com")
    event_id = await notify(connection, recipient=alice, metadata={"post": 12}, **REPLY)
    notification = await outbox.assert_notified(alice, "forum.new_reply", channel="in_app")
    assert (notification.event.id, notification.event.metadata) == (event_id, {"post": 12})
    await transaction.rollback()
    await outbox.assert_nothing()
    await connection.close()
