"""`tocsin up`: locks the data directory, runs the environment until a signal, and stops it; and `make reset`."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from tocsin.dev import embedded_postgres
from tocsin.dev.embedded_postgres import PostgresError
from tocsin.dev.environment import Environment, Steps
from tocsin.dev.postgres_cluster import remove_cluster
from tocsin.dev.supervisor import ChildCommand, Report, UpError, wait_for_make_end
from tocsin.engine.model import PROVIDERS, Conflict, Unavailable
from tocsin.settings import Settings
from tocsin.settings.running_instance import (
    AlreadyRunning,
    SecretFileError,
    check_bind,
    lock_data_dir,
)

if TYPE_CHECKING:
    from tocsin.dev.far_ends import FarEnds

__all__ = ["COMMANDS", "UpError", "reset", "up"]

COMMANDS = (
    ChildCommand("http", (sys.executable, "-m", "tocsin", "serve", "--dev")),
    ChildCommand("worker", (sys.executable, "-m", "tocsin", "worker")),
)
STORED = (
    *(
        "mailbox",
        "phones.jsonl",
        "far-ends",
        "secrets.json",
        "vapid.key",
        "postgres-is-elsewhere.txt",
    ),
    *("postgres.port", "postgres.lock", "postgres.log"),
)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAME_SIGNAL_SECONDS = 0.3  # two signals at once (from the terminal and from make) count as one


async def up(
    settings: Settings,
    *,
    environ: Mapping[str, str] = os.environ,
    commands: Sequence[ChildCommand] = COMMANDS,
    migrate: Callable[[str], object] | None = None,
    seed: Callable[[str], object] | None = None,
    make_far_ends: Callable[..., FarEnds] | None = None,
    report: Report | None = None,
) -> int:
    """Runs until SIGINT or SIGTERM, and returns the exit code; raises UpError and SettingsError.

    `migrate` and `seed` get the DSN of the database's owner, `make_far_ends` the arguments of FarEnds, `report`
    each line for the terminal.
    """
    report = report or print_line
    steps = Steps(migrate or _migrate, seed or _seed, make_far_ends or _make_far_ends)
    environment = Environment(settings, environ, commands, steps, report)
    check_bind(settings)
    data_dir = _make_data_dir(settings.data_dir)
    try:
        with lock_data_dir(data_dir) as lock, _signals() as (stop, force):
            _check_port(settings.host, settings.port)
            make = asyncio.create_task(_stop_with_make(environ, stop))
            try:
                await _run(environment, lock, stop, force)
            finally:
                make.cancel()
    except (AlreadyRunning, PostgresError, SecretFileError) as error:
        raise UpError(str(error)) from None
    except OSError as error:
        if error.filename is None:
            raise
        raise UpError(f"{error.filename}: {error.strerror}") from error
    report("Stopped.")
    return 0


def reset(data_dir: Path) -> None:
    """Removes what `up` stored there: database, mails, pushes, secrets; raises AlreadyRunning while it runs."""
    if not data_dir.is_dir():
        return
    with lock_data_dir(data_dir):
        if server := embedded_postgres.running(data_dir):
            embedded_postgres.stop(server)
        remove_cluster(data_dir)
        for name in STORED:
            path = data_dir / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def print_line(line: str) -> None:
    """Prints to standard output, and ignores that it is closed."""
    with suppress(OSError, ValueError):
        print(line, flush=True)


async def _run(
    environment: Environment, lock: FileIO, stop: asyncio.Event, force: asyncio.Event
) -> None:
    """Runs until the first signal or a failure; in both cases everything is stopped."""
    running = asyncio.create_task(environment.run(lock))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    running.cancel()
    forcing = asyncio.create_task(_force(environment, force))
    try:
        with suppress(asyncio.CancelledError):
            await running
    finally:
        await environment.stop()
        forcing.cancel()


async def _stop_with_make(environ: Mapping[str, str], stop: asyncio.Event) -> None:
    await wait_for_make_end(environ)
    stop.set()


async def _force(environment: Environment, force: asyncio.Event) -> None:
    await force.wait()
    environment.force()


@contextmanager
def _signals() -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """Yields two events: the first signal sets the first one, a second Ctrl-C the other."""
    loop = asyncio.get_running_loop()
    stop, force = asyncio.Event(), asyncio.Event()
    first = float("inf")

    def on_signal(number: signal.Signals) -> None:
        nonlocal first
        if not stop.is_set():
            first = loop.time()
            stop.set()
        elif number == signal.SIGINT and loop.time() - first > SAME_SIGNAL_SECONDS:
            force.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield stop, force
    finally:
        if stop.is_set():  # everything is stopped: one more Ctrl-C must not change the exit code
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            if stop.is_set():  # a mask holds for one thread only
                signal.signal(number, signal.SIG_IGN)


def _make_data_dir(data_dir: Path) -> Path:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UpError(f"TOCSIN_DATA_DIR {data_dir} can't be made: {error.strerror}") from None
    return data_dir


def _check_port(host: str, port: int) -> None:
    """Raises UpError in one line, rather than by a child that fails again and again."""
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
    from tocsin.migrate import migrate
    from tocsin.sql.install import MigrationError

    try:
        migrate(dsn)
        asyncio.run(_mark_providers_as_offered(dsn))
    except (MigrationError, psycopg.Error) as error:
        raise UpError(f"The database can't be migrated: {' '.join(str(error).split())}") from error


async def _mark_providers_as_offered(dsn: str) -> None:
    """Marks each channel as available, so that an event before the worker's start has its mails and pushes too."""
    from tocsin.engine.store.database import Database
    from tocsin.engine.store.installation import offer_providers

    database = Database(dsn, max_size=1)
    try:
        with suppress(Conflict, Unavailable):  # then the worker does it
            await database.open()
            await offer_providers(database, PROVIDERS)
    finally:
        await database.close()


def _make_far_ends(data_dir: Path, *, apns: bool, fcm: bool, report: Report) -> FarEnds:
    from tocsin.dev.far_ends import FarEnds  # takes half a second to import

    return FarEnds(data_dir, apns=apns, fcm=fcm, report=report)


def _seed(dsn: str) -> object:
    from tocsin.dev.seed import seed

    return seed(dsn)
