"""The database of a command, also beside a running `tocsin up`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tocsin.settings import Settings, SettingsError, read_settings
from tocsin.settings.running_instance import with_running_instance

T = TypeVar("T")


def settings() -> Settings:
    """The settings, with what a running `tocsin up` of this data directory has for those that are missing."""
    return with_running_instance(read_settings())


def dsn() -> str:
    """The database's DSN; raises SettingsError where there is none."""
    return database_url(settings())


def database_url(settings: Settings) -> str:
    """Of settings that are read already; raises SettingsError where there is none."""
    if settings.database_url is None:
        raise SettingsError(
            "TOCSIN_DATABASE_URL is not set, and no `tocsin up` runs with the data directory "
            f"{settings.data_dir}: set it, or start `make up`."
        )
    return settings.database_url


def with_database(ask: Callable[[Any], Awaitable[T]]) -> T:
    """What `ask` returns, with a pool of one connection; raises Unavailable within 5 s."""
    from tocsin.engine.model import Unavailable
    from tocsin.engine.store.connection import probe
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
