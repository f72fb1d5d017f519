"""The id of a stream's event: the position in the inbox from which a stream resumes. Pure."""

from __future__ import annotations

import time

from msgspec import Struct

from tocsin.engine.store.pagination import from_opaque, is_snapshot, next_xid, to_opaque

# Changes of an inbox are kept for an hour (forget_inbox_changes): after a longer pause a reader reads all again.
_GOOD_FOR = 3300.0  # seconds


class Position(Struct, frozen=True):
    """What a reader has: all that `snapshot` saw, and of what `upto` saw the notifications up to `seen`."""

    snapshot: str
    upto: str | None = None
    seen: int = 0

    def token(self) -> str:
        """As an event id, with the time of day."""
        parts = (self.snapshot, self.upto or "", str(self.seen), str(int(time.time())))
        return to_opaque("~".join(parts))


def read_position(token: str) -> Position | None:
    """The position behind an event id; None for one that is not ours, or too old."""
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
    """True for a position of another cluster: it names transactions that this one has yet to begin."""
    return next_xid(position.snapshot) > next_xid(current)
