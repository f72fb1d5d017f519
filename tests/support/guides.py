"""The code of the guides, as files: a block whose first line names its path (`// app/page.tsx`) is that file."""

from __future__ import annotations

import re
from pathlib import Path

GUIDES = Path(__file__).parent.parent.parent / "docs" / "guides"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PATH = re.compile(r"(?:<\?php\n|---\n)?(?://|#|--|<!--) (\S+\.\w+)(?: -->)?\n")


def blocks(page: str, language: str) -> list[str]:
    """Returns the blocks of a guide in one language, in their order."""
    text = (GUIDES / page).read_text("utf-8")
    return [code for name, code in _BLOCK.findall(text) if name == language]


def files(page: str) -> dict[str, str]:
    """Returns the files of a guide, by their paths; the parts of one file are joined."""
    text = (GUIDES / page).read_text("utf-8")
    found: dict[str, str] = {}
    for _, code in _BLOCK.findall(text):
        if named := _PATH.match(code):
            found[named[1]] = found.get(named[1], "") + code
    return found


def write(page: str, folder: Path) -> list[Path]:
    """Writes the files of a guide into a folder; returns their paths."""
    written = []
    for path, code in files(page).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(code)
        written.append(target)
    return written
