"""Child processes of `tocsin up`: started, kept running, their output prefixed, stopped in order."""

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

from tocsin.engine.backoff import backoff

# How a child process learns that its parent is gone, be it by kill -9.
#
# The parent holds the writing end of a pipe and never writes; the child inherits the reading end,
# which ends at the moment when the parent does. Works wherever pipes do.

VARIABLE = "TOCSIN_PARENT_FD"
MAKE_VARIABLE = "TOCSIN_MAKE_PID"  # set by the Makefile
GRACE_SECONDS = 4.0
POLL_SECONDS = 0.2


def parent_fd(environ: Mapping[str, str] = os.environ) -> int | None:
    """The inherited end of the pipe, where `tocsin up` is the parent."""
    text = environ.get(VARIABLE, "")
    return int(text) if text.isdigit() else None


async def parent_gone(fd: int) -> None:
    """Returns when the parent is gone."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(fd, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(fd)


def stop_with_parent(fd: int | None, grace: float = GRACE_SECONDS) -> None:
    """Turns the parent's end into a SIGTERM to this process, and kills it if that did not end it.

    A thread, so that it holds during slow imports and when the event loop hangs.
    """
    if fd is not None:
        Thread(target=_watch, args=(fd, grace), name="lifeline", daemon=True).start()


def _watch(fd: int, grace: float) -> None:
    try:
        while os.read(fd, 1):  # nothing is ever written; b"" is the end
            pass
    except OSError:  # no such pipe: the variable came from somewhere else
        return
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)  # a process that ends in time takes this daemon thread with it
    os._exit(1)


async def make_gone(environ: Mapping[str, str] = os.environ) -> None:
    """Returns when the `make` that runs us was interrupted or killed; never where there is none.

    A terminal's Ctrl-C reaches both. A SIGINT sent to make alone does not reach us: make waits for
    our end, with that signal blocked meanwhile, which Linux shows. So `kill -INT` stops `make up` too.
    """
    make = environ.get(MAKE_VARIABLE, "")
    if make != str(os.getppid()):
        await asyncio.Event().wait()
    while make == str(os.getppid()) and not _interrupted(make):  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(POLL_SECONDS)


def _interrupted(make: str) -> bool:
    with suppress(OSError, ValueError):  # no /proc: only its end is seen
        for line in Path(f"/proc/{make}/status").read_text().splitlines():
            if line.startswith("SigBlk:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGINT - 1) & 1)
    return False


FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0
SETTLED_SECONDS = 10.0  # a child that lived this long starts again with the first pause
CHUNK = 1 << 16

Say = Callable[[str], None]


class Command(Struct, frozen=True):
    """What a child is: its name in front of each line, and what to run."""

    name: str
    argv: Sequence[str]


class Lifeline:
    """Our end of the pipe that tells children of our end; see tocsin/dev/supervisor.py."""

    def __init__(self) -> None:
        self.reading, self._writing = os.pipe()  # not inherited, unless by pass_fds

    def close(self) -> None:
        """Lets go; a child that still runs stops then."""
        for end in (self.reading, self._writing):
            os.close(end)


class Child:
    """One supervised process, in a session of its own, so that Ctrl-C reaches only its parent."""

    def __init__(
        self, command: Command, environ: Mapping[str, str], line: Lifeline, say: Say
    ) -> None:
        self.command = command
        self.environ = dict(environ)
        self.quick_ends = 0  # in a row, each before it was settled
        self._line = line
        self._say = say
        self._process: Process | None = None
        self._stop = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        process = self._process
        return process.pid if process and process.returncode is None else None

    async def keep_running(self) -> None:
        """Starts it, and again with back-off each time that it ends, until `stop`."""
        while not self._stop.is_set():
            began = time.monotonic()
            ending = await self._run()
            if self._stop.is_set():
                return
            settled = time.monotonic() - began > SETTLED_SECONDS
            self.quick_ends = 0 if settled else self.quick_ends + 1
            pause = backoff(self.quick_ends + 1, first=FIRST_PAUSE, most=LONGEST_PAUSE)
            self._say(f"{ending}; starting it again in {pause:.1f} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)

    def start_again(self) -> None:
        """Ends it kindly; `keep_running` starts the next one, with the `environ` of then."""
        self._signal(signal.SIGTERM)

    async def stop(self, seconds: float) -> None:
        """SIGTERM, then SIGKILL to its whole session when the time is over."""
        self._stop.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            self._say(f"did not stop within {seconds:.1f} s: killed")
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """SIGKILL to it and whatever it started, and no next one."""
        self._stop.set()
        self._signal(signal.SIGKILL)

    async def _run(self) -> str:
        """Runs it once and says how it ended."""
        # A pipe of our own: asyncio's would not let us see the end while a grandchild holds it open.
        reading, writing = os.pipe()
        pumping = asyncio.create_task(self._pump(FileIO(reading)))
        try:
            self._process = process = await self._spawn(writing)
        except OSError as error:
            return f"can't be started ({error.strerror})"
        finally:
            os.close(writing)
        if self._stop.is_set():  # asked while it was being started
            self.kill()
        code = await process.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # what it started and left behind
        await asyncio.wait([pumping], timeout=0.5)  # its last words
        pumping.cancel()
        return _ending(code)

    async def _spawn(self, output: int) -> Process:
        return await asyncio.create_subprocess_exec(
            *self.command.argv,
            env=self.environ | {VARIABLE: str(self._line.reading)},
            pass_fds=[self._line.reading],
            stdin=DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    async def _pump(self, pipe: FileIO) -> None:
        """Says each line as it comes, until the last writer has closed the pipe."""
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
                    self._say(line.decode(errors="replace").rstrip())
            if rest:
                self._say(rest.decode(errors="replace"))
        finally:
            transport.close()

    def _signal(self, number: signal.Signals) -> None:
        """To its whole session when it is the end, else to it alone, which tells its own children."""
        if (pid := self.pid) is not None:
            with suppress(ProcessLookupError, PermissionError):
                (os.killpg if number == signal.SIGKILL else os.kill)(pid, number)


def _ending(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
