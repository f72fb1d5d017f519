"""What each check of `tocsin doctor` gets and returns: the installation that is examined, and findings."""

from __future__ import annotations

import re
import time
import tomllib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec
import psycopg
from msgspec import Struct

from tocsin.engine.model import Unavailable
from tocsin.engine.store.connection import one_line, probe
from tocsin.engine.store.database import Database
from tocsin.settings import Settings, SettingsError, read_settings
from tocsin.settings.running_instance import with_running_instance
from tocsin.sql import load

Colour = Literal["green", "yellow", "red", "skipped"]

TEXTS: dict[str, dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("findings.toml").read_text("utf-8")
)
_IS_MIGRATED = load("health")["is_migrated"]
_NAMED = re.compile(r"TOCSIN_[A-Z_]+")


class Finding(Struct, frozen=True):
    """What a check found, in one sentence; red and yellow ones have a cure."""

    status: Colour
    sentence: str
    cure: str = ""


def finding(name: str, /, **values: object) -> Finding:
    """Returns a finding of findings.toml, such as "clock.wrong", with these values."""
    check, _, key = name.partition(".")
    texts = {part: text.format_map(values) for part, text in TEXTS[check][key].items()}
    cure = texts.pop("cure", "")
    ((status, sentence),) = texts.items()
    return msgspec.convert({"status": status, "sentence": sentence, "cure": cure}, Finding)


class DoctorOptions(Struct, frozen=True):
    """The options of the command."""

    token: str | None = None  # a person's JWT, where no secret is set to sign one
    dns_server: str | None = None  # address:port
    wait_for_heartbeat: bool = False
    long_transaction: timedelta = timedelta(minutes=5)
    clock: Callable[[], float] = time.time


class Examination:
    """The installation that is examined: its settings, as far as they can be read, and its database, if it is there."""

    def __init__(self, environ: Mapping[str, str], options: DoctorOptions) -> None:
        self.options = options
        self.settings, self.wrong_settings = _read(environ)
        self.unreachable = ""  # why there is no database, in one line
        self.migrated = False  # and its tables can be read
        self._database: Database | None = None

    @property
    def dsn(self) -> str:
        """Only for checks that need the database."""
        assert self.settings.database_url is not None
        return self.settings.database_url

    @property
    def database(self) -> Database:
        """Only for checks that need the database."""
        assert self._database is not None
        return self._database

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Connects to the database, if that is possible, until the end of the block."""
        self.unreachable = await self._connect()
        try:
            yield
        finally:
            if self._database is not None:
                await self._database.close()

    async def _connect(self) -> str:
        if self.settings.database_url is None:
            return "TOCSIN_DATABASE_URL is not set, and no `make up` runs with this data directory."
        reason = await probe(self.dsn, within=5.0)
        if reason and "read-only" not in reason:
            return reason
        database = Database(self.dsn, max_size=2)
        try:
            await database.open()
        except Unavailable as error:
            await database.close()
            return one_line(error)
        self._database = database
        with suppress(psycopg.Error, Unavailable):
            self.migrated = bool(await database.value(_IS_MIGRATED))
        return ""


def _read(environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """Returns the settings without those that are wrong, and what is wrong with these."""
    try:
        settings = read_settings(environ)
    except SettingsError as error:
        named = [name for name in _NAMED.findall(str(error)) if environ.get(name)]
        # without a name of a variable that is set, none is used
        rest = {name: text for name, text in environ.items() if named and name not in named}
        settings, wrong = _read(rest)
        return settings, [str(error), *wrong]
    try:
        return with_running_instance(settings), []
    except SettingsError as error:
        return settings, [str(error)]
