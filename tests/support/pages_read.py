"""How many pages a statement reads, as a measure that neither a busy machine nor other sessions change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg


def pages_read(
    db: psycopg.Connection[Any], statement: str, arguments: Mapping[str, Any] | None = None
) -> int:
    """Returns the pages that a statement reads, in functions too: the fewest of four times.

    The first time fills caches. After new statistics a later one plans again, and reads the catalogue for that.
    """
    return min(pages_read_once(db, statement, arguments) for _ in range(4))


def pages_read_once(
    db: psycopg.Connection[Any], statement: str, arguments: Mapping[str, Any] | None = None
) -> int:
    """Returns the pages that a statement reads, with those of the catalogue."""
    explained = f"explain (analyze, buffers, format json) {statement}".encode()
    row = psycopg.ClientCursor(db).execute(explained, arguments).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
