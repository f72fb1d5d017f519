"""A blank: what stands in for a value while a template is rendered for many mails at once (stencil.py).

It may be written out as it is, and asked whether it is there; whatever else a template does with it would come
out differently for each value, so it raises NotPlain, and the template is rendered for each mail by itself.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, NoReturn

from markupsafe import Markup

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
