"""The database of a command, also beside a running `tocsin up`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tocsin.beside import beside
from tocsin.settings import Settings, SettingsError, read_settings

NO_DATABASE = (
    "TOCSIN_DATABASE_URL is not set, and no `tocsin up` runs here: start `make up`, or set it."
)

T = TypeVar("T")


def settings() -> Settings:
    """The settings, with what a running `tocsin up` of this data directory has for those that are missing."""
    return beside(read_settings())


def dsn() -> str:
    """The owner's DSN; raises SettingsError where there is none."""
    url = settings().database_url
    if url is None:
        raise SettingsError(NO_DATABASE)
    return url


def with_database(ask: Callable[[Any], Awaitable[T]]) -> T:
    """What `ask` returns, with a pool of one connection; raises Unavailable within 5 s."""
    from tocsin.engine.model import Unavailable
    from tocsin.engine.store.availability import probe
    from tocsin.engine.store.database import Database

    async def run() -> T:
        if reason := await probe(dsn(), within=3.0):
            raise Unavailable(reason)
        database = Database(dsn(), max_size=1)
        await database.open()
        try:
            return await ask(database)
        finally:
            await database.close()

    return asyncio.run(run())
