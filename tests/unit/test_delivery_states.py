"""The transitions of delivery states: the table, the statements that write a state, and the diagram agree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.delivery_states import FILE, delivery_page, diagram
from tocsin.engine.model import TRANSITIONS, DeliveryState

SQL = Path(__file__).parent.parent.parent / "tocsin" / "sql"
WRITES = re.compile(
    r"(?:^ *-- states: (?P<states>.*)\n)?"
    r"^ *(?:insert into tocsin\.delivery \(|update tocsin\.delivery d\n *set (?P<set>state = .*))",
    re.MULTILINE,
)


def writes() -> Iterator[tuple[str, re.Match[str]]]:
    """Each statement that writes a state, with its file."""
    for folder in ("functions", "queries"):
        for path in sorted((SQL / folder).glob("*.sql")):
            for found in WRITES.finditer(path.read_text("utf-8")):
                yield path.name, found


STATEMENTS = list(writes())
NAMES = [f"{file}-{number}" for number, (file, _) in enumerate(STATEMENTS)]


def transitions(states: str) -> set[tuple[str, str]]:
    """`queued | deferred -> sent` as pairs; a state that stays as it is makes none."""
    before, after = (side.split(" | ") for side in states.split(" -> "))
    return {(one, other) for one in before for other in after if one != other}


def table() -> set[tuple[str, str]]:
    """TRANSITIONS as pairs."""
    return {(state or "new", end) for state, ends in TRANSITIONS.items() for end in ends}


def test_each_statement_that_writes_a_state_names_its_transitions() -> None:
    assert len(STATEMENTS) > 10
    unnamed = [(file, found[0]) for file, found in STATEMENTS if not found["states"]]
    assert unnamed == []


def test_the_table_has_the_transitions_of_all_statements_and_no_others() -> None:
    named = set().union(*(transitions(found["states"]) for _, found in STATEMENTS))
    assert named == table()


@pytest.mark.parametrize(("file", "found"), STATEMENTS, ids=NAMES)
def test_a_state_that_a_statement_writes_is_among_those_it_names(
    file: str, found: re.Match[str]
) -> None:
    written = set(re.findall(r"'(\w+)'", found["set"] or ""))
    assert written <= {after for _, after in transitions(found["states"])}, file


def test_no_statement_writes_a_state_in_another_form() -> None:
    updates = [
        re.split(r"\n *(?:from|where)\b", rest)[0]
        for folder in ("functions", "queries")
        for path in (SQL / folder).glob("*.sql")
        for rest in re.split(r"update\s+(?:only\s+)?tocsin\.delivery\b", path.read_text("utf-8"))[
            1:
        ]
    ]
    writing = [each for each in updates if re.search(r"\bstate =", each)]
    assert len(writing) == sum(1 for _, found in STATEMENTS if found["set"])


def test_every_state_is_in_the_table() -> None:
    assert set(TRANSITIONS) == {None, *DeliveryState}


def test_the_page_has_the_diagram_of_the_table() -> None:
    text = FILE.read_text("utf-8")
    assert diagram() in text
    assert delivery_page(text) == text  # else: make states
