"""Each public type of the package has a name of its own: two of one name can't be distinguished in an editor."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

TOCSIN = Path(__file__).parent.parent.parent / "tocsin"
TYPE = re.compile(r"[A-Z][a-z]\w*")  # as a class is named, and not a constant
PARALLELS = {
    "Connection",
    "CategoryName",
    "Environment",
    "EventTypeName",
    "Label",
    "Locale",
    "Overrides",
    "Token",
    "Zone",
}
"""Names that several modules have: aliases of a driver's connection, and types of HTTP fields named by their noun."""


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
    assert twice.keys() == PARALLELS, twice


def test_each_decision_has_a_number_of_its_own() -> None:
    decisions = sorted((TOCSIN.parent / "docs/adr").glob("0*.md"))
    numbers = [path.name[:4] for path in decisions]
    assert numbers == sorted(set(numbers))
    for path in decisions:
        assert path.read_text("utf-8").startswith(f"# {path.name[:4]}: "), path.name
