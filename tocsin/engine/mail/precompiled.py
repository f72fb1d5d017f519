"""What mails have in common, rendered once: templates cut into pieces, with blanks for each mail's own values.

Rendering is the dearest part of a mail, and most of what it writes is the same for everybody. So a template is
rendered with blanks in place of the values, which may be written out and nothing else (blank.py). Where that
works, a mail is the pieces and its escaped values. It is proved for each stencil before it is used: filled with
values that no escaping leaves alone, it has to be what the template itself writes of them.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn

from markupsafe import Markup, escape
from msgspec import Struct

# A blank: what stands in for a value while a template is rendered for many mails at once (stencil.py).
#
# It may be written out as it is, and asked whether it is there; whatever else a template does with it would come
# out differently for each value, so it raises NotPlain, and the template is rendered for each mail by itself.

CUTTING: ContextVar[str] = ContextVar("cutting", default="")
"""What the marks of the stencil begin with that is being cut in this context; empty while there is none."""


class NotPlain(Exception):
    """A template does more with a value than to write it out."""


class Blank:
    """In place of one value. `text` is the mark that is written for it, or None where it may not be written.

    `kept`: it is what a template wrote before, with marks in it.
    """

    __slots__ = ("kept", "text")

    def __init__(self, text: str | None, *, kept: bool = False) -> None:
        self.text = text
        self.kept = kept

    def __bool__(self) -> bool:
        return True  # nothing stands in for what is empty

    def _refuse(self, *_: Any) -> NoReturn:
        raise NotPlain

    # What every object has, or is asked for; whatever else a template may try is a TypeError anyway.
    __str__ = __repr__ = __format__ = __hash__ = _refuse
    __eq__ = __ne__ = _refuse
    __getattr__ = _refuse


def mark(value: Blank, *, escaped: bool) -> str:
    """What is written for it, by a template that escapes or doesn't."""
    if value.text is None:
        raise NotPlain
    if value.kept:  # it was escaped then or not at all
        if isinstance(value.text, Markup) != escaped:
            raise NotPlain
        return value.text
    return f"{value.text}{'e' if escaped else 'w'}\ue001"


def captured(value: Any) -> Any:
    """What a template keeps of its own output: opaque too, where there are marks in it."""
    started = CUTTING.get()
    return (
        Blank(value, kept=True)
        if started and isinstance(value, str) and started in value
        else value
    )


def refuse_blanks(*values: object) -> None:
    """For what looks at values: filters, tests, calls."""
    for value in values:
        if type(value) is Blank:
            raise NotPlain


def refuse_chance(name: str) -> None:
    """A filter that answers differently each time."""
    if name == "random" and CUTTING.get():
        raise NotPlain


_KEPT = 128  # stencils of one service's templates
_AFTER = 3  # mails of a kind
_LARGEST = 50_000  # characters: what is large is seldom sent to many

Key = str | tuple[int, int]  # of a context, or of a line in its paragraphs
Context = Mapping[str, Any]


class Pieces(Struct, frozen=True):
    """Text with blanks: piece, value, piece, value, …, piece."""

    pieces: tuple[str, ...]
    blanks: tuple[tuple[Key, bool], ...]  # whose value, and whether it is escaped there

    def values(self, context: Context) -> list[str]:
        """What the blanks are of one mail."""
        paragraphs = context["paragraphs"]
        found: list[str] = []
        for key, escaped in self.blanks:
            value = context[key] if type(key) is str else paragraphs[key[0]][key[1]]
            found.append(str(escape(value)) if escaped else str(value))
        return found

    def filled(self, values: Sequence[str]) -> str:
        """The whole text."""
        woven = [""] * (2 * len(values) + 1)
        woven[::2] = self.pieces
        woven[1::2] = values
        return "".join(woven)


class Stencil(Struct, frozen=True):
    """Of one kind of mail."""

    said: dict[str, Any]  # by its words.txt
    text: Pieces
    html: Pieces


class Stencils:
    """Those that were cut, the latest kept. To cut one takes as long as two mails, so it waits for the third."""

    def __init__(self) -> None:
        # how many mails came before there was one; None: its templates do more than to write values
        self._cut: OrderedDict[Hashable, Stencil | int | None] = OrderedDict()

    def get(self, key: Hashable, cut: Callable[[], Stencil]) -> Stencil | None:
        """That of a kind of mail; None where there is none, or not yet."""
        found = self._cut.get(key, 0)
        if isinstance(found, int):
            found = found + 1 if found + 1 < _AFTER else _cut(cut)
            self._cut[key] = found
            if len(self._cut) > _KEPT:
                self._cut.popitem(last=False)
        self._cut.move_to_end(key)
        return found if isinstance(found, Stencil) else None

    def refused(self, key: Hashable) -> bool:
        """Whether the templates of this kind do more with some value than to write it."""
        return self._cut.get(key, 0) is None

    def clear(self) -> None:
        """Templates changed."""
        self._cut.clear()


def _cut(cut: Callable[[], Stencil]) -> Stencil | None:
    try:
        return cut()
    except Exception:  # noqa: BLE001 - the template itself says what is wrong with it
        return None


class Cutter:
    """Makes the blanks of one stencil, and pieces of what was rendered with them."""

    def __init__(self) -> None:
        self.start = f"\ue000{secrets.token_hex(8)}:"
        self._keys: list[Key] = []
        self._mark = re.compile(f"{self.start}(\\d+)([ew])\ue001")

    def blanked(
        self, context: Context, keys: Sequence[str], closed: Sequence[str]
    ) -> dict[str, Any]:
        """The context with blanks for what is there of `keys`; what is `closed` may not be looked at."""
        blanked = dict(context)
        for key in keys:
            if context[key]:
                blanked[key] = self.blank(key)
        for key in closed:
            if context[key]:
                blanked[key] = Blank(None)
        return blanked

    def blanked_lines(self, paragraphs: Sequence[Sequence[str]]) -> list[list[Blank]]:
        """The same of the lines of a text."""
        return [
            [self.blank((i, j)) for j in range(len(lines))] for i, lines in enumerate(paragraphs)
        ]

    @contextmanager
    def cutting(self) -> Iterator[None]:
        """While templates are rendered with the blanks."""
        token = CUTTING.set(self.start)
        try:
            yield
        finally:
            CUTTING.reset(token)

    def pieces(self, written: str) -> Pieces:
        """Of what was rendered with the blanks; raises NotPlain."""
        if len(written) > _LARGEST:
            raise NotPlain
        pieces = self._mark.split(written)
        if any(self.start in piece for piece in pieces[::3]):
            raise NotPlain
        blanks = zip(pieces[1::3], pieces[2::3], strict=True)
        return Pieces(
            tuple(pieces[::3]),
            tuple((self._keys[int(number)], how == "e") for number, how in blanks),
        )

    def blank(self, key: Key) -> Blank:
        """In place of this value."""
        self._keys.append(key)
        return Blank(f"{self.start}{len(self._keys) - 1}")


def probe(context: Context, keys: Sequence[str], *, lines: bool) -> dict[str, Any]:
    """The context with values that come out right only where each is escaped once, or never, as the template does."""
    probed = dict(context)
    for number, key in enumerate(keys):
        if context[key]:
            value = _probe(number)
            probed[key] = Markup(value) if isinstance(context[key], Markup) else value  # noqa: S704
    if lines:
        probed["paragraphs"] = [
            [_probe(100 * i + j) for j in range(len(lines))]
            for i, lines in enumerate(context["paragraphs"], 1)
        ]
    return probed


def _probe(number: int) -> str:
    return f" Pr{number}öbe & <{number}> \"'&amp; "
