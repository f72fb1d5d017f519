"""What `tocsin up` does: one household a data directory, from the lock to the last process."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from tocsin.dev.embedded_postgres import PostgresError
from tocsin.dev.environment import Household, Steps, UpError
from tocsin.dev.supervisor import Command, Say, make_gone
from tocsin.engine.model import PROVIDERS, Conflict, Unavailable
from tocsin.settings import Settings
from tocsin.settings.running_instance import (
    AlreadyRunning,
    SecretFileError,
    check_bind,
    lock_data_dir,
)

if TYPE_CHECKING:
    from tocsin.dev.push_catcher import FarEnds

__all__ = ["COMMANDS", "UpError", "up"]

COMMANDS = (
    Command("http", (sys.executable, "-m", "tocsin", "serve", "--dev")),
    Command("worker", (sys.executable, "-m", "tocsin", "worker")),
)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
IMPATIENT_SECONDS = 0.3  # two signals at once (from the terminal and from make) are one wish


async def up(
    settings: Settings,
    *,
    environ: Mapping[str, str] = os.environ,
    commands: Sequence[Command] = COMMANDS,
    migrate: Callable[[str], object] | None = None,
    seed: Callable[[str], object] | None = None,
    make_far_ends: Callable[..., FarEnds] | None = None,
    say: Say | None = None,
) -> int:
    """Runs until SIGINT or SIGTERM, and returns the exit code; raises UpError and SettingsError.

    `migrate` and `seed` get the DSN of the database's owner, `make_far_ends` the arguments of FarEnds, `say` each line
    for the terminal.
    """
    say = say or print_line
    steps = Steps(migrate or _migrate, seed or _seed, make_far_ends or _make_far_ends)
    household = Household(settings, environ, commands, steps, say)
    check_bind(settings)
    data_dir = _make(settings.data_dir)
    try:
        with lock_data_dir(data_dir) as lock, _signals() as (stop, force):
            _check_port(settings.host, settings.port)
            make = asyncio.create_task(_stop_with_make(environ, stop))
            try:
                await _live(household, lock, stop, force)
            finally:
                make.cancel()
    except (AlreadyRunning, PostgresError, SecretFileError) as error:
        raise UpError(str(error)) from None
    except OSError as error:
        if error.filename is None:
            raise
        raise UpError(f"{error.filename}: {error.strerror}") from error
    say("Stopped.")
    return 0


def print_line(line: str) -> None:
    """To standard output; where nobody reads it any more, that is no reason to stop."""
    with suppress(OSError, ValueError):
        print(line, flush=True)


async def _live(
    household: Household, lock: FileIO, stop: asyncio.Event, force: asyncio.Event
) -> None:
    """Until the first signal, or until it can't go on; either way nothing stays behind."""
    living = asyncio.create_task(household.live(lock))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({living, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    living.cancel()
    forcing = asyncio.create_task(_force(household, force))
    try:
        with suppress(asyncio.CancelledError):
            await living
    finally:
        await household.leave()
        forcing.cancel()


async def _stop_with_make(environ: Mapping[str, str], stop: asyncio.Event) -> None:
    await make_gone(environ)
    stop.set()


async def _force(household: Household, force: asyncio.Event) -> None:
    await force.wait()
    household.force()


@contextmanager
def _signals() -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """The first signal sets one event, an impatient second Ctrl-C the other."""
    loop = asyncio.get_running_loop()
    stop, force = asyncio.Event(), asyncio.Event()
    first = float("inf")

    def on_signal(number: signal.Signals) -> None:
        nonlocal first
        if not stop.is_set():
            first = loop.time()
            stop.set()
        elif number == signal.SIGINT and loop.time() - first > IMPATIENT_SECONDS:
            force.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield stop, force
    finally:
        if stop.is_set():  # all is over: one Ctrl-C more must not end it with another exit code
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        for number in SIGNALS:
            loop.remove_signal_handler(number)


def _make(data_dir: Path) -> Path:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UpError(f"TOCSIN_DATA_DIR {data_dir} can't be made: {error.strerror}") from None
    return data_dir


def _check_port(host: str, port: int) -> None:
    """Says so now, in one line, rather than by a child that fails again and again."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UpError(f"Port {port} is in use: set TOCSIN_PORT to a free one") from None
            if error.errno == errno.EACCES:
                raise UpError(f"Port {port} needs root: set TOCSIN_PORT above 1023") from None
            raise UpError(f"TOCSIN_HOST {host} is no address of this machine") from None


def _migrate(dsn: str) -> None:
    from tocsin.migrate import MigrationError, migrate

    try:
        migrate(dsn)
        asyncio.run(_offer(dsn))
    except (MigrationError, psycopg.Error) as error:
        raise UpError(f"The database can't be migrated: {' '.join(str(error).split())}") from error


async def _offer(dsn: str) -> None:
    """Here every channel has its providers, and what is told before the worker says so is not to miss them."""
    from tocsin.engine.store.database import Database
    from tocsin.engine.store.installation import offer_providers

    database = Database(dsn, max_size=1)
    try:
        with suppress(Conflict, Unavailable):  # then it is left to the worker
            await database.open()
            await offer_providers(database, PROVIDERS)
    finally:
        await database.close()


def _make_far_ends(data_dir: Path, *, apns: bool, fcm: bool, say: Say) -> FarEnds:
    from tocsin.dev.push_catcher import FarEnds  # half a second

    return FarEnds(data_dir, apns=apns, fcm=fcm, say=say)


def _seed(dsn: str) -> object:
    from tocsin.dev.seed import seed

    return seed(dsn)
