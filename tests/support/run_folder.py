"""Where a run keeps its servers: in memory, if there is room, since most tests make a database, 300 files of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from tempfile import gettempdir, mkdtemp

MEMORY = Path("/dev/shm")
ROOM = 4 << 30  # bytes: a process of a run takes up to 1 GB
PREFIX = "tocsin-run-"


@contextmanager
def run_folder(memory: Path = MEMORY) -> Iterator[Path]:
    """Yields a folder that PostgreSQL's user may enter, locked during the run; removes those of ended runs."""
    parent = memory if has_room(memory) else Path(gettempdir())
    with ExitStack() as kept:
        with locked(parent, LOCK_EX):  # a folder is not removed between its making and its locking
            remove_left_over(parent)
            folder = Path(mkdtemp(prefix=PREFIX, dir=parent))
            kept.callback(shutil.rmtree, folder, ignore_errors=True)
            kept.enter_context(locked(folder, LOCK_EX))
        folder.chmod(0o755)
        yield folder


def has_room(memory: Path) -> bool:
    """Returns whether it is large enough, and programs may run in it: PostgreSQL's are copied beside some clusters."""
    try:
        found = os.statvfs(memory)
    except OSError:
        return False
    closed = found.f_flag & (os.ST_RDONLY | getattr(os, "ST_NOEXEC", 0))
    return not closed and found.f_bavail * found.f_frsize >= ROOM and os.access(memory, os.W_OK)


def remove_left_over(parent: Path) -> None:
    """Removes what a run left that was killed: its lock ended with it."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError), locked(folder, LOCK_EX | LOCK_NB):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(folder: Path, how: int) -> Iterator[None]:
    """Holds the folder's lock; BlockingIOError where it is held and `how` does not wait."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        flock(number, how)
        yield
    finally:
        os.close(number)
