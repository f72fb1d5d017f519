"""Every SQL statement that Tocsin runs, by name: `sql/queries/<noun>.sql`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import LiteralString

_NAME = re.compile(r"^-- name: (\w+)[!#]?\n", re.MULTILINE)  # ! and # mark statements without rows
# Strings, quoted names and casts are found too, so that no colon in them is taken for a parameter.
_PARAMETER = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|::|:(?P<name>[a-z_]\w*)""")


@cache
def load(noun: str) -> Mapping[str, LiteralString]:
    """Returns the statements of `queries/<noun>.sql` by name, with psycopg's placeholders: `%(name)s` for `:name`."""
    text = (files(__name__) / "queries" / f"{noun}.sql").read_text("utf-8")
    _, *parts = _NAME.split(text)
    return {name: _statement(body) for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _statement(body: str) -> LiteralString:
    """Returns one statement without its comment lines and its indentation.

    psycopg remembers the placeholders of statements of up to 4,096 characters; in longer ones it finds them each time.
    """
    lines = [line for line in map(str.strip, body.splitlines()) if not line.startswith("--")]
    return _PARAMETER.sub(_placeholder, "\n".join(lines).strip().removesuffix(";"))


def _placeholder(found: re.Match[str]) -> str:
    return f"%({found['name']})s" if found["name"] else found[0]
