"""What can be wrong with a template: its file, the line where it is known, and why, in one line."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct


class Problem(Struct, frozen=True, order=True):
    """What a check found: `str()` is the line."""

    name: str
    line: int | None
    why: str
    stray: bool = False  # it harms no mail: a template for an event type that is not there

    def __str__(self) -> str:
        return f"{self.name}{f':{self.line}' if self.line else ''}: {self.why}"


class TemplateFailed(Exception):
    """A mail's template failed."""

    def __init__(self, name: str, line: int | None, why: str) -> None:
        self.problem = Problem(name, line, why)
        super().__init__(str(self.problem))


class TemplatesError(Exception):
    """Templates that would fail: a line for each problem."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(each) for each in problems))
