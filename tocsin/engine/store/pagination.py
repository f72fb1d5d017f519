"""Places in a list that is ordered by (created_at, id): keyset cursors in both directions."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from tocsin.engine.model import Invalid

# PostgreSQL's snapshots as text, `xmin:xmax:xip,…`, when they come back from outside.

_SNAPSHOT = re.compile(r"\d{1,19}:\d{1,19}:(?:\d{1,19}(?:,\d{1,19})*)?")
_LONGEST = 8000


def is_snapshot(text: str) -> bool:
    """PostgreSQL's own rules for pg_snapshot: it refuses any other, and with it the whole statement."""
    if not _SNAPSHOT.fullmatch(text):
        return False
    xmin, xmax, *running = _numbers(text)
    return (
        0 < xmin <= xmax < 2**63
        and all(xmin <= xid < xmax for xid in running)
        and running == sorted(set(running))
    )


def next_xid(snapshot: str) -> int:
    """The first transaction id that had not begun."""
    return _numbers(snapshot)[1]


def to_opaque(text: str) -> str:
    """For clients, who give it back as it is."""
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def from_opaque(opaque: str) -> str:
    """What `to_opaque` was given; an empty text for what is not one of ours."""
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
    """A row that has a place in such a list."""

    @property
    def id(self) -> int:
        """Unique among rows of one time."""

    @property
    def created_at(self) -> datetime:
        """What the list is ordered by first."""


T = TypeVar("T")
Row = TypeVar("Row", bound=Listed)


class Cursor(Struct, frozen=True):
    """A place between two rows, and which way to read from it."""

    at: datetime
    id: int
    newer: bool = False

    def __str__(self) -> str:
        """The opaque text that clients carry."""
        micros = (self.at - _EPOCH) // _MICROSECOND
        plain = f"{'n' if self.newer else 'o'}{micros}.{self.id}"
        return base64.urlsafe_b64encode(plain.encode()).rstrip(b"=").decode()


class Page(Struct, Generic[T], frozen=True):
    """Some rows, newest first, and the cursors of the pages on either side."""

    results: list[T]
    next: Cursor | None = None  # older ones
    previous: Cursor | None = None  # newer ones


def parse_cursor(text: str) -> Cursor:
    """Reads a cursor's text; raises Invalid when it is not one of ours."""
    try:
        plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
    except (ValueError, binascii.Error):
        plain = ""
    if (match := _CURSOR.fullmatch(plain)) is None or int(match[3]) > _LAST_ID:
        raise Invalid(
            "cursor is not one of this list",
            (
                "cursor",
                "Use a page's next or previous link as it is, or leave cursor out for the first page.",
            ),
        )
    at = _EPOCH + timedelta(microseconds=int(match[2]))
    return Cursor(at, int(match[3]), newer=match[1] == "n")


def page(rows: Sequence[Row], cursor: Cursor | None, limit: int) -> Page[Row]:
    """Makes a page of up to `limit + 1` rows as they were read: by the cursor's direction, nearest first."""
    newer = cursor is not None and cursor.newer
    beyond = len(rows) > limit
    kept = list(rows[:limit])
    if newer:
        kept.reverse()
    if not kept:
        return Page(kept)
    # Coming from a place means that there are rows on its other side.
    older = _place(kept[-1]) if (beyond if not newer else True) else None
    back = _place(kept[0], newer=True) if (beyond if newer else cursor is not None) else None
    return Page(kept, older, back)


def _place(row: Listed, *, newer: bool = False) -> Cursor:
    return Cursor(row.created_at, row.id, newer)
