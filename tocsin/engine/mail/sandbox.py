"""Jinja's sandbox for the templates of mails, and the placeholders with which a template is precompiled.

A placeholder replaces a value while a template is rendered once for many mails (precompiled.py). A template may
write it out, and test whether it is there. Anything else depends on the value and raises NotPrecompilable; such a
template is rendered for each mail.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, NoReturn

from jinja2 import StrictUndefined, Template, nodes, pass_eval_context
from jinja2.nodes import EvalContext
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer
from markupsafe import Markup

_CAPTURED = " captured"  # a filter's name that no template can write
_OF_ANY_VALUE = frozenset({"defined", "undefined", "none"})  # tests that may see a placeholder

_PRECOMPILING: ContextVar[str] = ContextVar("precompiling", default="")
"""The beginning of the marks of the template that is precompiled in this context; empty while none is."""


class NotPrecompilable(Exception):
    """A template does more with a value than to write it."""


class Placeholder:
    """In place of one value. `text` is the mark that is written for it, or None if it may not be written.

    `captured`: the text is output of the template itself, with marks in it.
    """

    __slots__ = ("captured", "text")

    def __init__(self, text: str | None, *, captured: bool = False) -> None:
        self.text = text
        self.captured = captured

    def __bool__(self) -> bool:
        return True  # empty values get no placeholder

    def _refuse(self, *_: Any) -> NoReturn:
        raise NotPrecompilable

    # What every object has; any other operation is a TypeError.
    __str__ = __repr__ = __format__ = __hash__ = _refuse
    __eq__ = __ne__ = _refuse
    __getattr__ = _refuse

    def written(self, *, escaped: bool) -> str:
        """Returns the mark, by a template that escapes or does not."""
        if self.text is None:
            raise NotPrecompilable
        if self.captured:  # it was escaped, or not, as it was captured
            if isinstance(self.text, Markup) != escaped:
                raise NotPrecompilable
            return self.text
        return f"{self.text}{'e' if escaped else 'w'}\ue001"


class Sandbox(ImmutableSandboxedEnvironment):
    """Autoescape except in text, undefined names are errors, gettext in its new style."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            autoescape=lambda name: name is None or not name.endswith(".txt"),
            undefined=StrictUndefined,
            extensions=["jinja2.ext.i18n"],
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_finalize,
            **options,
        )
        # {% trans %} then uses the gettext of each mail's own context
        self.newstyle_gettext = True
        self.filters = {name: _refusing(name, each) for name, each in self.filters.items()}
        self.filters[_CAPTURED] = _captured
        tests: dict[str, Any] = dict(self.tests)
        self.tests = {
            name: each if name in _OF_ANY_VALUE else _refusing(name, each)
            for name, each in tests.items()
        }

    def _generate(self, source: nodes.Template, *more: Any, **options: Any) -> str:
        _CaptureBlocks().visit(source)
        source.set_environment(self)
        return super()._generate(source, *more, **options)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Calls what a template calls: macros, `super()`, gettext."""
        _refuse_placeholders(obj, *args, *kwargs.values())
        return _captured(super().call(context, obj, *args, **kwargs))


def render_template(template: Template, context: Mapping[str, Any]) -> str:
    """Returns what the template writes; raises what it raises."""
    try:
        return "".join(template.root_render_func(_context(template, context)))
    except Exception:  # noqa: BLE001 - raised again
        template.environment.handle_exception()  # with the template's lines in its traceback


def exported_variables(template: Template, context: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the template sets (`{% set subject = … %}`); raises what it raises."""
    own = _context(template, context)
    try:
        deque(template.root_render_func(own), maxlen=0)
    except Exception:  # noqa: BLE001 - raised again
        template.environment.handle_exception()
    return {name: value for name, value in own.get_exported().items() if name[0] != "_"}


@contextmanager
def precompiling(start: str) -> Iterator[None]:
    """Marks that templates are rendered with placeholders, whose marks begin with `mark`."""
    token = _PRECOMPILING.set(start)
    try:
        yield
    finally:
        _PRECOMPILING.reset(token)


def _context(template: Template, context: Mapping[str, Any]) -> Context:
    """Returns a context with Jinja's own names, made by hand: `new_context` takes longer than many a template runs."""
    return template.new_context({**template.environment.globals, **context}, shared=True)


@pass_eval_context
def _finalize(place: EvalContext, value: Any) -> Any:
    """Called by Jinja with each value that is to be written."""
    if type(value) is Placeholder:
        return value.written(escaped=bool(place.autoescape))
    return value


def _captured(value: Any) -> Any:
    """Returns the output that a template captured; a placeholder if there are marks in it."""
    start = _PRECOMPILING.get()
    if start and isinstance(value, str) and start in value:
        return Placeholder(value, captured=True)
    return value


def _refuse_placeholders(*values: object) -> None:
    for value in values:
        if type(value) is Placeholder:
            raise NotPrecompilable


def _refusing(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a filter or test that refuses placeholders."""

    @wraps(function)
    def refusing(*args: Any, **kwargs: Any) -> Any:
        _refuse_placeholders(*args, *kwargs.values())
        if name == "random" and _PRECOMPILING.get():
            raise NotPrecompilable
        return function(*args, **kwargs)

    return refusing


class _CaptureBlocks(NodeTransformer):
    """Makes placeholders of what `{% set %}…{% endset %}` and `{% filter %}` capture."""

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:  # noqa: N802 - Jinja's name
        self.generic_visit(node)
        node.filter = _captured_first(node.filter, node.lineno)
        return node

    def visit_FilterBlock(self, node: nodes.FilterBlock) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.filter = _captured_first(node.filter, node.lineno)
        return node


def _captured_first(chain: nodes.Filter | None, lineno: int) -> nodes.Filter:
    """Returns a block's filters, with `_captured` before them."""
    first = nodes.Filter(None, _CAPTURED, [], [], None, None, lineno=lineno)
    if chain is None:
        return first
    innermost = chain
    while isinstance(innermost.node, nodes.Filter):
        innermost = innermost.node
    innermost.node = first
    return chain
