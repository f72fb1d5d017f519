"""The contents of the database when the system is idle again, and the records of the far ends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg
from msgspec import Struct
from psycopg.rows import class_row

from faults.journal import read

Key = tuple[str, str, str]
"""Channel, address or device token, marker: identifies one delivery, also in the far ends' records."""

EVENTS = """
select event_id, title, fanned_out_at is not null as fanned_out, cancelled_at is not null as cancelled
from tocsin.event
"""
NOTIFICATIONS = """
select n.notification_id, n.event_id, n.recipient_id, n.in_inbox, n.read_at is not null as read,
    n.archived_at is not null as archived, n.decisions
from tocsin.notification n
"""
DELIVERIES = """
select d.delivery_id, d.notification_id, d.event_id, d.recipient_id, d.channel, d.state::text, d.reason, d.attempts,
    coalesce(v.provider, d.channel) as provider, v.token, coalesce(e.title, '') as title, d.digest_id, d.burst_id,
    t.max_attempts
from tocsin.delivery d
left join tocsin.event e using (event_id)
left join tocsin.event_type t using (event_type)
left join tocsin.device v using (device_id)
"""
ATTEMPTS = """
select delivery_id, attempt, extract(epoch from at)::float8 as at, outcome, coalesce(reason, '') as reason
from tocsin.attempt
order by delivery_id, attempt, at
"""
DIGESTS = """
select recipient_id, (due_at at time zone 'UTC')::date::text as day, count(*)
from tocsin.digest
group by 1, 2
"""
COUNTS = """
select r.recipient_id, tocsin.unread_count(r.recipient_id), (
    select count(*)
    from tocsin.notification n
    where n.recipient_id = r.recipient_id and n.in_inbox and n.archived_at is null and n.read_at is null
)
from tocsin.recipient r
"""
OPT_OUTS = (
    "select recipient_id, scope from tocsin.preference where channel = 'email' and not enabled"
)
UNSETTLED = """
select count(*)
from tocsin.delivery
where state in ('queued', 'sending', 'deferred')
"""
NOT_FANNED_OUT = (
    "select count(*) from tocsin.event where fanned_out_at is null and cancelled_at is null"
)
SESSIONS = "select count(*) from pg_stat_activity where datname = current_database() and usename = current_user"
# Ends waits for a retry, which take up to an hour; pauses that a provider requested are not shortened.
MAKE_DUE = """
update tocsin.delivery d
set due_at = now()
where d.state = 'deferred'
    and d.due_at > now() + interval '3 seconds'
    and d.reason not like '%429%'
    and d.reason <> 'circuit_open'
"""


class Event(Struct):
    event_id: int
    title: str
    fanned_out: bool
    cancelled: bool

    @property
    def marker(self) -> str:
        return self.title.partition(" ")[0]


class Notification(Struct):
    notification_id: int
    event_id: int
    recipient_id: str
    in_inbox: bool
    read: bool
    archived: bool
    decisions: dict[str, list[str]]


class Delivery(Struct):
    delivery_id: int
    notification_id: int | None
    event_id: int | None
    recipient_id: str
    channel: str
    state: str
    reason: str | None
    attempts: int
    provider: str
    token: str | None
    title: str
    digest_id: int | None
    burst_id: int | None
    max_attempts: int | None

    @property
    def key(self) -> Key | None:
        """None for deliveries without a single event, and for a removed device."""
        if self.event_id is None:
            return None
        to = self.token if self.channel == "push" else f"{self.recipient_id}@example.com"
        return None if to is None else (self.provider, to, self.title.partition(" ")[0])


class Attempt(Struct):
    delivery_id: int
    attempt: int
    at: float
    outcome: str
    reason: str


class Passage(Struct):
    """One message at a far end: accepted, refused or ignored."""

    at: float
    began: float
    channel: str
    slot: int
    id: str
    to: str
    result: str
    reply: str
    digest: bool
    retry_after: float

    @property
    def accepted(self) -> bool:
        return self.result == "accepted"


class Ledger(Struct):
    """The complete contents."""

    events: list[Event]
    notifications: list[Notification]
    deliveries: list[Delivery]
    attempts: dict[int, list[Attempt]]
    digests: list[tuple[str, str, int]]
    counts: list[tuple[str, int, int]]
    opt_outs: set[tuple[str, str]]


def read_ledger(dsn: str) -> Ledger:
    with psycopg.connect(dsn, autocommit=True) as owner:

        def rows(kind: Any, statement: str) -> Any:
            with owner.cursor(row_factory=class_row(kind)) as cursor:
                return cursor.execute(statement.encode()).fetchall()

        attempts: dict[int, list[Attempt]] = defaultdict(list)
        for attempt in rows(Attempt, ATTEMPTS):
            attempts[attempt.delivery_id].append(attempt)
        return Ledger(
            rows(Event, EVENTS),
            rows(Notification, NOTIFICATIONS),
            rows(Delivery, DELIVERIES),
            attempts,
            owner.execute(DIGESTS.encode()).fetchall(),
            owner.execute(COUNTS.encode()).fetchall(),
            set(owner.execute(OPT_OUTS.encode()).fetchall()),
        )


class Passages(Struct):
    """The far ends' records by key; digests by their Message-ID; and the times when they cut whole connections."""

    by_key: dict[Key, list[Passage]]
    digests: dict[str, list[Passage]]
    cuts: list[tuple[float, int]]
    accepted: int


def read_passages(file: Path) -> Passages:
    found = Passages({}, {}, [], 0)
    for line in read(file):
        if line["result"] == "cut":
            found.cuts.append((line["at"], line["slot"]))
            continue
        passage = Passage(
            line["at"],
            line["began"],
            line["channel"],
            line["slot"],
            line["id"],
            line["to"],
            line["result"],
            line["reply"],
            line.get("event_type") == "digest",
            line.get("retry_after", 0.0),
        )
        found.accepted += passage.accepted
        if passage.digest:
            found.digests.setdefault(passage.id, []).append(passage)
            continue
        for marker in line["markers"]:
            key = (passage.channel, passage.to, marker)
            found.by_key.setdefault(key, []).append(passage)
    return found


def acceptances(passages: Iterable[Passage]) -> list[Passage]:
    return [passage for passage in passages if passage.accepted]
