"""Unread counts a second in SQL, under churn, and the badge's cost for writers. `make bench-count-sql`.

By pgbench, with prepared statements, ten in a pipeline, so that the database is measured and not its round trips.
Meanwhile other clients notify, read and roll back at a fixed rate, and `tocsin worker` folds as it does in production.
Counted are an ordinary person, one with 50,000 unread, and 32 people at once; then all again with another session's
snapshot open from the start. Peers: `count(*)` by the partial index on unread ones, ours and that of a Django app's
table (which has no churn), and the same capped at 1,000, as a "999+" needs it. Floor: as many rows by their primary
key.

Writes are inserts for one busy person, by 8 and by 32 clients: bare rows; rows whose trigger appends a change of the
badge, as `notify()` does; rows whose trigger keeps a counter. The complete `notify()`, which does far more, is measured
too. A counter's row is unlocked at commit, so each of its transactions has a flush of its own; bare rows share one
flush for about half the clients, while the other half write. So the number of concurrent writers decides.
"""

from __future__ import annotations

import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from bench import cpu_limit, pgbench, stage
from bench.peer import peer
from bench.record import Goal, Record, keep
from bench.rounds import Measured, in_turns
from bench.service import worker

PIPELINE = 10
READERS = 2
WIDTHS = (8, 32)  # writers at once
FLUSHES = 300
CHURN = 200  # transactions a second
HELD = 3.0  # seconds that a writer keeps its transaction open
COPIES = Path(__file__).parent / "bench" / "count_copies.sql"

ORDINARY, HOT, MANY = "ordinary", "50,000 unread", "32 at once"
OURS, FLOOR = "tocsin", "floor: primary key"
STAR, CAPPED = "count(*)", "capped at 1,000"
DJANGO_STAR, DJANGO_CAPPED = "count(*), Django's table", "capped, Django's table"
ROWS, APPENDED, COUNTER, NOTIFY = (
    "floor: bare rows",
    "tocsin: rows and appended changes",
    "rows and a counter kept by a trigger",
    "tocsin: all of notify()",
)

UNREAD = "tocsin.notification where recipient_id = {} and in_inbox and archived_at is null and read_at is null"
DJANGO = "inbox_notification where recipient = {} and not read"


def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        running = stack.enter_context(stage.server())
        dsn = stack.enter_context(stage.database(running, "count_sql"))
        with peer("django_count_table.py", dsn) as django:
            versions = django.versions
        run(dsn, COPIES.read_text("utf-8"))
        warm(dsn, UNREAD, DJANGO)
        stack.enter_context(worker(dsn))
        reads = contenders(dsn, folder)
        with (
            pgbench.in_background(dsn, churn(folder), clients=2, rate=CHURN),
            Comparison(dsn) as compared,
        ):
            quiet = in_turns(reads, options.rounds)
            lasting = {
                name: read for name, read in reads.items() if not name.endswith((STAR, "table"))
            }
            with OldSnapshot(dsn):
                old = in_turns(lasting, options.rounds)
        written = in_turns(writes(dsn, folder), options.rounds)
        waited = {which: longest_wait(dsn, statement) for which, statement in HOT_WRITES.items()}
    keep(
        reading(
            *("count-sql", "Unread counts in SQL, under churn", quiet, versions),
            Goal(f"{ORDINARY}: {OURS}", f"{ORDINARY}: {STAR}", at_least=0.9),
        ),
        reading("count-sql-snapshot", "The same while an old snapshot is open", old, versions),
        Record(
            "count-sql-writes",
            "Inserts for one person, by 8 and by 32 clients",
            "rows/s",
            written,
            goals=[
                Goal(f"{APPENDED}, {clients}", f"{COUNTER}, {clients}", at_least=4)
                for clients in WIDTHS
            ],
            facts={
                "comparisons with count(*)": compared.made,
                "a flush of 8 kB, µs": round(flush() * 1e6),
                f"longest write beside a transaction held for {HELD:.0f} s, ms": round(
                    waited[NOTIFY] * 1000
                ),
                "the same with the trigger's counter, ms": round(waited[COUNTER] * 1000),
            },
            kept={
                "no count differed from count(*) in its snapshot": compared.made > 1000
                and compared.wrong == 0,
                "no writer waited for another's open transaction": waited[NOTIFY] < HELD / 2,
            },
        ),
    )


