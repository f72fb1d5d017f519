"""`tocsin up`: PostgreSQL, catchers and services, started and stopped together until a signal; and `make reset`."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from importlib.resources import files
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from tocsin.background import in_thread
from tocsin.dev import embedded_postgres
from tocsin.dev.embedded_postgres import Postgres, PostgresError
from tocsin.dev.mail_catcher import MailCatcher
from tocsin.dev.postgres_cluster import remove_cluster, wheel
from tocsin.dev.supervisor import (
    Child,
    ChildCommand,
    ParentPipe,
    Report,
    UpError,
    wait_for_make_end,
)
from tocsin.engine.model import PROVIDERS, Conflict, Unavailable
from tocsin.settings import Settings, read_settings
from tocsin.settings.keys import new_vapid_key
from tocsin.settings.running_instance import (
    DEVELOPMENT_KEY,
    JWT_SECRET,
    AlreadyRunning,
    RunningInstance,
    SecretFileError,
    check_bind,
    check_port,
    keep_secrets,
    lock_data_dir,
    publish,
    write_secret,
)

if TYPE_CHECKING:
    from tocsin.dev.far_ends import FarEnds


def banner(url: str, *, mailbox: bool, phones: bool, demo_people: bool) -> str:
    """Returns the lines that are printed when everything is ready: addresses, and two commands to try."""
    alice = "select tocsin.upsert_recipient('alice', 'alice@example.com');"
    return (
        (files("tocsin.dev") / "banner.txt")
        .read_text("utf-8")
        .format(
            url=url,
            mailbox=f"    mailbox   {url}/dev/mail/\n" if mailbox else "",
            phones=f"    phones    {url}/dev/phones/\n" if phones else "",
            tocsin=_short(Path(sys.executable).with_name("tocsin")),
            psql=_psql(),
            alice="" if demo_people else alice,
        )
    )


def _psql() -> str:
    if not shutil.which("psql"):
        with suppress(PostgresError):
            return _short(wheel() / "bin" / "psql")
    return "psql"


def _short(program: Path) -> str:
    """Returns the shortest path that works from the current folder."""
    here = os.path.relpath(program)
    return str(program) if here.startswith("..") else here


READY_SECONDS = 90.0
QUICK_ENDS = 2  # in a row, before anything was ready: a restart does not help
CHILD_SECONDS = (
    2.5  # push catcher 0.5, PostgreSQL 1.5: together less than the 5 s that a stop may take
)
WATCH_SECONDS = 0.5
VAPID_KEY = "vapid.key"  # in the data directory
_WEB_PUSH = ("TOCSIN_VAPID_KEY", "TOCSIN_VAPID_SUBJECT", "TOCSIN_ALLOW_PRIVATE_ENDPOINTS")
RESTART_SECONDS = 3.0


class Environment:
    """`run` lasts until it is cancelled; `stop` then ends whatever `run` had started."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        commands: Sequence[ChildCommand],
        report: Report,
    ) -> None:
        self._settings = settings
        self._environ = dict(environ)
        self._commands = commands
        self._report = report
        self._data_dir = settings.data_dir.resolve()
        self._starting: asyncio.Future[Postgres] | None = None
        self._server: Postgres | None = None
        self._mail_catcher: MailCatcher | None = None
        self._far_ends: FarEnds | None = None
        self._parent_pipe = ParentPipe()
        self._children: list[Child] = []
        self._keeping: list[asyncio.Task[None]] = []

    async def run(self, lock: FileIO) -> None:
        """Starts everything, prints where to look, and keeps it running."""
        settings = self._settings
        url = settings.public_url or _url(settings)
        making = self._make_far_ends()  # while PostgreSQL starts
        dsn = settings.database_url or await self._start_postgres()
        await in_thread(migrate, dsn)
        if settings.database_url is None:
            await in_thread(seed_demo, dsn)
        smtp_url = settings.smtp_url or await self._start_mail_catcher()
        environ = self._child_environ(dsn, url, smtp_url)
        read_settings(environ)  # a wrong setting is reported here, in one line
        http, *senders = self._commands
        self._start_child(http, environ)
        self._far_ends = await making  # only senders need them
        far_ends = await self._far_ends.start()
        embedded = settings.database_url is None
        if embedded:
            await in_thread(self._far_ends.put_demo_targets, dsn)
        mail = {"TOCSIN_SMTP_URL": smtp_url}
        web_push = {name: environ[name] for name in _WEB_PUSH if name in environ}
        publish(lock, RunningInstance(os.getpid(), url, mail | far_ends | web_push, embedded))
        for command in senders:
            self._start_child(command, environ | far_ends)
        await self._wait_ready()
        mailbox = self._mail_catcher is not None
        phones = any(name.startswith("TOCSIN_") for name in far_ends)
        self._report(banner(url, mailbox=mailbox, phones=phones, demo_people=embedded))
        await self._watch_postgres()

    async def stop(self) -> None:
        """Stops all, users of others first, within 5 s."""
        await asyncio.gather(*(child.stop(CHILD_SECONDS) for child in self._children))
        for task in self._keeping:
            task.cancel()
        if self._mail_catcher is not None:
            await self._mail_catcher.stop()
        if self._far_ends is not None:
            await self._far_ends.stop()
        if self._server is None and self._starting is not None:
            # A start can't be interrupted; what does not run by then ends with this process.
            with suppress(PostgresError, TimeoutError, asyncio.CancelledError):
                self._server = await asyncio.wait_for(asyncio.shield(self._starting), 2)
        if self._server is not None:
            await in_thread(embedded_postgres.stop, self._server)
        self._parent_pipe.close()

    def force(self) -> None:
        """Ends all at once: the children are killed, PostgreSQL recovers at its next start."""
        for child in self._children:
            child.kill()
        if self._server is not None:
            with suppress(ProcessLookupError):
                os.kill(self._server.pid, signal.SIGQUIT)

    async def _start_postgres(self) -> str:
        loop = asyncio.get_running_loop()

        def report(line: str) -> None:
            loop.call_soon_threadsafe(self._report, line)

        self._starting = in_thread(embedded_postgres.start, self._data_dir, report)
        self._server = await asyncio.shield(self._starting)
        return self._server.dsn

    async def _start_mail_catcher(self) -> str:
        self._mail_catcher = MailCatcher(self._data_dir / "mailbox")
        await self._mail_catcher.start()
        return self._mail_catcher.url

    def _make_far_ends(self) -> asyncio.Future[FarEnds]:
        """Starts far ends for the providers that are not configured."""
        settings = self._settings
        return in_thread(
            make_far_ends,
            self._data_dir,
            apns=settings.apns is None,
            fcm=settings.fcm_service_account is None,
            report=self._report,
        )

    def _child_environ(self, dsn: str, url: str, smtp_url: str) -> dict[str, str]:
        settings = self._settings
        environ = self._environ | {
            "TOCSIN_DATABASE_URL": dsn,
            "TOCSIN_SMTP_URL": smtp_url,
            "TOCSIN_PUBLIC_URL": url,
            "TOCSIN_DATA_DIR": str(self._data_dir),
            "TOCSIN_HOST": settings.host,
            "TOCSIN_PORT": str(settings.port),
            "PYTHONUNBUFFERED": "1",
        }
        environ.setdefault(
            "TOCSIN_LOG_FORMAT", "console"
        )  # a person reads it, although it is written to a pipe
        environ.setdefault("TOCSIN_TEMPLATES_RELOAD", "true")
        environ.setdefault("TOCSIN_SIGN_IN_URL", "/dev/")
        environ.setdefault("TOCSIN_ALLOW_PRIVATE_ENDPOINTS", "true")
        if settings.vapid is None:
            environ["TOCSIN_VAPID_KEY"] = str(_vapid_key_file(self._data_dir))
        environ.setdefault("TOCSIN_EMAIL_FROM", "Tocsin <notifications@localhost>")
        keep_secrets(self._data_dir, DEVELOPMENT_KEY)
        if not (settings.jwt_secret or settings.jwt_public_key or settings.jwks_url):
            environ["TOCSIN_JWT_SECRET"] = keep_secrets(self._data_dir, JWT_SECRET)[JWT_SECRET]
        return environ

    def _start_child(self, command: ChildCommand, environ: dict[str, str]) -> None:
        name = command.name.ljust(max(len(each.name) for each in self._commands))
        child = Child(
            command, environ, self._parent_pipe, lambda line: self._report(f"{name} | {line}")
        )
        self._children.append(child)
        self._keeping.append(asyncio.create_task(child.keep_running()))

    async def _wait_ready(self) -> None:
        deadline = asyncio.get_running_loop().time() + READY_SECONDS
        while not await in_thread(_is_ready, self._settings):
            for child in self._children:
                if child.quick_ends >= QUICK_ENDS:
                    raise UpError(f"{child.command.name} does not start: see its lines above")
            if asyncio.get_running_loop().time() > deadline:
                raise UpError(f"Not ready after {READY_SECONDS:.0f} s: see the lines above")
            await asyncio.sleep(0.05)

    async def _watch_postgres(self) -> None:
        """Restarts the embedded PostgreSQL when it ends; the children reconnect by themselves."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if self._server is None or embedded_postgres.alive(self._server):
                continue
            before, self._server = self._server, None
            embedded_postgres.release(before)
            self._report("PostgreSQL ended; restarting it")
            dsn = await self._restart_postgres()
            for child in self._children if dsn != before.dsn else ():
                child.environ["TOCSIN_DATABASE_URL"] = dsn  # its port was taken meanwhile
                child.restart()

    async def _restart_postgres(self) -> str:
        while True:
            try:
                return await self._start_postgres()
            except PostgresError as error:
                self._report(str(error))
                await asyncio.sleep(RESTART_SECONDS)


def _is_ready(settings: Settings) -> bool:
    """Returns whether GET /readyz returns 200."""
    connection = HTTPConnection(settings.host, settings.port, timeout=3)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _vapid_key_file(data_dir: Path) -> Path:
    """Returns the file with the key of Web Push, which is made once: browsers subscribe by it."""
    file = data_dir / VAPID_KEY
    if not file.exists():
        write_secret(file, new_vapid_key().encode())
    return file


def _url(settings: Settings) -> str:
    host = settings.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


COMMANDS = (
    ChildCommand("http", (sys.executable, "-m", "tocsin", "serve", "--dev")),
    ChildCommand("worker", (sys.executable, "-m", "tocsin", "worker")),
)
STORED = (
    *("mailbox", "phones.jsonl", "chats.json", "webhooks.json", "far-ends"),
    *("secrets.json", "vapid.key", "postgres-is-elsewhere.txt"),
    *("postgres.port", "postgres.lock", "postgres.log"),
)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAME_SIGNAL_SECONDS = 0.3  # two signals at once (from the terminal and from make) count as one


async def up(
    settings: Settings,
    *,
    environ: Mapping[str, str] = os.environ,
    commands: Sequence[ChildCommand] = COMMANDS,
) -> int:
    """Runs until SIGINT or SIGTERM, and returns the exit code; raises UpError and SettingsError."""
    environment = Environment(settings, environ, commands, print_line)
    check_bind(settings)
    data_dir = _make_data_dir(settings.data_dir)
    try:
        with lock_data_dir(data_dir) as lock, _signals() as (stop, force):
            check_port(settings)
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
    print_line("Stopped.")
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


# The steps before the child processes, each in a thread, with the DSN of the database's owner.


def migrate(dsn: str) -> None:
    """Brings the database up to date, with each provider marked as available; raises UpError."""
    from tocsin.migrate import migrate as run_migrations
    from tocsin.sql.install import MigrationError

    try:
        run_migrations(dsn)
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


def make_far_ends(data_dir: Path, **options: Any) -> FarEnds:
    """Returns the far ends, whose import takes half a second; the options are those of FarEnds."""
    from tocsin.dev.far_ends import FarEnds

    return FarEnds(data_dir, **options)


def seed_demo(dsn: str) -> None:
    """Adds the demo people where the database is empty."""
    from tocsin.dev.seed import seed

    seed(dsn)
