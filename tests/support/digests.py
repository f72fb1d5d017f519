"""What tests of digests read from the database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from datetime import time as clock
from typing import Any

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db

PREFERENCES = "/api/digest-preferences/"


def tomorrow(hour: int = 6) -> datetime:
    """Returns the next digest's hour of tomorrow: later than any that is due today."""
    day = datetime.now(UTC).date() + timedelta(days=1)
    return datetime.combine(day, clock(hour), UTC)


def waiting(db: Db) -> int:
    row = db.execute("select count(*) from tocsin.digest_item where digest_id is null").fetchone()
    assert row is not None
    return int(row[0])


def digests(db: Db) -> list[tuple[Any, ...]]:
    return db.execute(
        "select g.recipient_id, d.state::text, d.reason from tocsin.digest g"
        " join tocsin.delivery d using (digest_id) order by g.digest_id"
    ).fetchall()


def channel(why: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in why["channels"] if each["channel"] == name)
