"""How a child process learns that its parent is gone, be it by kill -9.

The parent holds the writing end of a pipe and never writes; the child inherits the reading end,
which ends at the moment when the parent does. Works wherever pipes do.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread

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
