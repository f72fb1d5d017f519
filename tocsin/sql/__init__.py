"""Every SQL statement that Tocsin runs, by name: `sql/queries/<noun>.sql`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import as_file, files
from typing import LiteralString

import aiosql


@cache
def load(noun: str) -> Mapping[str, LiteralString]:
    """The statements of `queries/<noun>.sql` by their names, with psycopg's placeholders."""
    with as_file(files(__name__) / "queries" / f"{noun}.sql") as path:
        queries = aiosql.from_path(path, "psycopg", mandatory_parameters=False)
    return {
        name: getattr(queries, name).sql
        for name in queries.available_queries
        if "_cursor" not in name
    }
