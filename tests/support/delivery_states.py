"""The diagram of delivery states in docs/delivery.md, from TRANSITIONS. `make states` writes it."""

from __future__ import annotations

import re
from pathlib import Path

from tocsin.engine.model import TRANSITIONS

FILE = Path(__file__).parent.parent.parent / "docs" / "delivery.md"
_DIAGRAM = re.compile(r"(?<=```text\n)new +->.*?(?=```)", re.DOTALL)


def delivery_page(text: str) -> str:
    """Returns the page with the diagram as the table has it."""
    return _DIAGRAM.sub(diagram(), text)


def diagram() -> str:
    """Returns a line for each state that isn't an end."""
    lines = [
        f"{state or 'new':<8} -> {' | '.join(ends)}\n"
        for state, ends in TRANSITIONS.items()
        if ends
    ]
    return "".join(lines)


if __name__ == "__main__":
    FILE.write_text(delivery_page(FILE.read_text("utf-8")), "utf-8")
