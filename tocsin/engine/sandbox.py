"""Jinja for templates that are not ours alone: no way out of the sandbox, no endless loop, no endless mail.

Whatever a template does wrong is an exception, and costs the one mail that it was for.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from typing import Any, TypeVar

from jinja2 import StrictUndefined, Template, nodes
from jinja2.runtime import Context
from jinja2.sandbox import SandboxedEnvironment

MOST_SECONDS = 2.0  # of the processor's: a worker that is paused meanwhile costs no mail
MOST_TURNS = 1_000_000  # of all loops of one template together
MOST_CHARACTERS = 10_000_000
_MOST_REPEATED = 10_000
# Looked at together: each may be as long as a body.
_PIECES = 100

T = TypeVar("T")


class TemplateTooMuch(Exception):
    """A template ran too long, or wrote too much."""


class _Meter:
    """What one rendering has used."""

    def __init__(self) -> None:
        self.until = time.thread_time() + MOST_SECONDS
        self.turns = 0

    def turn(self) -> None:
        self.turns += 1
        if self.turns > MOST_TURNS:
            raise TemplateTooMuch(f"more than {MOST_TURNS} turns of loops")
        # asking for the time at each turn would cost more than most turns
        if self.turns % 256 == 0 and time.thread_time() > self.until:
            raise TemplateTooMuch(f"more than {MOST_SECONDS} s of work")


_meter: ContextVar[_Meter] = ContextVar("meter")


class Sandbox(SandboxedEnvironment):
    """Autoescape but for text, undefined names are errors, gettext in its new style, loops are metered."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self, **options: Any) -> None:
        super().__init__(
            autoescape=lambda name: name is None or not name.endswith(".txt"),
            undefined=StrictUndefined,
            extensions=["jinja2.ext.i18n"],
            trim_blocks=True,
            lstrip_blocks=True,
            **options,
        )
        # {% trans %} then asks the gettext of each mail's own context
        self.newstyle_gettext = True
        self.filters["metered"] = _metered

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(
                loop.iter, "metered", [], [], None, None, lineno=loop.lineno
            ).set_environment(self)
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Multiplies numbers; repeats texts and lists a little."""
        if operator == "**" and not (abs(left) < 2**32 and abs(right) < 64):
            raise TemplateTooMuch("a power too large")
        if operator == "*":
            for one, times in ((left, right), (right, left)):
                if hasattr(one, "__len__") and times > _MOST_REPEATED:
                    raise TemplateTooMuch("too many repetitions")
        return super().call_binop(context, operator, left, right)


def rendered(template: Template, context: Mapping[str, Any]) -> str:
    """What the template writes; raises TemplateTooMuch, and whatever else it does wrong."""
    pieces: list[str] = []
    size = 0
    with _metering():
        try:
            writing = template.root_render_func(_context(template, context))
            while some := list(islice(writing, _PIECES)):
                pieces += some
                size += sum(map(len, some))
                if size > MOST_CHARACTERS:
                    raise TemplateTooMuch(f"more than {MOST_CHARACTERS} characters")
        except Exception:  # noqa: BLE001 - raised again
            template.environment.handle_exception()  # with the template's lines in its traceback
    return "".join(pieces)


def said(template: Template, context: Mapping[str, Any]) -> dict[str, Any]:
    """What the template sets (`{% set subject = … %}`)."""
    own = _context(template, context)
    with _metering():
        try:
            deque(template.root_render_func(own), maxlen=0)
        except Exception:  # noqa: BLE001 - raised again
            template.environment.handle_exception()
    return {name: value for name, value in own.get_exported().items() if name[0] != "_"}


def _context(template: Template, context: Mapping[str, Any]) -> Context:
    """With Jinja's own names, put there by hand: `new_context` takes longer for it than many a template runs."""
    return template.new_context({**template.environment.globals, **context}, shared=True)


@contextmanager
def _metering() -> Iterator[None]:
    token = _meter.set(_Meter())
    try:
        yield
    finally:
        _meter.reset(token)


def _metered(items: Iterable[T]) -> Iterator[T]:
    meter = _meter.get(None) or _Meter()
    for item in items:
        meter.turn()
        yield item
