"""Litestar with Advanced Alchemy's plugin, which commits by the status of the response."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
from advanced_alchemy.extensions.litestar import (
    AsyncSessionConfig,
    EngineConfig,
    SQLAlchemyAsyncConfig,
    SQLAlchemyPlugin,
)
from litestar import Litestar, get, post
from litestar.di import NamedDependency
from litestar.exceptions import ClientException
from litestar.params import FromPath, FromQuery
from litestar.testing import AsyncTestClient
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import AsyncSession

from tocsin import NotifyError, notify, unread_count, upsert_recipient

DbSession = NamedDependency[AsyncSession]


@post("/users/{user:int}")
async def sign_up(db_session: DbSession, user: FromPath[int]) -> None:
    await upsert_recipient(db_session, user, email=f"{user}@example.com")


@post("/orders/{user:int}")
async def order(
    db_session: DbSession, user: FromPath[int], fail: FromQuery[bool] = False
) -> dict[str, int]:
    try:
        event = await notify(
            db_session, recipient=user, event_type="billing.invoice_issued", title="Invoice"
        )
    except NotifyError as error:
        raise ClientException(error.hint, status_code=409) from error
    if fail:
        raise ClientException("It is sold out.")
    return {"event": event}


@get("/unread/{user:int}")
async def unread(db_session: DbSession, user: FromPath[int]) -> int:
    return await unread_count(db_session, user)


@pytest.fixture(params=["asyncpg", "psycopg"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[AsyncTestClient[Litestar]]:
    config = SQLAlchemyAsyncConfig(
        connection_string=os.environ["APP_DSN"].replace("sql://", f"sql+{request.param}://"),
        session_config=AsyncSessionConfig(expire_on_commit=False),
        engine_config=EngineConfig(poolclass=NullPool),  # the app runs in a loop of its own
        before_send_handler="autocommit",
    )
    app = Litestar([sign_up, order, unread], plugins=[SQLAlchemyPlugin(config)])
    async with AsyncTestClient(app) as client:
        yield client


async def test_a_route_notifies_when_its_response_commits(
    client: AsyncTestClient[Litestar],
) -> None:
    await client.post("/users/21")
    before = (await client.get("/unread/21")).json()
    assert (await client.post("/orders/21")).status_code == 201
    assert (await client.get("/unread/21")).json() == before + 1
    assert (await client.post("/orders/21?fail=true")).status_code == 400
    assert (await client.get("/unread/21")).json() == before + 1


async def test_a_refusal_is_rolled_back_and_names_the_cure(
    client: AsyncTestClient[Litestar],
) -> None:
    response = await client.post("/orders/404")
    assert response.status_code == 409
    assert "upsert_recipient" in response.json()["detail"]
