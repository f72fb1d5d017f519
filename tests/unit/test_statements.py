"""The statements of tocsin/sql/queries, as they are given to psycopg."""

from __future__ import annotations

from importlib.resources import files

import pytest

from tocsin.sql import load

# psycopg._queries.MAX_CACHED_STATEMENT_LENGTH: of a longer one it reads the placeholders at each call, which takes
# 75 µs or more.
LONGEST = 4096
NOUNS = sorted(
    each.name.removesuffix(".sql") for each in (files("tocsin.sql") / "queries").iterdir()
)


@pytest.mark.parametrize("noun", NOUNS)
def test_psycopg_reads_the_placeholders_of_each_statement_only_once(noun: str) -> None:
    too_long = [name for name, statement in load(noun).items() if len(statement) > LONGEST]
    assert not too_long


def test_statement_has_no_comments_and_no_indentation() -> None:
    statement = load("notification")["list_notifications"]
    assert not any(line.startswith(("--", " ")) for line in statement.splitlines())
