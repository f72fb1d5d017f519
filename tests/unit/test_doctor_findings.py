"""The texts of `tocsin doctor`: each finding of the code is in findings.toml with the same values, and no other is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from typing import get_args

import pytest

from tocsin.cli import doctor
from tocsin.cli.doctor.examination import TEXTS, finding
from tocsin.sql.install import State

_NAME = re.compile(r"[a-z]+\.[a-z_]+")
_NOT_FINDINGS = {"unreachable"}
_COMPUTED = {f"schema.{state}" for state in get_args(State) if state != "current"}


def _calls() -> Iterator[tuple[set[str], set[str] | None]]:
    """Yields the possible names of each call of finding(), and its values; None where these are not spelled out."""
    for path in sorted(Path(doctor.__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "finding":
                values = {each.arg for each in call.keywords}
                names = {
                    str(each.value)
                    for each in ast.walk(call.args[0])
                    if isinstance(each, ast.Constant) and _NAME.fullmatch(str(each.value))
                }
                yield names, None if None in values else {str(value) for value in values}


def _values(name: str) -> set[str]:
    check, key = name.split(".")
    texts = TEXTS[check][key].values()
    fields = (field for text in texts for _, field, _, _ in Formatter().parse(text))
    return {field.split(".")[0] for field in fields if field}


def _declared() -> set[str]:
    return {
        f"{check}.{key}"
        for check, rows in TEXTS.items()
        if check not in _NOT_FINDINGS
        for key, texts in rows.items()
        if isinstance(texts, dict)
    }


def test_each_finding_has_its_texts_and_its_values() -> None:
    for names, values in _calls():
        for name in names:
            assert values is None or _values(name) <= values, (name, values)


def test_each_text_is_used() -> None:
    source = "".join(path.read_text("utf-8") for path in Path(doctor.__file__).parent.glob("*.py"))
    unused = {name for name in _declared() if f'"{name}"' not in source}
    assert unused == _COMPUTED


def test_red_and_yellow_findings_have_a_cure() -> None:
    for name in _declared():
        check, key = name.split(".")
        texts = TEXTS[check][key]
        (status,) = texts.keys() - {"cure"}
        assert ("cure" in texts) == (status in {"red", "yellow"}), name


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(KeyError):
        finding("clock.right")
