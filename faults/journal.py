"""Lines of JSON that are kept when their writer is killed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec


class Journal:
    """Appends lines; the kernel has each line when `write` returns, so a kill can't lose it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, **line: Any) -> None:
        os.write(self._file, msgspec.json.encode(line) + b"\n")

    def close(self) -> None:
        os.close(self._file)


def read(path: Path) -> list[dict[str, Any]]:
    """Returns all lines so far; an incomplete last line is ignored."""
    if not path.exists():
        return []
    whole = path.read_bytes().rpartition(b"\n")[0]
    return [msgspec.json.decode(line) for line in whole.split(b"\n") if line]
