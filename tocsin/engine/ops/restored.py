"""After a restore of the database: settles what logs show as sent since the backup, and counts what nobody knows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from msgspec import Struct

from tocsin.engine.mail.links import find_tagged_delivery
from tocsin.engine.store.connection import SyncConnection, connect
from tocsin.sql import load

_SQL = load("restored")
_SECRET = load("installation")["get_secret"]
_LINK_KEY = "link_key"
_CONSOLE = re.compile(r"\battempt\b.*?\bdelivery_id=(\d+)\b.*?\boutcome=sent\b")
# None of the rows that were made after the backup, and are lost, has an id that is further away.
_SKIPPED_IDS = 1_000_000


class RestoreError(Exception):
    """Why it can't be done now, with the cure, in one line."""


class SentLine(NamedTuple):
    """A line of a log: this delivery was sent."""

    delivery_id: int
    at: datetime
    provider: str | None


class Restored(Struct, frozen=True):
    """How many deliveries, by channel, and what else may have been sent after the backup."""

    settled: dict[str, int]
    held: dict[str, int]
    unknown: dict[str, int]
    events: list[int]
    digests: int


class _Attempt(Struct):
    event: str = ""
    outcome: str = ""
    delivery_id: int = 0
    timestamp: datetime | None = None
    provider: str | None = None


_read_attempt = msgspec.json.Decoder(_Attempt).decode


def sent_lines(lines: Iterable[str], key: bytes, now: datetime) -> Iterator[SentLine]:
    """Yields what these lines show as sent: a worker's, or a mail server's with our Message-ID; `key` verifies that."""
    for line in lines:
        if found := _read_line(line, key, now):
            yield found


def _read_line(line: str, key: bytes, now: datetime) -> SentLine | None:
    start = line.find("{")  # something may have put its own time before it
    if start >= 0 and '"attempt"' in line:
        try:
            attempt = _read_attempt(line[start:])
        except msgspec.MsgspecError:
            return None
        if (attempt.event, attempt.outcome) != ("attempt", "sent"):
            return None
        return SentLine(attempt.delivery_id, attempt.timestamp or now, attempt.provider)
    if found := _CONSOLE.search(line):
        return SentLine(int(found[1]), now, None)
    delivery_id = find_tagged_delivery(key, line)
    return None if delivery_id is None else SentLine(delivery_id, now, None)


def settle_restored(dsn: str, logs: Iterable[Iterable[str]], *, hold: bool) -> Restored:
    """Settles what the logs show as sent; with `hold`, holds what may have been sent. `dsn` is the owner's.

    Ids continue later, so that none of a row that was lost is used again. Raises RestoreError where a service runs.
    """
    with connect(dsn) as connection:
        if running := connection.execute(_SQL["running_processes"]).fetchall():
            names = ", ".join(f"{kind} {pid} on {host}" for kind, host, pid in running)
            raise RestoreError(
                f"Stop all services first: {names}. If they are stopped, try again in half a minute,"
                " when their last reports are out of date."
            )
        key = _link_key(connection)
        now = datetime.now(UTC)
        found = [each for log in logs for each in sent_lines(log, key, now)]
        arguments = {
            "delivery_ids": [each.delivery_id for each in found],
            "sent_ats": [each.at for each in found],
            "providers": [each.provider for each in found],
        }
        settled = dict(connection.execute(_SQL["settle_restored"], arguments).fetchall())
        held = dict(connection.execute(_SQL["hold_restored"]).fetchall()) if hold else {}
        unknown = dict(connection.execute(_SQL["unknown_deliveries"]).fetchall())
        events = [row[0] for row in connection.execute(_SQL["overdue_events"]).fetchall()]
        (digests,) = connection.execute(_SQL["overdue_digests"]).fetchone() or (0,)
        connection.execute(_SQL["skip_ids"], {"by": _SKIPPED_IDS})
        return Restored(settled, held, unknown, events, digests)


def _link_key(connection: SyncConnection) -> bytes:
    row = connection.execute(_SECRET, {"name": _LINK_KEY}).fetchone()
    return bytes(row[0]) if row else b""