def reading(
    name: str, title: str, measured: Measured, versions: Mapping[str, str], *more: Goal
) -> Record:
    goals = [*more]
    goals += [Goal(f"{scene}: {OURS}", f"{scene}: {CAPPED}", at_least=2) for scene in (HOT, MANY)]
    return Record(name, title, "counts/s", measured, goals=goals, versions=versions)


def contenders(dsn: str, folder: Path) -> dict[str, Callable[[], float]]:
    """Returns scripts that send ten queries in a pipeline; the 32 people are fixed, since pgbench can't make arrays."""
    asked = {}
    for scene, person in ((ORDINARY, "'p' || :i{}"), (HOT, "'p1'")):
        for name, question in one_person().items():
            lines = [question.format(person.format(number)) for number in range(PIPELINE)]
            sets = [f"\\set i{number} random(4, 10000)" for number in range(PIPELINE)]
            asked[f"{scene}: {name}"] = [script(folder, sets, lines)]
    dice = random.Random(7)
    groups = [[f"'p{dice.randint(1, 10_000)}'" for _ in range(32)] for _ in range(8 * PIPELINE)]
    for name, question in many_people().items():
        lines = [question.format(f"array[{', '.join(group)}]") for group in groups]
        asked[f"{MANY}: {name}"] = [
            script(folder, [], lines[start : start + PIPELINE])
            for start in range(0, len(lines), PIPELINE)
        ]
    return {name: questions(dsn, scripts, name) for name, scripts in asked.items()}


def questions(dsn: str, scripts: Sequence[Path], name: str) -> Callable[[], float]:
    # with a bitmap of all 50,000, which the planner prefers, the capped counts are ten times slower than possible
    best = "-c enable_bitmapscan=off" if name.endswith((CAPPED, DJANGO_CAPPED)) else ""
    return lambda: PIPELINE * pgbench.mixed_rate(dsn, scripts, clients=READERS, options=best)


def one_person() -> dict[str, str]:
    capped = "select count(*) from (select from {} limit 1000) capped;"
    return {
        OURS: "select tocsin.unread_count({});",
        STAR: f"select count(*) from {UNREAD};",
        CAPPED: capped.format(UNREAD),
        DJANGO_STAR: f"select count(*) from {DJANGO};",
        DJANGO_CAPPED: capped.format(DJANGO),
        FLOOR: "select n from tocsin.unread_counter where recipient_id = {};",
    }


def many_people() -> dict[str, str]:
    each = "select p.id, (select count(*) from {}) from unnest({{}}) p (id);"
    capped = "(select from {} limit 1000) capped"
    ours, django = UNREAD.format("p.id"), DJANGO.format("p.id")
    return {
        OURS: "select tocsin.unread_counts_in_order({});",
        STAR: each.format(ours),
        CAPPED: each.format(capped.format(ours)),
        DJANGO_STAR: each.format(django),
        DJANGO_CAPPED: each.format(capped.format(django)),
        FLOOR: "select c.n from unnest({}) p (id) join tocsin.unread_counter c on c.recipient_id = p.id;",
    }


def churn(folder: Path) -> list[Path]:
    """Notifies an ordinary and a busy person; the same rolled back; and reads."""
    sets = ["\\set i random(4, 10000)", "\\set h random(1, 3)"]
    notify_sql = "select tocsin.notify('forum.new_thread', array['p' || :i, 'p' || :h], 'x');"
    newest = f"select max(notification_id) from {UNREAD}".format("'p' || :{0}")
    read = f"select tocsin.mark_read('p' || :{{0}}, ({newest}), true);"
    return [
        script(folder, sets, [notify_sql], pipeline=False),
        script(folder, sets, [notify_sql], pipeline=False),
        script(folder, sets, ["begin;", notify_sql, read.format("h"), "rollback;"], pipeline=False),
        script(folder, sets, [read.format("i")], pipeline=False),
        script(folder, sets, [read.format("h")], pipeline=False),
    ]


