"""Recipients a second of one notify() call for 1,000, 10,000 and 100,000 people, until its COMMIT returned.

Everybody gets a bulletin.new_chapter (in the inbox and by mail): each person's preferences, address and digest decide;
a notification, a badge's change and a mail's delivery are stored for each, and an entry of the event queue. One in five
has own preferences, half of these turn mail off. `tocsin serve` runs beside it; the leader is idle before each call.

After a checkpoint PostgreSQL writes each page that changes to the WAL as a whole, once. So a round in which, or right
before which, a checkpoint began is measured again; the results with all rounds are a second table.

Peer: a Django model's `bulk_create` of bare rows with the same text, in one transaction. Floor: `insert … select` of
the notifications alone, with one decision for all, into the same table, which has a million rows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial

import psycopg
from bench import cpu_limit, stage
from bench.listening import serving, settle
from bench.peer import peer
from bench.record import Goal, Record, keep
from bench.rounds import Measured, in_turns_without

SIZES = (1_000, 10_000, 100_000)
OURS, PEER, FLOOR = "notify()", "Django bulk_create", "insert … select"

PEOPLE = """
insert into tocsin.recipient (recipient_id, email, name, locale)
select 'p' || i, 'p' || i || '@example.com', 'Person ' || i, 'en'
from generate_series(10001, 100000) i;

insert into tocsin.device (token, recipient_id, platform, provider)
select md5(i::text) || md5((i + 1)::text), 'p' || i, 'ios', 'apns'
from generate_series(10001, 100000) i
where i % 5 < 3;

insert into tocsin.preference (recipient_id, scope, channel, enabled)
select 'p' || i, case i % 3 when 0 then '*' when 1 then 'bulletin.*' else 'forum.new_reply' end, 'email', i % 2 = 0
from generate_series(10001, 100000) i
where i % 5 = 0;

analyze tocsin.recipient, tocsin.device, tocsin.preference
"""
NOTIFY = """
select tocsin.notify(
    'bulletin.new_chapter', array(select 'p' || i from generate_series(1, %s) i), 'A new chapter in Ghent',
    'We meet each first Tuesday at the library.', '/chapters/ghent', '{"chapter": "ghent"}'
)
"""
INSERT = """
with event as materialized (
    select nextval('tocsin.event_event_id_seq') as event_id
)
insert into tocsin.notification (event_id, recipient_id, event_type, created_at, in_inbox, decisions)
select
    e.event_id, u.id, 'bulletin.new_chapter', now(), true,
    '{"in_app": ["on", "default"], "email": ["on", "default"], "push": ["off", "default"]}'
from event e, (select 'p' || i as id from generate_series(1, %s) i order by id) u
"""


def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with ExitStack() as stack:
        server = stack.enter_context(stage.server())
        dsn = stack.enter_context(stage.database(server, "fan_out"))
        owner = stack.enter_context(psycopg.connect(dsn, autocommit=True))
        owner.execute(PEOPLE)
        owner.execute("update tocsin.channel set available = true")
        stack.enter_context(serving(dsn, stage.free_port()))
        django = stack.enter_context(peer("django_bulk.py", dsn))

        def in_sql(statement: str, people: int) -> float:
            settle(owner)
            started = time.perf_counter()
            owner.execute(statement, (people,))
            return people / (time.perf_counter() - started)

        def in_django(people: int) -> float:
            settle(owner)
            return people / float(django.ask(people=people))

        contenders = {}
        for people in SIZES:
            contenders[f"{OURS}, {people:,}"] = partial(in_sql, NOTIFY, people)
            contenders[f"{PEER}, {people:,}"] = partial(in_django, people)
            contenders[f"{FLOOR}, {people:,}"] = partial(in_sql, INSERT, people)
        kept, every = in_turns_without(contenders, rounds, Checkpoints(owner).began)
        versions = django.versions
    title = "One notify() for 1,000, 10,000 and 100,000 people"
    keep(
        record("fan-out", title, kept, versions),
        record(
            "fan-out-checkpoint", f"{title}, with the rounds after a checkpoint", every, versions
        ),
    )


def record(name: str, title: str, measured: Measured, versions: Mapping[str, str]) -> Record:
    return Record(
        name=name,
        title=title,
        unit="recipients/s",
        measured=measured,
        goals=[
            Goal(f"{OURS}, {people:,}", f"{theirs}, {people:,}", at_least=ratio)
            for people in SIZES
            for theirs, ratio in ((PEER, 2), (FLOOR, 0.35))
        ],
        versions=versions,
    )


class Checkpoints:
    """When the last checkpoint began, as a place in the WAL."""

    def __init__(self, owner: psycopg.Connection) -> None:
        self._owner = owner
        self._last = ""

    def began(self) -> bool:
        """Returns whether one began since the last call; true at the first one."""
        row = self._owner.execute("select redo_lsn::text from pg_control_checkpoint()").fetchone()
        assert row is not None
        before, self._last = self._last, row[0]
        return self._last != before


if __name__ == "__main__":
    main()
