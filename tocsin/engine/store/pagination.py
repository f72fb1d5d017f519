"""Keyset cursors of lists that are ordered by (created_at, id), and positions in what was committed. Pure."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from tocsin.engine.model import Invalid

# Opaque texts for clients: a digit for the version of the format, and base64url of what that version states.

_VERSION = "1"
_LONGEST = 8000


def to_opaque(text: str) -> str:
    """Returns the text for clients, who return it as it is."""
    return _VERSION + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def from_opaque(opaque: str) -> str:
    """Returns the argument of `to_opaque`; an empty text for what is not one of ours, or of another version."""
    if len(opaque) > _LONGEST or not opaque.startswith(_VERSION):
        return ""
    coded = opaque[len(_VERSION) :]
    try:
        return base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)).decode("ascii")
    except ValueError:
        return ""


def unreadable(field: str, opaque: str, message: str, cure: str) -> Invalid:
    """Returns what to raise for a text that can't be read; of another version, it has a message and cure of its own."""
    if opaque[:1].isdecimal() and not opaque.startswith(_VERSION):
        message = f"{field} is of another version of Tocsin"
        cure = "Read the list again from its first page, and use what the new response has."
    return Invalid(message, (field, cure))


# PostgreSQL's snapshots: `xmin:xmax:xip,…`.

_SNAPSHOT = re.compile(r"\d{1,19}:\d{1,19}:(?:\d{1,19}(?:,\d{1,19})*)?")


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


def covers(snapshot: str, other: str) -> bool:
    """Returns whether a snapshot has all that another one of the same database has."""
    xmin, xmax, *running = _numbers(snapshot)
    _, end, *missing = _numbers(other)
    return end <= xmin or (end <= xmax and {xid for xid in running if xid < end} <= set(missing))


def next_xid(snapshot: str) -> int:
    """Returns the first transaction id that had not begun."""
    return _numbers(snapshot)[1]


def _numbers(snapshot: str) -> list[int]:
    return [int(part) for part in re.split("[:,]", snapshot) if part]


# Where a reader is in what was committed. An installation has one node today; the texts have room for the positions
# of several: `node|node`, each `[number=]snapshot[~upto~seen]`, without the number for the first. The numbers of a
# snapshot are written by their distance from xmin, which makes it short.

OWN_NODE = 0
_NODE = re.compile(r"(?:([1-9]\d{0,3})=)?([\d+,]+)(?:~([\d+,]*)~(\d{1,18}))?", re.ASCII)
_DISTANCES = re.compile(r"(\d{1,19})\+(\d{1,19})\+((?:\d{1,19}(?:,\d{1,19})*)?)", re.ASCII)


class Position(Struct, frozen=True):
    """What a reader has of one node: all that `snapshot` saw, and of what `upto` saw the notifications up to `seen`."""

    snapshot: str
    upto: str | None = None
    seen: int = 0

    def token(self) -> str:
        """Returns the id of a stream's event, with the present time."""
        return to_opaque(f"{int(time.time())}/{write_nodes({OWN_NODE: self})}")


def write_nodes(positions: Mapping[int, Position]) -> str:
    """Returns the text of the positions by node."""
    return "|".join(
        f"{node}={_write_node(each)}" if node else _write_node(each)
        for node, each in positions.items()
    )


def _write_node(position: Position) -> str:
    text = _to_distances(position.snapshot)
    if position.upto is None and not position.seen:
        return text
    return f"{text}~{_to_distances(position.upto or '')}~{position.seen}"


def read_nodes(text: str) -> dict[int, Position]:
    """Returns the argument of `write_nodes`; nothing for what is not its result."""
    found = {}
    for part in text.split("|"):
        if (match := _NODE.fullmatch(part)) is None:
            return {}
        number, snapshot, upto, seen = match.groups()
        position = Position(
            _from_distances(snapshot), _from_distances(upto) if upto else None, int(seen or 0)
        )
        if not is_snapshot(position.snapshot) or not is_snapshot(position.upto or "1:1:"):
            return {}
        found[int(number or OWN_NODE)] = position
    return found


