"""The real processes under test: `tocsin serve` and `tocsin worker`, and a mailbox that receives their mail."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support.forked import ForkedProcess, fork_tocsin
from tocsin.dev.mail_catcher import MailCatcher, read_mails
from tocsin.dev.supervisor import VARIABLE, ParentPipe
from tocsin.settings.running_instance import OWNER

LONGEST = 180.0  # seconds; a hang, never slowness: tests may share their machine with others
SERVICE_LOGIN = "tocsin_test_service"
PORTS = range(15432, 32000)  # below those that systems give to outgoing connections
SECRET = "a secret of at least thirty-two bytes, for tests"


def free_port() -> int:
    """Returns a free port of this machine. No outgoing connection takes it before the server listens there."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


async def until(condition: Callable[[], Any], seconds: float = LONGEST) -> Any:
    """Returns the condition's first true result; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if isinstance(result, Awaitable):
            result = await result
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {condition}")
        await asyncio.sleep(0.005)


@cache
def service_dsn(dsn: str) -> str:
    """Returns the DSN of services: a login with the rights of tocsin_service alone, in the owner's database.

    The owner is made a member of it, so that tests can see and end its sessions.
    """
    if conninfo_to_dict(dsn).get("user") != OWNER:
        return dsn
    with psycopg.connect(dsn, dbname="postgres", autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(1953457011, 99)")  # a named server is shared
        if connection.execute("select to_regrole(%s)::text", [SERVICE_LOGIN]).fetchone() == (None,):
            connection.execute(f"create role {SERVICE_LOGIN} login password 'service-of-tests'")
            connection.execute(f"grant tocsin_service to {SERVICE_LOGIN}")
            connection.execute(f"grant {SERVICE_LOGIN} to {OWNER}")
    return make_conninfo(dsn, user=SERVICE_LOGIN, password="service-of-tests")


class Service:
    """One process of Tocsin, and its log."""

    def __init__(self, process: asyncio.subprocess.Process | ForkedProcess, log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    async def wait_for_log(self, words: str) -> None:
        await until(lambda: words in self.log or self.process.returncode is not None)
        assert words in self.log, self.log

    async def stop(self) -> float:
        """Seconds from SIGTERM to its end."""
        started = time.monotonic()
        if self.process.returncode is None:
            self.process.terminate()
            await asyncio.wait_for(self.process.wait(), LONGEST)
        return time.monotonic() - started

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def running(
    *command: str,
    log: Path,
    program: tuple[str, ...] = (),
    settings: Mapping[str, str],
    as_owner: bool = False,
) -> AsyncIterator[Service]:
    """Yields a process of `tocsin`, or of `program`, with these settings and no others of ours.

    It ends with this one, also where that is killed.

    In place of the owner it connects as a service (`service_dsn`), except with `as_owner`.
    """
    parent_pipe = ParentPipe()
    if "database_url" in settings and not as_owner:
        settings = {**settings, "database_url": service_dsn(settings["database_url"])}
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")}
    environ |= {f"TOCSIN_{name.upper()}": value for name, value in settings.items()}
    process: asyncio.subprocess.Process | ForkedProcess
    with log.open("ab") as output:
        if program:
            process = await asyncio.create_subprocess_exec(
                *program,
                *command,
                env=environ | {VARIABLE: str(parent_pipe.reading)},
                stdout=output,
                stderr=output,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[parent_pipe.reading],
            )
        else:
            process = fork_tocsin(*command, environ=environ, log=log, parent_fd=parent_pipe.reading)
    service = Service(process, log)
    try:
        yield service
    except BaseException:
        print(
            f"The log of {command or program}:\n{service.log[-10_000:]}"
        )  # pytest shows it where a test fails
        raise
    finally:
        await service.stop()
        parent_pipe.close()


@asynccontextmanager
async def mail_catcher(folder: Path) -> AsyncIterator[MailCatcher]:
    """Yields a real SMTP server; its mails lie in `folder`."""
    mailbox = MailCatcher(folder)
    await mailbox.start()
    try:
        yield mailbox
    finally:
        await mailbox.stop()


def mails(folder: Path) -> list[dict[str, Any]]:
    return read_mails(folder, 1_000_000)


def mail_count(folder: Path) -> int:
    return sum(1 for _ in folder.glob("*.eml"))
