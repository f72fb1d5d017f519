"""`make reasons`: the tables of docs/delivery.md, from the table of reasons."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tocsin.engine.explain.reasons import DECISIONS, DELIVERIES

PAGE = Path(__file__).parent.parent.parent / "docs" / "delivery.md"
_BLOCK = re.compile(
    r"(<!-- (decisions|deliveries): `make reasons` -->\n).*?(?=<!-- end -->)", re.DOTALL
)


def written(page: str) -> str:
    """Returns the page with its tables as they have to be."""
    tables = {"decisions": _decisions(), "deliveries": _deliveries()}
    return _BLOCK.sub(lambda block: f"{block[1]}\n{tables[block[2]]}\n\n", page)


def _decisions() -> str:
    rows = ((f"`{each.code}`", each.decision, each.meaning, each.cure) for each in DECISIONS)
    return _table(("reason", "decision", "meaning", "what to do"), rows)


def _deliveries() -> str:
    rows = (
        (", ".join(f"`{code}`" for code in each.codes), each.state, each.meaning, each.cure)
        for each in DELIVERIES
    )
    return _table(("reason", "state", "meaning", "what to do"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_settings_as_code, line))} |" for line in lines)


def _settings_as_code(cell: str) -> str:
    return re.sub(r"\b(TOCSIN_[A-Z_]+|token_uri)\b", r"`\1`", cell)


def main() -> None:
    """Writes the page."""
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
