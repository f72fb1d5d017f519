"""Milliseconds for a page of the grouped inbox, against a plain page of the same inbox. `make bench-groups`.

One `tocsin serve`, with requests over one open connection. `thousand` has a group of 1,000 notifications, and 100 older
groups of one; `most` has one of 50,000 in its place. 200 people caused them. `many` has 50,000 groups of one.
"""

from __future__ import annotations

from contextlib import ExitStack

import psycopg
from bench import cpu_limit, stage
from bench.record import Goal, Record, keep
from bench.rounds import in_turns
from bench.service import serve
from listing import Ask, asked, spent

PEOPLE = {"thousand": (1000, 1), "most": (50_000, 1), "many": (50_000, 50_000)}
EVENTS = """
insert into tocsin.event (
    event_id, event_type, title, body, metadata, initiator, caller, subject, created_at, fanned_out_at
)
overriding system value
select {start} + i, 'forum.new_reply', 'New reply ' || i, 'I would book the old mill by the lake.', '{{"thread": 7}}',
    'i' || i % 200, 'role:app', case when i > 100 then 's:' || i % {subjects} else 'o:' || i end,
    now() - interval '1 minute' + i * interval '1 millisecond', now()
from generate_series(1, {rows} + 100) i
"""
NOTIFICATIONS = """
insert into tocsin.notification (event_id, recipient_id, event_type, subject, created_at, in_inbox, decisions)
select e.event_id, '{person}', e.event_type, e.subject, e.created_at, true, '{{}}'
from tocsin.event e
where e.event_id > {start}
order by e.event_id
"""


def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=30, help="of each measurement")
    options = parser.parse_args()
    with ExitStack() as stack:
        running = stack.enter_context(stage.server())
        dsn = stack.enter_context(stage.database(running, "groups", rows=None))
        stock(dsn)
        ours = stack.enter_context(serve(dsn))
        pages: dict[str, Ask] = {}
        for person in PEOPLE:
            pages[f"{person}: plain"] = asked(ours.port, person)
            pages[f"{person}: grouped"] = asked(ours.port, person, grouped="true")
        measured = in_turns(
            {name: spent(ask, options.requests) for name, ask in pages.items()}, options.rounds
        )
    keep(
        Record(
            "groups",
            "A page of the grouped inbox",
            "ms",
            measured,
            goals=[
                Goal("thousand: grouped", "thousand: plain", at_most=2),
                Goal("most: grouped", "most: plain", at_most=5),
                Goal("many: grouped", "many: plain", at_most=2),
            ],
        )
    )


def stock(dsn: str) -> None:
    """Three people, and those who caused their notifications."""
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute(
            "insert into tocsin.recipient (recipient_id, name)"
            " select 'i' || i, 'Person ' || i from generate_series(0, 199) i"
        )
        for number, (person, (rows, subjects)) in enumerate(PEOPLE.items()):
            start = number * 1_000_000
            owner.execute(EVENTS.format(start=start, rows=rows, subjects=subjects))
            owner.execute(NOTIFICATIONS.format(start=start, person=person))
        owner.execute("vacuum (analyze) tocsin.notification, tocsin.event, tocsin.recipient")


if __name__ == "__main__":
    main()
