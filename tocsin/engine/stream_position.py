"""The opaque id of a stream event: where a reader stands, so that a reconnect gets each notification once."""

from __future__ import annotations

import base64
import re

from msgspec import Struct

_SNAPSHOT = re.compile(r"(\d{1,19}):(\d{1,19}):((?:\d{1,19}(?:,\d{1,19})*)?)")
_LONGEST = 8000


class Position(Struct, frozen=True):
    """What a reader has: all that `snapshot` saw, and of what `upto` saw the notifications up to `seen`."""

    snapshot: str
    upto: str | None = None
    seen: int = 0

    def token(self) -> str:
        """As an event id."""
        parts = (self.snapshot, self.upto or "", str(self.seen))
        return base64.urlsafe_b64encode("~".join(parts).encode()).decode().rstrip("=")


def read_position(token: str) -> Position | None:
    """The position behind an event id; None for one that is not ours."""
    if len(token) > _LONGEST:
        return None
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode("ascii")
        snapshot, upto, seen = text.split("~")
    except ValueError:
        return None
    if not (_is_snapshot(snapshot) and (not upto or _is_snapshot(upto)) and seen.isdigit()):
        return None
    if len(seen) > 18:
        return None
    return Position(snapshot, upto or None, int(seen))


def is_ahead(position: Position, current: str) -> bool:
    """True for a position of another cluster: it names transactions that this one has yet to begin."""
    return _numbers(position.snapshot)[1] > _numbers(current)[1]


def _is_snapshot(text: str) -> bool:
    """PostgreSQL's own rules for pg_snapshot: it refuses any other, and with it the whole batch."""
    if not _SNAPSHOT.fullmatch(text):
        return False
    xmin, xmax, *open_ = _numbers(text)
    return (
        0 < xmin <= xmax < 2**63
        and all(xmin <= xid < xmax for xid in open_)
        and open_ == sorted(set(open_))
    )


def _numbers(snapshot: str) -> list[int]:
    return [int(part) for part in re.split("[:,]", snapshot) if part]
