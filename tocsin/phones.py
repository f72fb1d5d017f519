"""What arrived on the phones of `tocsin up`: the newest pushes, a line each, in one file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from fcntl import LOCK_EX, LOCK_SH, flock
from io import FileIO
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

FILE = "phones.jsonl"
KEPT = 200

Kind = Literal["alert", "badge", "background"]


class Arrival(Struct, frozen=True, kw_only=True):
    """One push as a phone got it; of the person behind the token a provider knows nothing."""

    at: datetime  # UTC
    provider: str  # apns, fcm
    token: str
    kind: Kind  # shown; only the icon's number; only to wake the app
    title: str = ""
    body: str = ""
    badge: int | None = None  # None leaves the icon as it is
    sound: str | None = None
    data: dict[str, Any] = {}
    collapse_id: str | None = None  # a later one with the same takes its place


class Phones:
    """Keeps what arrives, on disk before the sender hears of it; the newest `kept` at least, never twice as many."""

    def __init__(self, file: Path, *, kept: int = KEPT) -> None:
        self._file = file
        self._kept = kept

    def keep(self, arrival: Arrival) -> None:
        """Adds one; raises OSError."""
        with _open(self._file, os.O_RDWR | os.O_APPEND | os.O_CREAT) as file:
            lines = file.readall().splitlines(keepends=True)
            if len(lines) >= 2 * self._kept - 1:
                file.truncate(0)
                file.write(b"".join(lines[1 - self._kept :]))
            elif lines and not lines[-1].endswith(b"\n"):  # a crash cut it off
                file.write(b"\n")
            file.write(msgspec.json.encode(arrival) + b"\n")


def read_arrivals(file: Path, limit: int = KEPT) -> list[Arrival]:
    """The newest first."""
    try:
        with _open(file, os.O_RDONLY) as opened:
            lines = opened.readall().splitlines()
    except FileNotFoundError:
        return []
    return [arrival for line in reversed(lines[-limit:]) if (arrival := _parsed(line))]


def clear(file: Path) -> None:
    """Forgets them all."""
    with suppress(FileNotFoundError), _open(file, os.O_RDWR) as opened:
        opened.truncate(0)


@contextmanager
def _open(file: Path, flags: int) -> Iterator[FileIO]:
    """Locked for as long as it is open, since one process writes, another reads and forgets; closed to others."""
    descriptor = os.open(file, flags, 0o600)
    with FileIO(descriptor, "rb" if flags == os.O_RDONLY else "r+b") as opened:
        flock(opened, LOCK_SH if flags == os.O_RDONLY else LOCK_EX)
        yield opened


def _parsed(line: bytes) -> Arrival | None:
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(line, type=Arrival)
    return None
