"""The rules of time zones, as PostgreSQL has them."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from msgspec import Struct, structs

from tocsin.engine.model import Channel, Claimed, Zone
from tocsin.engine.store.database import Database
from tocsin.sql import load

_SQL = load("timezone")
# PostgreSQL gets other rules by an update, of its own or of the system's package.
_KEPT_FOR = 3600.0


class _Changes(Struct):
    name: str
    starts: list[int]
    utc_offsets: list[int]


class Zones:
    """The rules of those zones that a worker has met, read again after an hour."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._zones: dict[str, Zone] = {}
        self._until: dict[str, float] = {}

    async def put_into(self, claimed: Sequence[Claimed]) -> None:
        """Gives each mail its zone; raises Unavailable."""
        mails = [one for one in claimed if one.timezone and one.channel is Channel.EMAIL]
        names = {one.timezone for one in mails if one.timezone}
        now = time.monotonic()
        if missing := [name for name in names if self._until.get(name, 0.0) < now]:
            for zone in await zone_rules(self._database, missing):
                known = self._zones.get(zone.name)
                # what was made for a zone is kept by its identity
                if known is None or not zone.has_rules_of(known):
                    self._zones[zone.name] = zone
            self._until |= dict.fromkeys(missing, now + _KEPT_FOR)
        for one in mails:
            structs.force_setattr(one, "zone", self._zones.get(one.timezone or ""))


async def zone_rules(database: Database, names: Collection[str]) -> list[Zone]:
    """Those of these names that PostgreSQL knows."""
    rows = await database.rows(_Changes, _SQL["zone_changes"], names=list(names))
    return [Zone(row.name, tuple(row.starts), tuple(row.utc_offsets)) for row in rows]
