"""What grows with the stock of notifications: pages and CPU of each call. `make bench-large`.

A person has as many notifications in each database (bench/large_stock.sql), only the number of people differs. Of each
call the pages that it reads are counted (EXPLAIN, with those of its functions), and the CPU time of PostgreSQL: a busy
machine changes neither. Then the clean-up removes the oldest day, by the product's own code: rows, CPU, WAL, the
longest statement, and the vacuum after it. `ROWS="1000000 10000000"` chooses the sizes; 50 million take 45 minutes and
65 GB. `--hard` measures the calls and the clean-up beside an open snapshot and the writes of an hour, and the calls
with a million due deliveries. `--folder` keeps the databases for the next run; without it they are removed.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from bench import cpu_limit, large_stock
from bench.large_clean_up import clean_up_day
from bench.large_scenes import BACKLOG, fill_backlog, open_snapshot
from bench.large_stock import Db
from operations import spent
from psycopg.conninfo import make_conninfo
from size import claim_of, once

from tocsin.sql import load

ROWS = (100_000, 1_000_000)
LEADER = "leader: "  # calls of the leader, whose session has settings of its own
CPU_SECONDS, MOST = 0.3, 40  # a call is repeated until it took so much, or so often
Statement = tuple[str, Mapping[str, Any]]
Found = dict[str, dict[str, tuple[float, float]]]  # pages and microseconds, by call and database


def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--folder", type=Path, help="keep the databases here")
    parser.add_argument("--only", default="", help="calls whose names contain this; no clean-up")
    parser.add_argument(
        "--hard", action="store_true", help="also beside an open snapshot, and with a backlog"
    )
    options = parser.parse_args()
    found: Found = {}
    with ExitStack() as stack:
        folder = options.folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="tocsin-large-"))
        )
        running = stack.enter_context(large_stock.server(folder))
        for rows in options.rows:
            dsn = large_stock.stocked(running, rows)
            admin = make_conninfo(running.superuser_dsn, dbname=large_stock.name_of(rows))
            place = Place(dsn, admin, running.pid, f"{rows:,}", options.only)
            report(place.name, sizes(dsn))
            measure(place, found)
            clean_up(place)
            if options.hard:
                hard(place, found)
    print(table(found))


class Place(NamedTuple):
    """A database with a stock of notifications."""

    dsn: str
    admin_dsn: str
    server: int  # process id
    name: str
    only: str


def measure(place: Place, found: Found, scene: str = "") -> None:
    """Measures pages and CPU of each call, and prints them."""
    name = f"{place.name}{scene}"
    for call, statements in CALLS.items():
        if place.only in call:
            found.setdefault(call, {})[name] = measured(place.dsn, call, statements)
    print(f"\n{name}\n{table(found, name)}", flush=True)


def hard(place: Place, found: Found) -> None:
    """Measures beside an open snapshot and the writes of an hour, then with a backlog of deliveries."""
    with psycopg.connect(place.admin_dsn, autocommit=True) as admin:
        with open_snapshot(place.dsn, people_of(admin)):
            measure(place, found, ", beside a snapshot")
            clean_up(place, ", beside a snapshot")
        fill_backlog(admin)
        measure(place, found, f", {BACKLOG:,} due")


def clean_up(place: Place, scene: str = "") -> None:
    if not place.only:
        report(place.name + scene, clean_up_day(place.dsn, place.admin_dsn, place.server))


def report(name: str, facts: Mapping[str, Any]) -> None:
    print(f"\n{name} notifications")
    for what, value in facts.items():
        print(f"  {what}: {value}", flush=True)


def table(found: Found, only: str | None = None) -> str:
    """Returns pages and CPU of each call in each database, with the ratio to the first."""
    names = [name for name in next(iter(found.values())) if only in (None, name)]
    heads = [f"{unit}, {name}" for unit in ("pages", "us") for name in names]
    width = max(map(len, heads)) + 4
    lines = [" " * 32 + "".join(f"{head:>{width}}" for head in heads)]
    for call, costs in found.items():
        cells = []
        for unit in (0, 1):
            first = next(iter(costs.values()))[unit]
            for name in names:
                value = costs[name][unit]
                cells.append(f"{value:,.0f} ({value / first:.2f}x)" if first else f"{value:,.0f}")
        lines.append(f"{call:<32}" + "".join(f"{text:>{width}}" for text in cells))
    return "\n".join(lines)


def sizes(dsn: str) -> dict[str, Any]:
    """Returns the gigabytes of the database, and of its largest tables with and without their indexes."""
    with psycopg.connect(dsn) as owner:
        whole = owner.execute("select pg_database_size(current_database())").fetchone()
        tables = owner.execute(
            "select c.relname, pg_table_size(c.oid), pg_indexes_size(c.oid) from pg_class c"
            " where c.relnamespace = 'tocsin'::regnamespace and c.relkind = 'r'"
            " order by pg_total_relation_size(c.oid) desc limit 5"
        ).fetchall()
    assert whole is not None
    return {"GB": round(whole[0] / 1e9, 2)} | {
        f"GB of {name} and of its indexes": (round(table / 1e9, 2), round(indexes / 1e9, 2))
        for name, table, indexes in tables
    }


def measured(dsn: str, call: str, make: Make) -> tuple[float, float]:
    """Returns the pages of a call, and the microseconds of CPU of one; all are rolled back."""
    with psycopg.connect(dsn) as app:
        if call.startswith(LEADER):
            app.execute(load("dispatch")["configure_planner"].encode())
            app.commit()
        once_all(app, make)
        found = [once_all(app, make) for _ in range(2)]
        total, times = 0.0, 0
        while total < CPU_SECONDS and times < MOST:
            statements = make(app)
            before = spent(app)[0]
            for text, values in statements:
                app.execute(text.encode(), values)
            total += spent(app)[0] - before
            app.rollback()
            times += 1
        return statistics.median(found), 1e6 * total / times


def once_all(app: Db, make: Make) -> int:
    """Returns the pages of all statements of a call; each is rolled back, and the call is made again for the next."""
    return sum(once(app, make(app)[number])[0] for number in range(len(make(app))))


def people_of(app: Db) -> int:
    row = app.execute("select count(*) - 3 from tocsin.recipient").fetchone()
    assert row is not None
    return int(row[0])


def person(app: Db) -> str:
    """Returns an ordinary person: at the same place of the distribution in each size."""
    return f"p{people_of(app) // 3}"


def place(app: Db, who: str, skipped: int, archived: bool = False) -> tuple[Any, ...]:
    row = app.execute(
        "select created_at, notification_id from tocsin.notification where recipient_id = %s and in_inbox"
        f" and archived_at is {'not ' if archived else ''}null"
        " order by created_at desc, notification_id desc offset %s limit 1",
        (who, skipped),
    ).fetchone()
    return row or (None, None)


def page(who: str | None, skipped: int | None = None) -> Make:
    def make(app: Db) -> list[Statement]:
        name = who or person(app)
        at, last = (None, None) if skipped is None else place(app, name, skipped)
        values = {"recipient_id": name, "at": at, "id": last, "limit": 21}
        return [(load("notification")["list_notifications"], values)]

    return make


def filtered(who: str | None, skipped: int | None = None, **wanted: Any) -> Make:
    def make(app: Db) -> list[Statement]:
        name = who or person(app)
        archived = bool(wanted.get("archived"))
        at, last = (None, None) if skipped is None else place(app, name, skipped, archived)
        values = dict.fromkeys(("read", "event_type", "category", "subject")) | {
            "recipient_id": name,
            "archived": False,
            "newer": False,
            "at": at,
            "id": last,
            "limit": 21,
        }
        return [(load("notification")["list_filtered"], values | wanted)]

    return make


def groups(who: str | None, skipped: int | None = None) -> Make:
    def make(app: Db) -> list[Statement]:
        name = who or person(app)
        at, last = (None, None) if skipped is None else place(app, name, skipped)
        values = dict.fromkeys(("read", "event_type", "category", "subject", "as_of")) | {
            "recipient_id": name,
            "newer": False,
            "at": at,
            "id": last,
            "limit": 21,
        }
        return [(load("group")["list_groups"], values)]

    return make


def of(who: str | None, text: str, **values: Any) -> Make:
    """Returns a statement with the id of a person, `%(who)s`."""
    return lambda app: [(text, {"who": who or person(app)} | values)]


def named(file: str, *names: str, **values: Any) -> Make:
    """Returns statements of queries/FILE.sql."""

    def make(_: Db) -> list[Statement]:
        now = datetime.now(UTC)
        first = datetime.min.replace(tzinfo=UTC)
        times = {"now": now, "before": now - timedelta(days=90), "after": first}
        return [(load(file)[name], times | values) for name in names]

    return make


def overview(_: Db) -> list[Statement]:
    now = datetime.now(UTC)
    hour = {"since": now - timedelta(hours=1), "step": timedelta(minutes=1)}
    return [
        (load("operations")["channels"], {}),
        (load("operations")["unfinished"], {"most": 50_000}),
        (load("operations")["settled_lately"], {"now": now}),
        (load("operations")["counted_minutes"], hour),
        (load("operations")["running_fan_outs"], {}),
        (load("operations")["throttled_apps"], {"at_least": 1000}),
        (load("mail_event")["mail_event_counts"], {"since": now - timedelta(days=1)}),
    ]


def dead(_: Db) -> list[Statement]:
    now = datetime.now(UTC)
    values = {"at": now, "id": 2**62, "since": now - timedelta(days=7), "channel": None}
    return [
        (
            load("operations")["dead_letters"],
            values | {"reason": "smtp_550_5.1.1", "limit": 21},
        ),
        (
            load("operations")["dead_letter_reasons"],
            {"since": now - timedelta(days=7), "most": 50_000},
        ),
    ]


def notify(people: int) -> Make:
    def make(app: Db) -> list[Statement]:
        step = people_of(app) // people
        who = [f"p{number * step}" for number in range(people)]
        text = "select tocsin.notify('forum.new_reply', %(who)s, 'New reply', 'Bob', subject => 'forum.thread:1')"
        return [(text, {"who": who})]

    return make


def queued(app: Db) -> list[int]:
    """Returns fifty new deliveries by mail."""
    text, values = notify(50)(app)[0]
    row = app.execute(text.encode(), values).fetchone()
    app.execute(
        "insert into tocsin.delivery (notification_id, event_id, recipient_id, channel, created_at)"
        " select n.notification_id, n.event_id, n.recipient_id, 'email', now() from tocsin.notification n"
        " where n.event_id = %s and not exists (select from tocsin.delivery d where d.event_id = n.event_id"
        " and d.recipient_id = n.recipient_id and d.channel = 'email')",
        row,
    )
    found = app.execute(
        "select delivery_id from tocsin.delivery where event_id = %s and channel = 'email'", row
    )
    return [each for (each,) in found.fetchall()]


def claim(app: Db) -> list[Statement]:
    return [claim_of(queued(app))]


def settle(app: Db) -> list[Statement]:
    """The outcome of a claim, sent."""
    ids = queued(app)
    text, values = claim_of(ids)
    app.execute(text.encode(), values)
    many: dict[str, Any] = {
        "delivery_ids": ids,
        "claims": [values["claim"]] * len(ids),
        "addresses": ["p@example.com"] * len(ids),
        "checked_ats": [datetime.now(UTC)] * len(ids),
        "provider_ids": ["ok"] * len(ids),
        "providers": ["mail.example.com:587"] * len(ids),
    }
    return [(load("delivery")["settle_sent"], many)]


def lost(app: Db) -> list[Statement]:
    """All pages of deliveries of which one may be lost; larger pages than the product reads."""
    queries, now = load("installation"), datetime.now(UTC)
    row = app.execute(queries["first_maybe_lost"].encode(), {"now": now}).fetchone()
    pages: list[Statement] = [(queries["first_maybe_lost"], {"now": now})]
    while row and row[0] is not None:
        pages.append((queries["requeue_lost"], {"after": row[0], "now": now, "limit": 100_000}))
        row = app.execute(pages[-1][0].encode(), pages[-1][1]).fetchone()
    return pages


def why_one(app: Db) -> list[Statement]:
    _, last = place(app, person(app), 1)
    values = {"notification_ids": [last], "recipient_id": None}
    return [(load("notification")["why"], values)]


MARK_ALL = "select * from tocsin.mark_all_read(%(who)s, null, null, null)"
Make = Callable[[Db], list[Statement]]
CALLS: dict[str, Make] = {
    "notify 1": notify(1),
    "notify 100": notify(100),
    "claim 50": claim,
    "settle 50": settle,
    "count": of(None, "select tocsin.unread_count(%(who)s)"),
    "list": page(None),
    "list of 20,000": page("h1"),
    "list of 20,000, deep": page("h1", 19_000),
    "list, unread only": filtered(None, read=False),
    "list, a category": filtered(None, category="forum"),
    "archive of 20,000": filtered("h2", archived=True),
    "archive of 20,000, deep": filtered("h2", 19_000, archived=True),
    "groups": groups(None),
    "groups of 20,000": groups("h1"),
    "groups of 20,000, deep": groups("h1", 10_000),
    "mark all read": of(None, MARK_ALL),
    "mark all read, 20,000": of("h1", MARK_ALL),
    "why, one": why_one,
    "why, a person": of(None, "select * from tocsin.why(%(who)s)"),
    "operations: overview": overview,
    "operations: failed": dead,
    "operations: metrics": named("health", "unsettled", most=100_000),
    "operations: a person": lambda app: [
        (
            load("operations")["notifications_of_person"],
            {"recipient_id": person(app), "limit": 50},
        ),
        (load("operations")["find_person"], {"recipient_id": person(app)}),
    ],
    "doctor": named("doctor", "has_foreign_xids"),
    f"{LEADER}next due": named("dispatch", "next_due"),
    f"{LEADER}dispatch 500": lambda _: [
        (
            load("dispatch")["dispatch_due"],
            {"channel": "email", "room": 500, "lease": timedelta(minutes=2)},
        )
    ],
    f"{LEADER}election": named("dispatch", "reset_foreign_xids"),
    f"{LEADER}unfinished by minute": named("operations", "count_minutes", most=50_000),
    "digests of 100 people": lambda _: [
        (
            load("digest")["assemble_digests"],
            {"now": datetime.now(UTC) + timedelta(days=8), "limit": 100},
        )
    ],
    "erase a person": of(None, "select tocsin.erase_recipient(%(who)s)"),
    "erase one with 20,000": of("h3", "select tocsin.erase_recipient(%(who)s)"),
    "clean up 1000": named("installation", "clean_up_notifications", limit=1000),
    "clean up: unread": lambda _: [
        (
            load("installation")["clean_up_unread"],
            {"after": 0, "now": datetime.now(UTC), "days": 395, "limit": 1000},
        )
    ],
    "clean up: digests": named("installation", "clean_up_digests", limit=1000),
    "clean up: events, a page": named("installation", "clean_up_events", after_id=0, limit=1000),
    "clean up: reports": named("installation", "clean_up_mail_events", limit=1000),
    "clean up: keys": named("installation", "clean_up_keys", limit=1000),
    "clean up: badge pushes": named("installation", "clean_up_badge_pushes", limit=1000),
    "clean up: devices": named("installation", "disable_stale_devices", limit=1000),
    "clean up: lost deliveries": lost,
}


if __name__ == "__main__":
    main()
