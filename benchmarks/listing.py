"""Milliseconds for a page of the inbox, the first and the thousandth, of a person with 50,000. `make bench-list`.

One `tocsin serve`, with requests over one open connection and a verified JWT; pages of 20 by keyset cursors. Peer:
Django REST framework on the same rows, under gunicorn: with page-number pagination (a count and an offset), which is
its default, and with CursorPagination, which is its fastest. Floor: the bare keyset query, prepared, on a psycopg
connection.

Filters are measured too: what they select may be rare, or not exist.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import ExitStack
from http.client import HTTPConnection
from urllib.parse import urlencode

import psycopg
from bench import cpu_limit, stage
from bench.gunicorn import gunicorn
from bench.peer import peer
from bench.record import Goal, Record, keep
from bench.rounds import in_turns
from bench.service import bearer, serve

from tocsin.engine.store.pagination import Cursor

PERSON = "p1"  # has 50,000, all unread
READER = "p10"  # has a few thousand, most of them read
PAGE = 20
DEEP = 1000
BY_CURSOR = "DRF CursorPagination"
FILTERS = (
    "tocsin, unread only",
    "tocsin, read only",
    "tocsin, a common category",
    "tocsin, a category without any",
    "tocsin, a type without any",
)
BARE = """
select n.notification_id, n.event_id, n.event_type, e.title, e.body, e.body_html, e.action_url, e.metadata, e.initiator,
    n.read_at, n.created_at
from tocsin.notification n
join tocsin.event e using (event_id)
where n.recipient_id = %s
    and n.in_inbox
    and n.archived_at is null
    and (n.created_at, n.notification_id) < (%s, %s)
order by n.created_at desc, n.notification_id desc
limit 21
"""
Ask = Callable[[], object]


def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=100, help="of each measurement")
    options = parser.parse_args()
    with ExitStack() as stack:
        running = stack.enter_context(stage.server())
        dsn = stack.enter_context(stage.database(running, "list"))
        with peer("django_table.py", dsn) as made:
            versions = made.versions
        ours = stack.enter_context(serve(dsn))
        theirs = stack.enter_context(gunicorn("django_list", {"PEER_DSN": dsn})).port
        app = stack.enter_context(psycopg.connect(dsn, autocommit=True))
        deep = place(app, PERSON, PAGE * (DEEP - 1))
        pages: dict[str, Ask] = {
            "tocsin, page 1": asked(ours.port, PERSON),
            "tocsin, page 1,000": asked(ours.port, PERSON, cursor=deep),
            "Django REST framework, page 1": asked(theirs, PERSON, "/list/", page=1),
            "Django REST framework, page 1,000": asked(theirs, PERSON, "/list/", page=DEEP),
            f"{BY_CURSOR}, page 1": asked(theirs, PERSON, "/cursor/"),
            f"{BY_CURSOR}, page 1,000": asked(theirs, PERSON, "/cursor/", cursor=drf_cursor(deep)),
            "floor: bare query, page 1": bare(app, Cursor(deep.at.max, 2**62)),
            "floor: bare query, page 1,000": bare(app, deep),
            "tocsin, unread only": asked(ours.port, READER, read="false"),
            "tocsin, read only": asked(ours.port, PERSON, read="true"),
            "tocsin, a common category": asked(ours.port, PERSON, category="forum"),
            "tocsin, a category without any": asked(ours.port, PERSON, category="billing"),
            "tocsin, a type without any": asked(ours.port, PERSON, event_type="forum.mention"),
        }
        measured = in_turns(
            {name: spent(ask, options.requests) for name, ask in pages.items()}, options.rounds
        )
    keep(
        Record(
            "list",
            "A page of an inbox of 50,000",
            "ms",
            measured,
            goals=[
                Goal("tocsin, page 1,000", "tocsin, page 1", at_most=1.2),
                Goal("Django REST framework, page 1", "tocsin, page 1", at_least=3),
                Goal("Django REST framework, page 1,000", "tocsin, page 1,000", at_least=3),
                Goal(f"{BY_CURSOR}, page 1", "tocsin, page 1", at_least=2),
                Goal(f"{BY_CURSOR}, page 1,000", "tocsin, page 1,000", at_least=2),
                *(Goal(name, "tocsin, page 1", at_most=1.5) for name in pages if name in FILTERS),
            ],
            versions=versions,
        )
    )


def spent(ask: Ask, requests: int) -> Callable[[], float]:
    """Milliseconds for one request, the median of many."""

    def measure() -> float:
        times = []
        for _ in range(requests):
            started = time.perf_counter()
            ask()
            times.append(time.perf_counter() - started)
        return 1000 * sorted(times)[requests // 2]

    return measure


def asked(port: int, person: str, path: str = "/api/notifications/", **query: object) -> Ask:
    connection = HTTPConnection("127.0.0.1", port)
    headers = bearer(person)
    url = f"{path}?{urlencode({name: str(value) for name, value in query.items()})}"

    def ask() -> bytes:
        connection.request("GET", url, headers=headers)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise SystemExit(f"{url}: {response.status} {body!r}")
        return body

    return ask


def bare(app: psycopg.Connection, before: Cursor) -> Ask:
    def ask() -> object:
        return app.execute(BARE, (PERSON, before.at, before.id), prepare=True).fetchall()

    return ask


def place(app: psycopg.Connection, person: str, skipped: int) -> Cursor:
    """Returns the cursor of a page with that many rows before it."""
    row = app.execute(
        "select n.created_at, n.notification_id from tocsin.notification n"
        " where n.recipient_id = %s and n.in_inbox and n.archived_at is null"
        " order by n.created_at desc, n.notification_id desc offset %s limit 1",
        (person, skipped - 1),
    ).fetchone()
    assert row is not None
    return Cursor(*row)


def drf_cursor(after: Cursor) -> str:
    """Returns the cursor of DRF's for what is older."""
    return b64encode(urlencode({"p": str(after.at)}).encode()).decode()


if __name__ == "__main__":
    main()
