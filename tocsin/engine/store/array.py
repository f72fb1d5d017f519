"""Arrays as PostgreSQL writes them: for the statements that a worker says all the time, where psycopg's own writing of
each element took a tenth of a delivery.
"""

from __future__ import annotations

from collections.abc import Iterable


def to_array(values: Iterable[object | None]) -> str:
    """`{"a","b",NULL}`, of values whose `str()` PostgreSQL reads; the statement has to cast it."""
    texts = ["NULL" if value is None else f'"{value}"' for value in values]
    array = ",".join(texts)
    if "\\" in array or array.count('"') != 2 * (len(texts) - texts.count("NULL")):
        array = ",".join([_escaped(text) for text in texts])
    return f"{{{array}}}"


def _escaped(text: str) -> str:
    if text == "NULL":
        return text
    inner = text[1:-1].replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inner}"'
