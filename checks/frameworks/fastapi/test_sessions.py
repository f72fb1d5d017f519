"""Each connection of SQLAlchemy on each driver, sync and async, in FastAPI's own ways to hold a transaction."""

import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any
from uuid import uuid4

import pytest
from fastapi import Depends, FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import DatabaseError, DBAPIError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from tocsin import (
    InvalidArgument,
    UnknownRecipient,
    cancel,
    erase_recipient,
    notify,
    register_push_token,
    subscribe,
    unread_count,
    upsert_recipient,
)

ALICE = uuid4()
REPLY: dict[str, Any] = {"event_type": "forum.new_reply", "title": "Hello"}


class Color(Enum):
    RED = "red"


METADATA = {"id": ALICE, "at": datetime.now(UTC), "sum": Decimal("1.5"), "color": Color.RED}


def url(driver: str) -> str:
    return os.environ["APP_DSN"].replace("postgresql://", f"postgresql+{driver}://")


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine(url("psycopg"))
    with engine.begin() as connection:
        upsert_recipient(connection, ALICE, email="alice@example.com")
        upsert_recipient(connection, 7)
    yield engine
    with engine.begin() as connection:
        erase_recipient(connection, ALICE)
    engine.dispose()


@pytest.fixture(params=["asyncpg", "psycopg"])
async def async_engine(
    request: pytest.FixtureRequest, engine: Engine
) -> AsyncIterator[AsyncEngine]:
    async_engine = create_async_engine(url(request.param))
    yield async_engine
    await async_engine.dispose()


def badge(engine: Engine) -> int:
    with engine.connect() as connection:
        return unread_count(connection, ALICE)


def test_each_synchronous_connection_notifies_in_its_transaction(engine: Engine) -> None:
    with engine.connect() as connection:
        notify(connection, recipient=ALICE, **REPLY)
        connection.rollback()
    assert badge(engine) == 0
    with engine.begin() as connection:
        notify(connection, recipient=[ALICE, 7], metadata=METADATA, **REPLY)
    with Session(engine) as session, session.begin():
        notify(session, recipient=(one for one in [ALICE]), metadata=METADATA, **REPLY)
    with Session(engine) as session:
        notify(session, recipient=ALICE, **REPLY)  # not committed
    registry = scoped_session(sessionmaker(engine))
    notify(registry, recipient=ALICE, **REPLY)
    registry.commit()
    registry.remove()
    assert badge(engine) == 3


async def test_each_asynchronous_connection_notifies_in_its_transaction(
    engine: Engine, async_engine: AsyncEngine
) -> None:
    async with async_engine.begin() as connection:
        await notify(connection, recipient={ALICE}, metadata=METADATA, **REPLY)
    async with AsyncSession(async_engine) as session:
        await notify(session, recipient=ALICE, **REPLY)
        await session.rollback()
        event_id = await notify(session, recipient=ALICE, **REPLY)
        assert await unread_count(session, ALICE) == 2
        assert await cancel(session, event_id) == 1  # the mail
        later = datetime.now(UTC) + timedelta(days=1)
        await notify(session, recipient=ALICE, send_at=later, **REPLY)
        assert await subscribe(session, ALICE, "forum.thread:1") is True
        assert await upsert_recipient(session, ALICE, name="Alice") is None
        assert await register_push_token(session, ALICE, f"fcm:{ALICE}", "android") > 0
        assert await session.run_sync(lambda sync: unread_count(sync, ALICE)) == 1
        await session.commit()
    assert badge(engine) == 1


async def test_a_refusal_is_an_error_of_sqlalchemy_too_and_a_savepoint_survives_it(
    async_engine: AsyncEngine,
) -> None:
    async with AsyncSession(async_engine) as session, session.begin():
        with pytest.raises(DatabaseError) as refused:
            async with session.begin_nested():
                await notify(session, recipient="nobody", body="a secret", **REPLY)
        assert isinstance(refused.value, UnknownRecipient)
        assert refused.value.argument == "recipients"
        assert "upsert_recipient" in refused.value.hint
        assert refused.value.orig is not None
        assert "a secret" not in str(refused.value)
        assert await unread_count(session, ALICE) == 0
        with pytest.raises(DBAPIError) as wrong:
            notify(session, recipient=None, **REPLY)  # type: ignore[call-overload]
        assert isinstance(wrong.value, InvalidArgument)


def test_sqlalchemys_events_see_the_call(engine: Engine) -> None:
    seen = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
    with engine.begin() as connection:
        notify(connection, recipient=ALICE, **REPLY)
    assert any(statement.startswith("select tocsin.notify(") for statement in seen)


def test_the_json_serializer_of_the_engine_writes_metadata(engine: Engine) -> None:
    own = create_engine(url("psycopg"), json_serializer=lambda value: '{"by": "the engine"}')
    with own.begin() as connection:
        event_id = notify(connection, recipient=ALICE, metadata={"a": 1}, **REPLY)
    own.dispose()
    owner = create_engine(os.environ["OWNER_DSN"].replace("postgresql:", "postgresql+psycopg:"))
    with owner.connect() as connection:
        query = text("select metadata from tocsin.event where event_id = :id")
        assert connection.scalar(query, {"id": event_id}) == {"by": "the engine"}
    owner.dispose()


def test_what_is_no_connection_names_the_cure(engine: Engine) -> None:
    for wrong, cure in (
        (engine, "engine.begin()"),
        (create_async_engine(url("asyncpg")), "async with engine"),
        (sessionmaker(engine), "Session.begin()"),
        (async_sessionmaker(), "async with Session"),
        (create_engine("sqlite://").connect(), "one of the engine for PostgreSQL"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            notify(wrong, recipient=ALICE, **REPLY)  # type: ignore[call-overload]
        assert cure in refused.value.hint


async def test_a_synchronous_route_notifies_when_its_session_commits(engine: Engine) -> None:
    app = FastAPI()

    def open_session() -> Iterator[Session]:
        with Session(engine) as session, session.begin():
            yield session

    @app.post("/orders/{number}")
    def order(
        number: int, session: Annotated[Session, Depends(open_session, scope="function")]
    ) -> int:
        notify(session, recipient=ALICE, **REPLY)
        return 1 // number

    transport = ASGITransport(app, raise_app_exceptions=False)
    async with AsyncClient(transport=transport, base_url="http://app") as client:
        assert (await client.post("/orders/0")).status_code == 500
        assert badge(engine) == 0
        assert (await client.post("/orders/1")).status_code == 200
    assert badge(engine) == 1
