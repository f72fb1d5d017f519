"""The glossary of docs/architecture.md: each word is the same in SQL, Python and JSON, and what it names is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from msgspec import Struct

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db

ROOT = Path(__file__).parent.parent.parent
COLUMNS = ["word", "meaning", "SQL", "Python", "JSON"]
MOST_WORDS = 40


class Word(Struct):
    """A row; the names are empty where the word has none there."""

    word: str
    meaning: str
    sql: str
    python: str
    json: str


def glossary() -> list[Word]:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    section = text.partition("\n## Glossary\n")[2].partition("\n## ")[0]
    header, _, *rows = [line for line in section.splitlines() if line.startswith("|")]
    assert cells(header) == COLUMNS
    return [Word(*(each.strip("`—") for each in cells(row))) for row in rows]


def cells(line: str) -> list[str]:
    return [each.strip() for each in line.strip("|").split("|")]


def snake_case(name: str) -> str:
    """`EventType`, `event type` and `tocsin.event_type` as `event_type`."""
    last = re.sub(r"[ -]", "_", name.rpartition(".")[2])
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", last).lower()


def singular(name: str) -> str:
    return re.sub(r"ies\b", "y", name).removesuffix("s")


def test_there_are_few_words_and_each_is_there_once() -> None:
    words = [each.word for each in glossary()]
    assert 0 < len(words) <= MOST_WORDS
    assert len(set(words)) == len(words)
    assert [each.word for each in glossary() if not each.meaning] == []


def test_each_word_is_the_same_in_sql_python_and_json() -> None:
    different = [
        f"{each.word}: {name}"
        for each in glossary()
        for name in (each.sql, each.python, each.json)
        if name and singular(snake_case(each.word)) not in singular(snake_case(name))
    ]
    assert different == []


def test_the_tables_and_columns_are_there(db: Db) -> None:
    rows = db.execute(
        "select format('%s.%s', table_schema, table_name), column_name"
        " from information_schema.columns where table_schema = 'tocsin'"
    ).fetchall()
    there = {table for table, _ in rows} | {f"{table}.{column}" for table, column in rows}
    assert [each.sql for each in glossary() if each.sql and each.sql not in there] == []


def test_the_python_names_are_there() -> None:
    there = {
        name
        for file in (ROOT / "tocsin").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        for name in defined(node)
    }
    assert [each.python for each in glossary() if each.python and each.python not in there] == []


def defined(node: ast.AST) -> Iterator[str]:
    """Classes, functions, fields and names of a module."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id
    elif isinstance(node, ast.Assign):
        yield from (each.id for each in node.targets if isinstance(each, ast.Name))


async def test_the_json_keys_are_in_the_api(anyone: httpx.AsyncClient) -> None:
    response = await anyone.get("/schema/openapi.json")
    there = set(keys(response.json()))
    assert [each.json for each in glossary() if each.json and each.json not in there] == []


def keys(description: Any) -> Iterator[str]:
    """The names of all properties in an OpenAPI description."""
    if isinstance(description, dict):
        if isinstance(properties := description.get("properties"), dict):
            yield from properties
        for each in description.values():
            yield from keys(each)
    elif isinstance(description, list):
        for each in description:
            yield from keys(each)
