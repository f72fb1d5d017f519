"""Jinja for templates that are not ours alone: no way out of the sandbox, no endless loop, no endless mail.

Whatever a template does wrong is an exception, and costs the one mail that it was for. The metering is put in as a
template is compiled. It guards against accidents: templates are as trusted as the settings.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar, cast

from jinja2 import StrictUndefined, Template, nodes, pass_context
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from tocsin.engine.mail.precompiled import Blank, captured, mark, refuse_blanks, refuse_chance

# How much one template may do: steps of loops and calls, characters, the size of values, processor time.

MOST_SECONDS = 2.0  # of the processor's: a worker that is paused meanwhile costs no mail
MOST_STEPS = 1_000_000  # of all loops of one template together
MOST_CHARACTERS = 10_000_000
SIZE = 2_000_000  # characters of one text
ITEMS = 200_000  # of one list, with those of the lists in it

_CALL = 16  # steps; what a call or a filter does is not counted one by one,
_PER_STEP = 64  # but by the size of what it is given
_LOOK = 256  # steps: asking for the time at each would cost more than most
_CONTAINERS = (list, tuple, set, frozenset, Mapping)

T = TypeVar("T")


class TemplateTooMuch(Exception):
    """A template ran too long, or wrote too much."""


class _Meter:
    """What is left for one rendering."""

    __slots__ = ("_characters", "_look_at", "_steps", "_until")

    def __init__(self) -> None:
        self._steps = MOST_STEPS
        self._look_at = MOST_STEPS - _LOOK
        self._characters = MOST_CHARACTERS
        self._until = 0.0

    def step(self, steps: int = 1) -> None:
        self._steps -= steps
        if self._steps < self._look_at:
            self._look_at_the_clock()

    def write(self, characters: int) -> None:
        self._characters -= characters
        if self._characters < 0:
            raise TemplateTooMuch(f"it writes more than {MOST_CHARACTERS:,} characters")

    def _look_at_the_clock(self) -> None:
        self._look_at = self._steps - _LOOK
        now = time.thread_time()
        self._until = self._until or now + MOST_SECONDS
        if now > self._until or self._steps < 0:
            raise TemplateTooMuch("it takes too long: is there a loop in a loop?")


_METER: ContextVar[_Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metering() -> Iterator[None]:
    """One rendering with a meter of its own."""
    token = _METER.set(_Meter())
    try:
        yield
    finally:
        _METER.reset(token)


def counted(items: Iterable[T]) -> Iterator[T]:
    """A step for each."""
    meter = _METER.get() or _Meter()
    for item in items:
        meter.step()
        yield item


def spend(size: int = 0) -> None:
    """A call that looks at so many characters or items."""
    if meter := _METER.get():
        meter.step(_CALL + size // _PER_STEP)


def written(characters: int) -> None:
    """So many are written, wherever to."""
    if meter := _METER.get():
        meter.write(characters)


def sized(value: T) -> T:
    """A value that is no larger than it may be."""
    if isinstance(value, str):
        check(len(value), SIZE)
    elif isinstance(value, _CONTAINERS):
        found = weight(value)
        check(found, ITEMS)
        spend(found)
    return value


def weight(value: object) -> int:
    """Its characters or items; those of a list in two places twice, as they are for whoever writes them out."""
    if isinstance(value, str):
        return len(value)
    if not isinstance(value, _CONTAINERS):
        return 1
    found, waiting = 0, [value]
    while waiting and found <= ITEMS:
        each: Any = waiting.pop()
        found += len(each)
        inner = each.values() if isinstance(each, Mapping) else each
        waiting += [one for one in inner if isinstance(one, _CONTAINERS)]
    return found


def check(size: int, most: int) -> None:
    """Refuses what would be too large before it is made."""
    if size > most:
        raise TemplateTooMuch(f"a value is larger than {most:,}")


__all__ = ["Sandbox", "TemplateTooMuch", "rendered", "said"]

_BITS = 4096  # of one number
_WIDTH = 10_000  # of padding
_INCLUDED = 20_000  # characters, for which each include counts
_WRAPPED = 10**9  # the square of a text, by the width of its lines

# Names that no template can write.
_EACH, _TEXT, _SIZED, _KEPT = " each", " text", " sized", " kept"
_PADDING = frozenset({"batch", "center", "indent", "slice"})
_OF_ANYTHING = frozenset({"defined", "undefined", "none"})
_STR = frozenset(
    {"capitalize", "casefold", "count", "endswith", "find", "format", "format_map", "index"}
    | {"isalnum", "isalpha", "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle"}
    | {"isupper", "join", "lower", "lstrip", "partition", "removeprefix", "removesuffix"}
    | {"replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines"}
    | {"startswith", "strip", "swapcase", "title", "upper", "escape", "striptags", "unescape"}
)
# A width of five digits, or one that comes from the arguments.
_WIDE_PERCENT = re.compile(r"%(?:\([^)]*\))?[^a-zA-Z%(]*?(?:\d{5,}|\*)")
_WIDE_BRACES = re.compile(r"\{[^{}]*:[^{}]*?(?:\d{5,}|\{)")


class Sandbox(ImmutableSandboxedEnvironment):
    """Autoescape but for text, undefined names are errors, gettext in its new style, all is metered."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(
            autoescape=lambda name: name is None or not name.endswith(".txt"),
            undefined=StrictUndefined,
            extensions=["jinja2.ext.i18n"],
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # else constants are computed as it is compiled, when nobody counts
            finalize=_finalized,
            **options,
        )
        # {% trans %} then asks the gettext of each mail's own context
        self.newstyle_gettext = True
        del self.globals["lipsum"]
        self.filters = {name: _guarded(name, each) for name, each in self.filters.items()}
        self.filters |= {_EACH: _each, _TEXT: _text, _SIZED: _sized, _KEPT: captured}
        tests: dict[str, Any] = dict(self.tests)
        self.tests = {name: _plain(name, each) for name, each in tests.items()}

    def _generate(self, source: nodes.Template, *more: Any, **options: Any) -> str:
        _Metering().visit(source)
        source.set_environment(self)
        return super()._generate(source, *more, **options)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Of texts, the methods whose result has a known size."""
        if isinstance(obj, str) and attr not in _STR:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`"…".format`, without enormous widths."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None and _WIDE_BRACES.search(value.__self__):
            raise TemplateTooMuch("a text is padded too widely")
        return wrapped

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """A call is some steps, and its result has a size."""
        spend()
        refuse_blanks(obj, *args, *kwargs.values())
        if isinstance(obj, LoopContext):  # of a recursive loop
            args = tuple(counted(each) for each in args)
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(owner, str):
            args = _bounded(name, owner, args)
        return captured(sized(super().call(context, obj, *args, **kwargs)))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Refuses what would be too large."""
        refuse_blanks(left, right)
        if operator == "%" and isinstance(left, str) and _WIDE_PERCENT.search(left):
            raise TemplateTooMuch("a text is padded too widely")
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            check(left.bit_length() * abs(right), _BITS)
        if operator == "*":
            _check_product(left, right)
        return sized(super().call_binop(context, operator, left, right))


