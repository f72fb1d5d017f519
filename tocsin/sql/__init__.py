"""Every SQL statement that Tocsin runs, by name: `sql/queries/<noun>.sql`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import as_file, files
from typing import LiteralString


@cache
def load(noun: str) -> Mapping[str, LiteralString]:
    """The statements of `queries/<noun>.sql` by their names, with psycopg's placeholders."""
    import aiosql  # not at the top: apps that call Tocsin don't have it

    with as_file(files(__name__) / "queries" / f"{noun}.sql") as path:
        queries = aiosql.from_path(path, "psycopg", mandatory_parameters=False)
    return {
        name: getattr(queries, name).sql
        for name in queries.available_queries
        if "_cursor" not in name
    }


@cache
def client_statements() -> Mapping[str, LiteralString]:
    """The statements that apps run, by name, with placeholders `$1`, `$2`, … as they are."""
    text = (files(__name__) / "queries" / "client.sql").read_text("utf-8")
    statements: dict[str, LiteralString] = {}
    for part in text.split("-- name: ")[1:]:
        name, _comment, statement = part.split("\n", 2)
        statements[name] = statement.strip().rstrip(";")
    return statements
