"""PostgreSQL's snapshots as text, `xmin:xmax:xip,…`, when they come back from outside."""

from __future__ import annotations

import base64
import re

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