def script(
    folder: Path, sets: Sequence[str], lines: Sequence[str], *, pipeline: bool = True
) -> Path:
    path = folder / f"{len(list(folder.iterdir()))}.sql"
    around = ("\\startpipeline", "\\endpipeline") if pipeline else ()
    body = [*sets, *around[:1], *lines, *around[1:]]
    path.write_text("\n".join(body) + "\n", "utf-8")
    return path


HOT_WRITES = {
    ROWS: "insert into copies.bare (event_id, recipient_id, event_type, created_at, in_inbox, decisions)"
    " values (nextval('tocsin.event_event_id_seq'), 'hot', 'forum.new_thread', now(), true, '{}');",
    NOTIFY: "select tocsin.notify('forum.new_thread', array['hot'], 'x');",
}
HOT_WRITES[APPENDED] = HOT_WRITES[ROWS].replace("bare", "appended")
HOT_WRITES[COUNTER] = HOT_WRITES[ROWS].replace("bare", "counted")


def writes(dsn: str, folder: Path) -> dict[str, Callable[[], float]]:
    def measured(statement: str, clients: int) -> Callable[[], float]:
        scripts = [script(folder, [], [statement], pipeline=False)]
        return lambda: pgbench.mixed_rate(dsn, scripts, clients=clients, seconds=1)

    return {
        f"{name}, {clients}": measured(statement, clients)
        for clients in WIDTHS
        for name, statement in HOT_WRITES.items()
    }


def flush() -> float:
    """Median seconds for a flush of one page to the database's disk."""
    took = []
    with (stage.HOME / "flush").open("wb", buffering=0) as file:
        for _ in range(FLUSHES):
            started = time.perf_counter()
            file.write(bytes(8192))
            os.fdatasync(file)
            took.append(time.perf_counter() - started)
    Path(file.name).unlink()
    return statistics.median(took)


def longest_wait(dsn: str, statement: str) -> float:
    """Seconds of the longest write while another transaction had written and stayed open for a while."""
    longest = [0.0]

    def write(until: float) -> None:
        with psycopg.connect(dsn, autocommit=True) as other:
            while time.perf_counter() < until:
                started = time.perf_counter()
                other.execute(statement)
                longest[0] = max(longest[0], time.perf_counter() - started)

    with psycopg.connect(dsn) as holding:
        holding.execute(statement)
        until = time.perf_counter() + HELD
        writers = [threading.Thread(target=write, args=(until - 0.5,)) for _ in range(4)]
        for writer in writers:
            writer.start()
        time.sleep(HELD)
        holding.rollback()
        for writer in writers:
            writer.join()
    return longest[0]


class OldSnapshot:
    """An old snapshot for as long as the block, such as that of a report."""

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg.connect(dsn)

    def __enter__(self) -> None:
        self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        self._connection.execute("select count(*) from tocsin.event")

    def __exit__(self, *failure: object) -> None:
        self._connection.close()


class Comparison:
    """Compares counts with count(*), each in one snapshot, while the block runs."""

    def __init__(self, dsn: str) -> None:
        self.made = self.wrong = 0
        self._dsn = dsn
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._compare)

    def __enter__(self) -> Comparison:
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._done.set()
        self._thread.join()

    def _compare(self) -> None:
        dice = random.Random(11)
        counted = (
            f"select (select count(*) from {UNREAD.format('p.id')}) from unnest(%s::text[]) p (id)"
        )
        with psycopg.connect(self._dsn) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            while not self._done.wait(0.2):
                people = [
                    f"p{dice.randint(1, 3)}",
                    *(f"p{dice.randint(4, 200)}" for _ in range(40)),
                ]
                stored = connection.execute(
                    "select n from tocsin.unread_counts(%s)", (people,)
                ).fetchall()
                exact = connection.execute(counted, (people,)).fetchall()
                connection.rollback()
                self.made += len(people)
                self.wrong += sum(a != b for a, b in zip(stored, exact, strict=True))


def warm(dsn: str, *counted: str) -> None:
    """Counts for everybody once, so that no count is slower because it is the first to read a page."""
    for rows in counted:
        run(
            dsn,
            "set enable_seqscan = off; select sum((select count(*) from "
            + rows.format("p.recipient_id")
            + ")) from tocsin.recipient p",
        )


def run(dsn: str, statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statements)


if __name__ == "__main__":
    main()
