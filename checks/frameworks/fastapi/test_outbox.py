"""The outbox of tests, on sessions of SQLAlchemy."""

from __future__ import annotations

import os
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from tocsin import notify, upsert_recipient
from tocsin.testing import AsyncOutbox, Outbox

REPLY: dict[str, Any] = {"event_type": "forum.new_reply", "title": "Hello"}


def url(driver: str) -> str:
    return os.environ["OWNER_DSN"].replace("postgresql://", f"postgresql+{driver}://")


def test_an_outbox_sees_what_a_session_notified() -> None:
    engine = create_engine(url("psycopg"))
    with Session(engine) as session:
        outbox = Outbox(session)
        outbox.clear()
        outbox.assert_nothing()
        upsert_recipient(session, 51)
        notify(session, recipient=51, **REPLY)
        assert outbox.assert_notified(51, "forum.new_reply", channel="in_app").title == "Hello"
        session.rollback()
        outbox.assert_nothing()
    engine.dispose()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_an_outbox_sees_what_an_asynchronous_session_notified(driver: str) -> None:
    engine = create_async_engine(url(driver))
    async with AsyncSession(engine) as session:
        outbox = AsyncOutbox(session)
        await outbox.clear()
        await upsert_recipient(session, 51)
        await notify(session, recipient=51, **REPLY)
        await outbox.assert_notified(51, "forum.new_reply", channel="in_app")
        await session.rollback()
        await outbox.assert_nothing()
    await engine.dispose()
