"""Two people, and a dispatcher that runs in the process of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from tests.support.services import service_dsn
from tocsin.engine.dispatch.dispatcher import Dispatcher

Db = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def people(db: Db) -> None:
    for name in ("alice", "bob"):
        db.execute("select tocsin.upsert_recipient(%s)", (name,))


@pytest.fixture
def other(dsn: str) -> Iterator[Db]:
    with psycopg.connect(dsn) as connection:
        yield connection


@asynccontextmanager
async def dispatcher(dsn: str) -> AsyncIterator[Dispatcher]:
    standing = Dispatcher(service_dsn(dsn))
    task = asyncio.create_task(standing.run())
    try:
        yield standing
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def notify(db: Db, recipient: str = "alice", title: str = "x") -> None:
    db.execute("select tocsin.notify('forum.new_thread', array[%s], %s)", (recipient, title))
