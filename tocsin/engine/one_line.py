"""Text for places that hold one line: subjects, headings, the list view."""

from __future__ import annotations

import re

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def one_line(text: str, most: int | None = None) -> str:
    """Without line breaks and control characters, cut at a number of characters."""
    line = " ".join(CONTROL.sub(" ", text).split())
    return line if most is None or len(line) <= most else line[: most - 1].rstrip() + "…"
