"""docs/logs.md lists each line that the service logs: its event, level, logger and fields, as the code has them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "logs.md"
LEVELS = {
    "debug": "debug",
    "info": "info",
    "many": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
}
EACH_LINE = {"event", "level", "logger", "timestamp"}


class LogLine(NamedTuple):
    """A line of the log: its event, the levels that it has, its logger and its fields."""

    event: str
    levels: frozenset[str]
    logger: str
    fields: frozenset[str]


class Module:
    """A module that logs by structlog."""

    def __init__(self, path: Path) -> None:
        self.tree = ast.parse(path.read_text("utf-8"))
        self.name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        self.loggers = dict(self._loggers())
        self.aliases = {
            ast.unparse(node.targets[0]): found
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Assign) and (found := list(self._methods(node.value)))
        }

    def _loggers(self) -> Iterator[tuple[str, str]]:
        for node in (each for each in self.tree.body if isinstance(each, ast.Assign)):
            made = node.value
            if isinstance(made, ast.Call) and ast.unparse(made.func) == "structlog.get_logger":
                name = made.args[0]
                text = name.value if isinstance(name, ast.Constant) else self.name
                yield ast.unparse(node.targets[0]), str(text)

    def _methods(self, value: ast.expr) -> Iterator[ast.Attribute]:
        """Yields `log.info` and `log.debug` of `log.info if … else log.debug`."""
        for each in [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]:
            if isinstance(each, ast.Attribute) and ast.unparse(each.value) in self.loggers:
                yield each

    def lines(self) -> Iterator[LogLine]:
        """Yields what its calls log."""
        for call in (each for each in ast.walk(self.tree) if isinstance(each, ast.Call)):
            methods = self.aliases.get(ast.unparse(call.func)) or list(self._methods(call.func))
            if methods:
                levels = frozenset(LEVELS[each.attr] for each in methods)
                fields = set().union(*map(self._fields, call.keywords))
                if methods[0].attr == "exception":
                    fields.add("exception")
                logger = self.loggers[ast.unparse(methods[0].value)]
                for event in events(call.args[0]):
                    yield LogLine(event, levels, logger, frozenset(fields))

    def uses(self) -> int:
        """How often a logger is named, beside its assignment."""
        names = (each for each in ast.walk(self.tree) if isinstance(each, ast.Name))
        return sum(each.id in self.loggers and isinstance(each.ctx, ast.Load) for each in names)

    def _fields(self, keyword: ast.keyword) -> set[str]:
        if keyword.arg is None:
            value = ast.unparse(keyword.value)
            return {"error", "at"} if value == "describe(error)" else self._appended(value)
        return {"exception" if keyword.arg == "exc_info" else keyword.arg}

    def _appended(self, name: str) -> set[str]:
        """Returns the keys of the dicts that are appended to a list named in the plural, such as `self._lines`."""
        return {
            str(key.value)
            for call in ast.walk(self.tree)
            if isinstance(call, ast.Call) and ast.unparse(call.func) == f"self._{name}s.append"
            for key in (call.args[0].keys if isinstance(call.args[0], ast.Dict) else [])
            if isinstance(key, ast.Constant)
        }


def modules() -> Iterator[Module]:
    """All modules of the service that log; logs.py only defines how."""
    for path in sorted((ROOT / "tocsin").rglob("*.py")):
        module = Module(path)
        if module.loggers:
            yield module


def events(given: ast.expr) -> list[str]:
    """Returns the text, or the texts of the constants named like it: `_LOGGED[kind]`, `self._advice`."""
    if isinstance(given, ast.Constant):
        return [str(given.value)]
    name = ast.unparse(given).removeprefix("self.").partition("[")[0].upper()
    return [
        str(text.value)
        for path in (ROOT / "tocsin" / "engine" / "actors").rglob("*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
        for text in (node.value.values if isinstance(node.value, ast.Dict) else [node.value])
        if isinstance(text, ast.Constant)
    ]


def tables() -> Iterator[tuple[str, list[str]]]:
    """Yields the first header's text and the cells of each row of the page's tables."""
    header = ""
    for line in PAGE.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not line.startswith("| "):
            header = ""
        elif not header:
            header = cells[0]
        elif cells[0] != "---":
            yield header, cells


def words(cell: str) -> frozenset[str]:
    return frozenset(cell.replace("`", "").replace("—", "").replace(",", " ").split())


def documented() -> list[LogLine]:
    return [
        LogLine(cells[0].strip("`"), words(cells[1]), cells[2].strip("`"), words(cells[3]))
        for header, cells in tables()
        if header == "event"
    ]


def logged() -> set[LogLine]:
    merged: dict[str, LogLine] = {}
    for line in (line for module in modules() for line in module.lines()):
        other = merged.setdefault(line.event, line)
        # `many` logs what a line each would
        merged[line.event] = other._replace(fields=other.fields | line.fields)
    return set(merged.values())


def test_each_use_of_a_logger_is_a_call_that_is_found() -> None:
    for module in modules():
        aliased = sum(len(methods) for methods in module.aliases.values())
        direct = sum(
            isinstance(call, ast.Call) and bool(list(module._methods(call.func)))
            for call in ast.walk(module.tree)
        )
        looked_up = ast.unparse(module.tree).count("getattr(_attempt_lines")
        assert module.uses() == aliased + direct + looked_up, module.name


def test_each_line_of_the_log_is_in_the_docs_and_no_other() -> None:
    rows = documented()
    assert len({line.event for line in rows}) == len(rows) > 60
    assert set(rows) == logged()


def test_each_field_is_described_and_no_other() -> None:
    described = frozenset().union(
        *(words(cells[0]) for header, cells in tables() if header == "field")
    )
    assert described == EACH_LINE.union(*(line.fields for line in logged()))
