"""A time zone by PostgreSQL's rules, by which everything is due: a mail shows the hour at which it comes."""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime, timedelta, timezone

from msgspec import Struct


class Zone(Struct, frozen=True, eq=False):
    """`starts` are the seconds since 1970 at which the clock is changed, `utc_offsets` what holds from each on."""

    name: str
    starts: tuple[int, ...]
    utc_offsets: tuple[int, ...]

    def local(self, at: datetime) -> datetime:
        """The same moment by the zone's clock; raises OverflowError in the years 1 and 9999."""
        place = max(bisect_right(self.starts, at.timestamp()) - 1, 0)
        return at.astimezone(timezone(timedelta(seconds=self.utc_offsets[place])))

    def has_rules_of(self, other: Zone) -> bool:
        """Whether both have the same rules."""
        return (self.starts, self.utc_offsets) == (other.starts, other.utc_offsets)
