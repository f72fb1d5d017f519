"""The lists of mutants fit the code, so that `make mutants` tests what they state."""

from __future__ import annotations

import re

import edits
import msgspec
import pure

PACKAGE = edits.ROOT / "tocsin"


def test_each_edit_is_found_once_and_so_is_its_test() -> None:
    placed, problems = edits.place(edits.read_table())
    assert problems == []
    assert len(placed) > 140


def test_each_survivor_is_a_line_of_the_code() -> None:
    sources = [file.read_text("utf-8") for file in PACKAGE.rglob("*.py")]
    code = " ".join(" ".join(sources).split())
    known = msgspec.toml.decode(pure.REASONS.read_bytes(), type=pure.Reasons).survivor
    gone = [
        each
        for each in known
        if " ".join(each.line.split()) not in code
        or not re.search(rf"def {each.function.rpartition('ǁ')[2]}\b", code)
    ]
    assert known
    assert gone == []
