"""`make schema`: docs/schema.md, the tables with their comments and a diagram, from a migrated database."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
from msgspec import Struct
from psycopg.rows import class_row

from tocsin.dev import embedded_postgres
from tocsin.dev.postgres_cluster import remove_cluster
from tocsin.migrate import migrate

FILE = Path(__file__).parent.parent.parent / "docs" / "schema.md"
HEADER = """\
# The tables

Made by `make schema` from a migrated database; do not edit. The descriptions are the comments in
[0001_tocsin.sql](../tocsin/sql/migrations/0001_tocsin.sql), which also has the indexes and what each is for.

## Diagram

A solid line is a foreign key. A dotted line is a reference that has none: the hot tables carry no foreign keys
([ADR 0008](adr/0008-no-foreign-keys-on-the-hot-tables.md)). It is drawn where a column bears the name of another
table's key: `<table>_id`, or the table's own name. `null` marks a column that may be null.
"""

# A key that other tables may name without a foreign key: <table>_id, or the table's own name (`event_type`, `channel`).
NATURAL_KEYS = ("{table}_id", "{table}")

_COLUMNS = """
select
    c.relname as "table",
    a.attname as name,
    format_type(a.atttypid, null) as type,
    a.attnotnull as required,
    coalesce(col_description(c.oid, a.attnum), '') as comment,
    coalesce(p.conkey, '{}') as primary_key,
    a.attnum as number,
    f.confrelid::regclass::text as target
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_constraint p on p.conrelid = c.oid and p.contype = 'p'
left join pg_constraint f on f.conrelid = c.oid and f.contype = 'f' and f.conkey = array[a.attnum]
where c.relnamespace = 'tocsin'::regnamespace
    and c.relkind = 'r'
order by c.oid, a.attnum
"""
_TABLES = """
select c.relname, obj_description(c.oid, 'pg_class')
from pg_class c
where c.relnamespace = 'tocsin'::regnamespace
    and c.relkind = 'r'
order by c.oid
"""
_TYPES = {
    "timestamp with time zone": "timestamptz",
    "time without time zone": "time",
    "character varying": "varchar",
    "double precision": "float8",
}


class Column(Struct, frozen=True):
    """One column as the catalogue has it."""

    table: str
    name: str
    type: str
    required: bool
    comment: str
    primary_key: list[int]
    number: int
    target: str | None  # of a foreign key

    @property
    def is_key(self) -> bool:
        """Part of the primary key."""
        return self.number in self.primary_key

    @property
    def is_whole_key(self) -> bool:
        """The primary key by itself."""
        return self.primary_key == [self.number]


def schema_page(connection: psycopg.Connection[Any]) -> str:
    """Returns the whole file, for the database behind this connection."""
    with connection.cursor(row_factory=class_row(Column)) as cursor:
        columns = cursor.execute(_COLUMNS).fetchall()
    tables: dict[str, list[Column]] = {}
    for column in columns:
        tables.setdefault(column.table, []).append(column)
    lines = ["```mermaid", "erDiagram"]
    for table, own in tables.items():
        lines += [f"    {table} {{", *(f"        {_attribute(each)}" for each in own), "    }"]
    lines += [f"    {line}" for line in _references(tables)]
    lines += ["```", ""]
    for table, comment in connection.execute(_TABLES).fetchall():
        lines += [
            f"## {table}",
            "",
            comment,
            "",
            "| column | type | description |",
            "| --- | --- | --- |",
        ]
        lines += [f"| `{each.name}` | {_type(each)} | {each.comment} |" for each in tables[table]]
        lines += [""]
    return "\n".join([HEADER, *lines]).rstrip("\n") + "\n"


def _type(column: Column) -> str:
    """Its type, as short as PostgreSQL accepts it."""
    base = column.type.removesuffix("[]")
    array = "[]" if base != column.type else ""
    return _TYPES.get(base, base.removeprefix("tocsin.")) + array


def _attribute(column: Column) -> str:
    """`type name PK "null"`, in the letters that Mermaid takes."""
    keys = ["PK"] * column.is_key + ["FK"] * (column.target is not None)
    null = "" if column.required else '"null"'
    words = [_type(column), column.name, ", ".join(keys), null]
    return " ".join(word for word in words if word)


def _references(tables: Mapping[str, list[Column]]) -> Iterator[str]:
    """Yields a line for each column that names another table's key."""
    named = {
        column.name: table
        for table, columns in tables.items()
        for column in columns
        if column.is_whole_key
        and column.name in (pattern.format(table=table) for pattern in NATURAL_KEYS)
    }
    for table, columns in tables.items():
        for column in columns:
            target = (column.target or named.get(column.name, "")).removeprefix("tocsin.")
            if target in ("", table):
                continue
            one = "||" if column.required else "|o"
            many = "o|" if column.is_whole_key else "o{"
            line = "--" if column.target else ".."
            yield f"{target} {one}{line}{many} {table} : {column.name}"


def main() -> int:
    """The command."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # PostgreSQL may run as another user
        data_dir = Path(folder) / "data"
        server = embedded_postgres.start(data_dir, durable=False)
        try:
            migrate(server.dsn)
            with psycopg.connect(server.dsn) as connection:
                FILE.write_text(schema_page(connection), encoding="utf-8")
        finally:
            embedded_postgres.stop(server)
            remove_cluster(data_dir)
    print(f"{FILE.name} is written; the diff is the review.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
