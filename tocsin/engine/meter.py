"""How much one template may do: steps of loops and calls, characters, the size of values, processor time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

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
