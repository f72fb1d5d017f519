"""Names and sizes: each public type and file has a name of its own, and functions and test files are short."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

TOCSIN = Path(__file__).parent.parent.parent / "tocsin"
TYPE = re.compile(r"[A-Z][a-z]\w*")  # as a class is named, and not a constant
LONGEST_FUNCTION, LONGEST_TEST_FILE = 50, 500  # lines
MOST_ENTRIES, MOST_ROOMS = 14, 12
PARALLEL_FILES = {"apns.py", "fcm.py", "web_push.py", "notification.py"}
"""Two modules of one thing: an actor and its far end; the routes of a noun and its queries."""


def types(module: ast.Module) -> Iterator[str]:
    """The public classes and aliases that a module defines."""
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id


def test_no_public_type_is_defined_twice() -> None:
    places: defaultdict[str, set[str]] = defaultdict(set)
    for path in TOCSIN.rglob("*.py"):
        for name in types(ast.parse(path.read_text("utf-8"))):
            if TYPE.fullmatch(name):
                places[name].add(str(path.relative_to(TOCSIN)))
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert twice == {}


def test_no_file_name_is_there_twice_but_for_parallels() -> None:
    found = Counter(path.name for path in TOCSIN.rglob("*.py") if path.name != "__init__.py")
    assert {name for name, count in found.items() if count > 1} == PARALLEL_FILES


def test_the_package_and_the_engine_have_few_entries() -> None:
    top, engine = entries(TOCSIN) - {"py.typed"}, entries(TOCSIN / "engine")
    assert len(top) <= MOST_ENTRIES, top
    assert len(engine) <= MOST_ROOMS, engine


def entries(folder: Path) -> set[str]:
    """Returns the files and packages; a folder that an earlier commit had may be left without a module."""
    return {
        path.name
        for path in folder.iterdir()
        if not path.name.startswith("__") and (path.is_file() or any(path.rglob("*.py")))
    }


def test_no_function_has_more_than_fifty_lines() -> None:
    long = [
        f"{path}:{node.lineno}"
        for path in TOCSIN.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION
    ]
    assert long == []


def test_no_file_of_tests_has_more_than_five_hundred_lines() -> None:
    files = (TOCSIN.parent / "tests").rglob("*.py")
    lines = {path.name: len(path.read_text("utf-8").splitlines()) for path in files}
    assert {name: count for name, count in lines.items() if count > LONGEST_TEST_FILE} == {}


def test_each_decision_has_a_number_of_its_own() -> None:
    decisions = sorted((TOCSIN.parent / "docs/adr").glob("0*.md"))
    numbers = [path.name[:4] for path in decisions]
    assert numbers == sorted(set(numbers))
    for path in decisions:
        assert path.read_text("utf-8").startswith(f"# {path.name[:4]}: "), path.name
