"""The far end of chats, and a worker that sends to it: `from tests.support.chats import *`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest_asyncio

from tests.support.http_fixtures import KEY, SECRET, URL, Db
from tests.support.services import until
from tocsin.engine.deliver.deliverer import Deliverer
from tocsin.engine.model import Channel, Priority
from tocsin.engine.store.database import Database
from tocsin.engine.worker import _actors, _renderer
from tocsin.settings import Settings
from tocsin.testing.chats import ChatServer

PATH = "/api/chat-targets/"
TOPIC = "forum.thread:42"
DEVELOPMENT = Settings(
    jwt_secret=SECRET, jwt_algorithms=("HS256",), public_url=URL, allow_private_endpoints=True
)


@pytest_asyncio.fixture
async def chats() -> AsyncIterator[ChatServer]:
    async with ChatServer() as server:
        yield server


@asynccontextmanager
async def worker(database: Database, settings: Settings) -> AsyncIterator[Deliverer]:
    actors = _actors(settings, database, KEY)
    deliverer = Deliverer(database, actors, _renderer(settings, KEY), process_id=uuid4())
    async with deliverer.running():
        yield deliverer


async def deliver(db: Db, database: Database, settings: Settings) -> None:
    """Sends all chat deliveries that wait, as a worker does."""
    rows = db.execute(
        "select delivery_id from tocsin.delivery where channel = 'chat' and state = 'queued' order by 1"
    ).fetchall()
    async with worker(database, settings) as deliverer:
        await deliverer.deliver(Channel.CHAT, [each for (each,) in rows], Priority.NORMAL)
        await until(lambda: not states(db, "sending"))


def states(db: Db, *only: str) -> list[tuple[Any, ...]]:
    found = db.execute(
        "select state::text, reason, provider_id from tocsin.delivery where channel = 'chat' order by delivery_id"
    ).fetchall()
    return [each for each in found if not only or each[0] in only]