@lru_cache(maxsize=64)
def _to_distances(snapshot: str) -> str:
    """Returns `100:102:101` as `100+2+1`; the streams of a process mostly have the same snapshot."""
    if not snapshot:
        return ""
    xmin, xmax, running = snapshot.split(":")
    start = int(xmin)
    distances = ",".join([str(int(xid) - start) for xid in running.split(",")]) if running else ""
    return f"{xmin}+{int(xmax) - start}+{distances}"


def _from_distances(text: str) -> str:
    """Returns the snapshot of `_to_distances`; for any other text one that `is_snapshot` refuses."""
    if (match := _DISTANCES.fullmatch(text)) is None:
        return ""
    xmin, length, distances = match.groups()
    start = int(xmin)
    running = (
        ",".join([str(int(each) + start) for each in distances.split(",")]) if distances else ""
    )
    return f"{start}:{start + int(length)}:{running}"


def write_as_of(snapshot: str) -> str:
    """Returns the `as_of` of a list that was read from this snapshot."""
    return to_opaque(write_nodes({OWN_NODE: Position(snapshot)}))


def read_as_of(as_of: str) -> str:
    """Returns the snapshot in an `as_of`; raises Invalid."""
    found = read_nodes(from_opaque(as_of)).get(OWN_NODE)
    if found is None:
        raise unreadable(
            "as_of",
            as_of,
            "as_of is not one of a list's",
            "Pass the as_of of a list as it is, or leave it out.",
        )
    return found.snapshot


# The position in an inbox from which a stream resumes: the id of its events.

# Changes of an inbox are kept for an hour (forget_inbox_changes): after a longer pause a reader reads all again.
_GOOD_FOR = 3300.0  # seconds


def read_position(token: str) -> Position | None:
    """Returns the position of an event id; None for one that is not ours, or too old."""
    at, _, nodes = from_opaque(token).partition("/")
    if not (at.isdecimal() and len(at) < 19) or time.time() - int(at) > _GOOD_FOR:
        return None
    return read_nodes(nodes).get(OWN_NODE)


def read_seen(text: str) -> str | None:
    """Returns the snapshot of an `as_of`, of an event id or of a cursor of groups; None for any other text."""
    found = read_nodes(from_opaque(text).rpartition("/")[2]).get(OWN_NODE)
    return None if found is None else found.upto or found.snapshot


def is_ahead(position: Position, current: str) -> bool:
    """Returns whether it is of another cluster: it names transactions that have not begun in this one."""
    return next_xid(position.snapshot) > next_xid(current)


# A place in a list.

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
        return to_opaque(self.plain)

    @property
    def plain(self) -> str:
        """Returns the text that is in the opaque one."""
        micros = (self.at - _EPOCH) // _MICROSECOND
        return f"{'n' if self.newer else 'o'}{micros}.{self.id}"


class Page(Struct, Generic[T], frozen=True):
    """Some rows, newest first, and the cursors of the pages on either side."""

    results: list[T]
    next: Cursor | None = None  # older ones
    previous: Cursor | None = None  # newer ones


def parse_cursor(text: str) -> Cursor:
    """Reads a cursor's text; raises Invalid when it is not one of ours."""
    found = cursor_of(from_opaque(text))
    if found is None:
        raise unreadable("cursor", text, *NO_CURSOR)
    return found


NO_CURSOR = (
    "cursor is not one of this list",
    "Use a page's next or previous link as it is, or leave cursor out for the first page.",
)


def cursor_of(plain: str) -> Cursor | None:
    """Returns the cursor of its plain text; None for any other text."""
    if (match := _CURSOR.fullmatch(plain)) is None or int(match[3]) > _LAST_ID:
        return None
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
