"""When a person wants no mail and no push."""

from __future__ import annotations

from datetime import time

from msgspec import Struct

from tocsin.engine.model import Invalid
from tocsin.engine.store.database import Database, Session
from tocsin.engine.store.digest import check_timezone
from tocsin.sql import load

_SQL = load("quiet_hours")


class QuietHours(Struct, frozen=True):
    """By the clock of `timezone`, `HH:MM`; `ends` before `starts` is over midnight. None: there are none."""

    starts: str | None
    ends: str | None
    timezone: str


class _Row(Struct):
    starts: time
    ends: time
    timezone: str | None


async def get_quiet_hours(session: Database | Session, recipient_id: str) -> QuietHours:
    """A person's."""
    row = await session.row(_Row, _SQL["get_quiet_hours"], recipient_id=recipient_id)
    zone = row.timezone if row else None
    if zone is None:
        zone = await session.value(_SQL["recipient_timezone"], recipient_id=recipient_id)
    if row is None:
        return QuietHours(None, None, zone)
    return QuietHours(f"{row.starts:%H:%M}", f"{row.ends:%H:%M}", zone)


async def set_quiet_hours(
    database: Database,
    recipient_id: str,
    *,
    starts: time | None,
    ends: time | None,
    timezone: str | None,
) -> QuietHours:
    """Sets them, in the person's own zone where none is given; none at all where both are None. Raises Invalid."""
    if (starts is None) != (ends is None):
        missing = "starts" if starts is None else "ends"
        raise Invalid("half of it", (missing, "Give both starts and ends, or null for both."))
    if starts is not None and starts == ends:
        raise Invalid(
            "no time at all", ("ends", "Quiet hours end at another time than they start.")
        )
    async with database.transaction() as session:
        if timezone is not None:
            await check_timezone(session, timezone)
        if starts is None:
            await session.run(_SQL["end_quiet_hours"], recipient_id=recipient_id)
        else:
            await session.run(
                _SQL["set_quiet_hours"],
                recipient_id=recipient_id,
                starts=starts,
                ends=ends,
                timezone=timezone,
            )
        await session.value(_SQL["reconsider_quiet"], recipient_id=recipient_id)
        return await get_quiet_hours(session, recipient_id)
