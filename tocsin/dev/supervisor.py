"""The child processes of `tocsin up`: start, restart, output with a prefix, stop; and how they end with their parent.

The parent holds the writing end of a pipe and never writes; each child inherits the reading end, which reaches its end
of file when the parent ends, even by kill -9. This works wherever pipes do.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from threading import Thread

from msgspec import Struct

from tocsin.engine.actors.machinery.breaker import backoff

VARIABLE = "TOCSIN_PARENT_FD"
MAKE_VARIABLE = "TOCSIN_MAKE_PID"  # set by the Makefile
GRACE_SECONDS = 4.0
POLL_SECONDS = 0.2
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0
SETTLED_SECONDS = 10.0  # a child that ran this long starts again with the first pause
CHUNK = 1 << 16

Report = Callable[[str], None]  # writes one line for the terminal


class UpError(Exception):
    """One line with the reason why `tocsin up` can't start or go on."""


class ChildCommand(Struct, frozen=True):
    """A child's name, in front of each line of its output, and its command."""

    name: str
    argv: Sequence[str]


def stop_with_parent() -> None:
    """Where `tocsin up` is the parent: sends SIGTERM to this process when it ends, and kills it if that is not enough.

    In a thread, so that it works during slow imports and while the event loop hangs.
    """
    inherited = os.environ.get(VARIABLE, "")
    if inherited.isdigit():
        Thread(target=_watch, args=(int(inherited),), name="parent-watch", daemon=True).start()


def _watch(fd: int) -> None:
    try:
        while os.read(fd, 1):  # nothing is ever written; b"" is the end
            pass
    except OSError:  # no such pipe: the variable came from somewhere else
        return
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)  # a process that ends in time takes this daemon thread with it
    os._exit(1)


async def wait_for_make_end(environ: Mapping[str, str] = os.environ) -> None:
    """Returns when the `make` that runs this process was interrupted or killed; never where there is none.

    Ctrl-C of a terminal reaches both. A SIGINT sent to make alone does not: make waits for our end with that signal
    blocked, which is visible on Linux. So `kill -INT` stops `make up` too.
    """
    make = environ.get(MAKE_VARIABLE, "")
    if make != str(os.getppid()):
        await asyncio.Event().wait()
    while make == str(os.getppid()) and not _interrupted(make):  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(POLL_SECONDS)


def _interrupted(make: str) -> bool:
    with suppress(OSError, ValueError):  # no /proc: only the end of make is detected
        for line in Path(f"/proc/{make}/status").read_text().splitlines():
            if line.startswith("SigBlk:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGINT - 1) & 1)
    return False


class ParentPipe:
    """The parent's side of the pipe."""

    def __init__(self) -> None:
        self.reading, self._writing = os.pipe()  # not inherited, unless by pass_fds

    def close(self) -> None:
        """Closes both ends; a child that still runs stops then."""
        for end in (self.reading, self._writing):
            os.close(end)


class Child:
    """One supervised process, in a session of its own, so that Ctrl-C reaches only its parent."""

    def __init__(
        self,
        command: ChildCommand,
        environ: Mapping[str, str],
        parent_pipe: ParentPipe,
        report: Report,
    ) -> None:
        self.command = command
        self.environ = dict(environ)
        self.quick_ends = 0  # in a row, each before it was settled
        self._parent_pipe = parent_pipe
        self._report = report
        self._process: Process | None = None
        self._stop = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        process = self._process
        return process.pid if process and process.returncode is None else None

    async def keep_running(self) -> None:
        """Starts it, and restarts it with back-off each time that it ends, until `stop`."""
        while not self._stop.is_set():
            began = time.monotonic()
            ending = await self._run()
            if self._stop.is_set():
                return
            settled = time.monotonic() - began > SETTLED_SECONDS
            self.quick_ends = 0 if settled else self.quick_ends + 1
            pause = backoff(self.quick_ends + 1, first=FIRST_PAUSE, most=LONGEST_PAUSE)
            self._report(f"{ending}; restarting in {pause:.1f} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)

    def restart(self) -> None:
        """Ends it by SIGTERM; `keep_running` starts the next one, with the `environ` of that time."""
        self._signal(signal.SIGTERM)

    async def stop(self, seconds: float) -> None:
        """Sends SIGTERM, and SIGKILL to its whole session when the time is over."""
        self._stop.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            self._report(f"did not stop within {seconds:.1f} s: killed")
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """Sends SIGKILL to it and to whatever it started; it is not restarted."""
        self._stop.set()
        self._signal(signal.SIGKILL)

    async def _run(self) -> str:
        """Runs it once; returns how it ended."""
        # Not asyncio's own pipe: that one hides the end of the child while a grandchild holds it open.
        reading, writing = os.pipe()
        pumping = asyncio.create_task(self._pump(FileIO(reading)))
        try:
            self._process = process = await self._spawn(writing)
        except OSError as error:
            return f"can't be started ({error.strerror})"
        finally:
            os.close(writing)
        if self._stop.is_set():  # stop() was called while it was being started
            self.kill()
        code = await process.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # processes that it started and left
        await asyncio.wait([pumping], timeout=0.5)  # its last lines
        pumping.cancel()
        return _ending(code)

    async def _spawn(self, output: int) -> Process:
        return await asyncio.create_subprocess_exec(
            *self.command.argv,
            env=self.environ | {VARIABLE: str(self._parent_pipe.reading)},
            pass_fds=[self._parent_pipe.reading],
            stdin=DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    async def _pump(self, pipe: FileIO) -> None:
        """Reports each line as it comes, until the last writer has closed the pipe."""
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            rest = b""
            while chunk := await reader.read(CHUNK):
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > CHUNK:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    self._report(line.decode(errors="replace").rstrip())
            if rest:
                self._report(rest.decode(errors="replace"))
        finally:
            transport.close()

    def _signal(self, number: signal.Signals) -> None:
        """Sends SIGKILL to its whole session; another signal to it alone, since it ends its own children."""
        if (pid := self.pid) is not None:
            with suppress(ProcessLookupError, PermissionError):
                (os.killpg if number == signal.SIGKILL else os.kill)(pid, number)


def _ending(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