def rendered(template: Template, context: Mapping[str, Any]) -> str:
    """What the template writes; raises TemplateTooMuch, and whatever else it does wrong."""
    with metering():
        try:
            return "".join(template.root_render_func(_context(template, context)))
        except Exception:  # noqa: BLE001 - raised again
            template.environment.handle_exception()  # with the template's lines in its traceback


def said(template: Template, context: Mapping[str, Any]) -> dict[str, Any]:
    """What the template sets (`{% set subject = … %}`)."""
    own = _context(template, context)
    with metering():
        try:
            deque(template.root_render_func(own), maxlen=0)
        except Exception:  # noqa: BLE001 - raised again
            template.environment.handle_exception()
    return {name: value for name, value in own.get_exported().items() if name[0] != "_"}


def _context(template: Template, context: Mapping[str, Any]) -> Context:
    """With Jinja's own names, put there by hand: `new_context` takes longer for it than many a template runs."""
    return template.new_context({**template.environment.globals, **context}, shared=True)


class _Metering(NodeTransformer):
    """Puts the meter into a template."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - Jinja's name
        self.generic_visit(node)
        texts = (len(each.data) for each in node.find_all(nodes.TemplateData))
        if size := sum(texts):
            told = _filter(nodes.Const(size, lineno=node.lineno), _TEXT)
            node.body.insert(0, nodes.ExprStmt(told, lineno=node.lineno))
        node.iter = _filter(node.iter, _EACH)
        return node

    def visit_Include(self, node: nodes.Include) -> list[nodes.Node]:  # noqa: N802
        self.generic_visit(node)
        told = _filter(nodes.Const(_INCLUDED, lineno=node.lineno), _TEXT)
        return [nodes.ExprStmt(told, lineno=node.lineno), node]

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.filter = _kept_first(node.filter, node.lineno)
        return node

    def visit_FilterBlock(self, node: nodes.FilterBlock) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.filter = _kept_first(node.filter, node.lineno)
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(node, _SIZED)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(node, _SIZED)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return node if node.ctx == "store" else _filter(node, _SIZED)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(node, _SIZED)


def _filter(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(cast("nodes.Expr", node), name, [], [], None, None, lineno=node.lineno)


def _kept_first(chain: nodes.Filter | None, lineno: int) -> nodes.Filter:
    """A block's filters, with what the block wrote kept as a template's own output before them."""
    kept = nodes.Filter(None, _KEPT, [], [], None, None, lineno=lineno)
    if chain is None:
        return kept
    innermost = chain
    while isinstance(innermost.node, nodes.Filter):
        innermost = innermost.node
    innermost.node = kept
    return chain


@pass_context
def _each(_context: Context, items: Iterable[Any]) -> Iterator[Any]:
    return counted(items)


@pass_context
def _text(_context: Context, size: int) -> None:
    written(size)


@pass_context
def _sized(_context: Context, value: Any) -> Any:
    return sized(value)


@pass_context
def _finalized(context: Context, value: Any) -> str:
    if type(value) is Blank:
        return mark(value, escaped=bool(context.eval_ctx.autoescape))
    text = value if isinstance(value, str) else str(value)
    written(len(text))
    return text


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that takes steps, gets no enormous width, and whose result has a size."""
    skipped = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        value, *others = args[skipped:]
        refuse_blanks(value, *others, *kwargs.values())
        refuse_chance(name)
        spend(weight(value))
        if name in _PADDING:
            for each in (*others, *kwargs.values()):
                check(each if isinstance(each, int) else 0, _WIDTH)
        elif name == "format" and _WIDE_PERCENT.search(str(value)):
            raise TemplateTooMuch("a text is padded too widely")
        elif name == "wordwrap":  # a long word costs its square
            width = kwargs.get("width", others[0] if others else 79)
            check(len(str(value)) ** 2 // max(1, int(width)), _WRAPPED)
        elif name == "replace":
            others, kwargs = list(_bounded(name, str(value), (*others, *kwargs.values()))), {}
        elif name == "join":
            value = list(value)
            separator = others[0] if others else kwargs.get("d", "")
            check(len(value) * len(str(separator)), SIZE)
        return sized(function(*args[:skipped], value, *others, **kwargs))

    return guarded


def _plain(name: str, test: Callable[..., Any]) -> Callable[..., Any]:
    """A test that doesn't take a blank for what it stands for."""
    if name in _OF_ANYTHING:
        return test

    @wraps(test)
    def plain(*args: Any, **kwargs: Any) -> Any:
        refuse_blanks(*args, *kwargs.values())
        return test(*args, **kwargs)

    return plain


def _bounded(name: str, text: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of a text's method, if what it makes stays small."""
    if name == "replace" and len(args) > 1:
        check(text.count(str(args[0])) * len(str(args[1])), SIZE)
    elif name == "join" and args:
        args = (list(args[0]), *args[1:])
        check(len(args[0]) * len(text), SIZE)
    return args


def _check_product(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        check(left.bit_length() + right.bit_length(), _BITS)
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, str | list | tuple) and isinstance(times, int):
            check(len(sequence) * times, SIZE)
