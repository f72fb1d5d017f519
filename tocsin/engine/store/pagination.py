"""Positions: keyset cursors of lists that are ordered by (created_at, id), and positions of streams. Pure."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from tocsin.engine.model import Invalid

# Opaque texts for clients, and PostgreSQL's snapshots in them: `xmin:xmax:xip,…`.

_SNAPSHOT = re.compile(r"\d{1,19}:\d{1,19}:(?:\d{1,19}(?:,\d{1,19})*)?")
_LONGEST = 8000


def is_snapshot(text: str) -> bool:
    """Returns whether PostgreSQL reads it as a pg_snapshot; it would refuse the statement with any other."""
    if not _SNAPSHOT.fullmatch(text):
        return False
    xmin, xmax, *running = _numbers(text)
    return (
        0 < xmin <= xmax < 2**63
        and all(xmin <= xid < xmax for xid in running)
        and running == sorted(set(running))
    )


def next_xid(snapshot: str) -> int:
    """Returns the first transaction id that had not begun."""
    return _numbers(snapshot)[1]


def to_opaque(text: str) -> str:
    """Returns the text for clients, who return it as it is."""
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def from_opaque(opaque: str) -> str:
    """Returns the argument of `to_opaque`; an empty text for what is not one of ours."""
    if len(opaque) > _LONGEST:
        return ""
    try:
        return base64.urlsafe_b64decode(opaque + "=" * (-len(opaque) % 4)).decode("ascii")
    except ValueError:
        return ""


def _numbers(snapshot: str) -> list[int]:
    return [int(part) for part in re.split("[:,]", snapshot) if part]


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CURSOR = re.compile(r"([on])(\d{1,17})\.(\d{1,19})")  # the year 5138 and a bigint
_LAST_ID = 2**63 - 1


class Listed(Protocol):
    """A row that has a position in such a list."""

    @property
    def id(self) -> int:
        """Unique among rows of one time."""

    @property
    def created_at(self) -> datetime:
        """What the list is ordered by first."""


T = TypeVar("T")
RowT = TypeVar("RowT", bound=Listed)


class Cursor(Struct, frozen=True):
    """A position between two rows, and the direction in which to read from it."""

    at: datetime
    id: int
    newer: bool = False

    def __str__(self) -> str:
        """Returns the opaque text for clients."""
        micros = (self.at - _EPOCH) // _MICROSECOND
        plain = f"{'n' if self.newer else 'o'}{micros}.{self.id}"
        return to_opaque(plain)


class Page(Struct, Generic[T], frozen=True):
    """Some rows, newest first, and the cursors of the pages on either side."""

    results: list[T]
    next: Cursor | None = None  # older ones
    previous: Cursor | None = None  # newer ones


def parse_cursor(text: str) -> Cursor:
    """Reads a cursor's text; raises Invalid when it is not one of ours."""
    if (match := _CURSOR.fullmatch(from_opaque(text))) is None or int(match[3]) > _LAST_ID:
        raise Invalid(
            "cursor is not one of this list",
            (
                "cursor",
                "Use a page's next or previous link as it is, or leave cursor out for the first page.",
            ),
        )
    at = _EPOCH + timedelta(microseconds=int(match[2]))
    return Cursor(at, int(match[3]), newer=match[1] == "n")


def page(rows: Sequence[RowT], cursor: Cursor | None, limit: int) -> Page[RowT]:
    """Makes a page of up to `limit + 1` rows as they were read: by the cursor's direction, nearest first."""
    newer = cursor is not None and cursor.newer
    beyond = len(rows) > limit
    kept = list(rows[:limit])
    if newer:
        kept.reverse()
    if not kept:
        return Page(kept)
    # a cursor means that there are rows on its other side
    older = _cursor_at(kept[-1]) if (beyond if not newer else True) else None
    back = _cursor_at(kept[0], newer=True) if (beyond if newer else cursor is not None) else None
    return Page(kept, older, back)


def _cursor_at(row: Listed, *, newer: bool = False) -> Cursor:
    return Cursor(row.created_at, row.id, newer)


# The position in an inbox from which a stream resumes: the id of its events.

# Changes of an inbox are kept for an hour (forget_inbox_changes): after a longer pause a reader reads all again.
_GOOD_FOR = 3300.0  # seconds


class Position(Struct, frozen=True):
    """What a reader has: all that `snapshot` saw, and of what `upto` saw the notifications up to `seen`."""

    snapshot: str
    upto: str | None = None
    seen: int = 0

    def token(self) -> str:
        """Returns the id of a stream's event, with the present time."""
        parts = (self.snapshot, self.upto or "", str(self.seen), str(int(time.time())))
        return to_opaque("~".join(parts))


def read_position(token: str) -> Position | None:
    """Returns the position of an event id; None for one that is not ours, or too old."""
    parts = from_opaque(token).split("~")
    if len(parts) != 4:
        return None
    snapshot, upto, *numbers = parts
    if not (is_snapshot(snapshot) and (not upto or is_snapshot(upto))):
        return None
    if not all(number.isdigit() and len(number) < 19 for number in numbers):
        return None
    seen, at = map(int, numbers)
    return None if time.time() - at > _GOOD_FOR else Position(snapshot, upto or None, seen)


def is_ahead(position: Position, current: str) -> bool:
    """Returns whether it is of another cluster: it names transactions that have not begun in this one."""
    return next_xid(position.snapshot) > next_xid(current)
