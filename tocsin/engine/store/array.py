"""Arrays as PostgreSQL writes them: for the statements that a worker says all the time, where psycopg's own writing of
each element took a tenth of a delivery.
"""

from __future__ import annotations

from collections.abc import Iterable


def to_array(values: Iterable[object | None]) -> str:
    """`{"a","b",NULL}`, of values whose `str()` PostgreSQL reads; the statement has to cast it."""
    return (
        "{" + ",".join(["NULL" if value is None else _quoted(str(value)) for value in values]) + "}"
    )


def _quoted(text: str) -> str:
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
