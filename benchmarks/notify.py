"""notify() calls a second, each a transaction of its own, and the time from COMMIT to the HTTP process.

One person with an address and a device gets a forum.new_reply: an event, a notification, a badge, two deliveries and
two entries of the event queue, in a database with a million notifications. `tocsin serve` runs beside it as the leader,
which scans, folds and makes jobs as in production; no workers run, since this is about the caller's side. The leader is
woken all the time, in all columns alike, so that the machine has the same work beside each (bench/floors.py).

In SQL, by pgbench: notify(); the same with a NOTIFY in each transaction; without the wake-up signal (its own source
without it); for a person with preferences, with an idempotency key, for two people; and the floor, the same rows
inserted by a function that has nothing to decide (bench/insert_only.sql).

From Python, a process for each client: `tocsin.client.notify()`; Celery's `delay()` on Redis as Debian configures it
(snapshots, no append-only file: a crash loses the latest tasks); both with the other's durability, so Celery with
`appendfsync always` and Tocsin with `synchronous_commit = off`; Procrastinate's `defer()` on a schema of its own in the
same database; a Django model's `create()` with a Celery `delay()` on commit.

Then the time from sending COMMIT to the stream's bytes at its reader: for isolated commits, beside 32 clients, and with
transactions that are held open for a random time, 15 % of them rolled back.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from bench import cpu_limit, floors, stage
from bench.commit_to_stream import HELD, IDLE, LOADED, Latencies, measure_latencies
from bench.listening import SECRET, serving, settle
from bench.peer import Peer, peer
from bench.pgbench import Pgbench
from bench.record import Goal, Record, keep
from bench.rounds import Measured, in_turns
from procrastinate.schema import SchemaManager
from psycopg.conninfo import make_conninfo

CLIENTS = (1, 8, 32)
SECONDS = 1  # of each contender in a round, after its warm-up
OURS, EACH, SILENT, INSERTS = "notify()", "a NOTIFY each", "no wake-up signal", "the rows alone"
CHOOSY, KEYED, TWO = "with preferences", "with an idempotency key", "for two people"
CLIENT, CELERY, DEFER, DJANGO = (
    "Python notify()",
    "Celery delay()",
    "Procrastinate defer()",
    "Django + on_commit",
)
SYNCED, UNSYNCED = "Celery delay(), fsync always", "Python notify(), synchronous_commit off"
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
# at all widths; the others with 32 clients, and the two main ones in SQL with one
EVERYWHERE = (CLIENT, CELERY, SYNCED, UNSYNCED)
_PERSON = "\\set k random(0, 1998)\n\\set p 5 * :k + 1\n\\set d 3 * :k + 1\n"
_CONTENT = (
    "'New reply in ''Spring Formal Planning''', 'Bob: I would book the old mill by the lake, it has room for 40 of us "
    "and a kitchen of its own.', '/forums/7', '{\"thread\": 7}'"
)
_KEY = ", idempotency_key => 'key-' || :r"
_PEOPLE = "'p' || :p, 'p' || :q"


def call(people: str = "'p' || :p", more: str = "") -> str:
    return f"notify('forum.new_reply', array[{people}], {_CONTENT}{more})"


SCRIPTS = {
    OURS: f"{_PERSON}select tocsin.{call()};\n",
    EACH: f"{_PERSON}select tocsin.{call()}, pg_notify('bench', '');\n",
    SILENT: f"{_PERSON}select bench.{call()};\n",
    CHOOSY: f"\\set p 10 * random(1, 999)\nselect tocsin.{call()};\n",
    KEYED: (f"{_PERSON}\\set r random(1, 1000000000000)\nselect tocsin.{call(more=_KEY)};\n"),
    TWO: (f"{_PERSON}\\set q 5 * random(0, 1998) + 1\nselect tocsin.{call(_PEOPLE)};\n"),
    INSERTS: f"{_PERSON}select bench.insert_only('p' || :p, :d, {_CONTENT});\n",
}


def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with (
        stage.server() as server,
        stage.database(server, "notify") as dsn,
        TemporaryDirectory(prefix="tocsin-bench-") as folder,
        redis(Path(folder) / "default") as redis_url,
        redis(Path(folder) / "durable", *DURABLE) as durable_url,
    ):
        prepare(dsn)
        port = stage.free_port()
        with serving(dsn, port) as serve, peers(dsn, redis_url, durable_url) as callers:
            shares: Measured = defaultdict(list)
            measured = rates(dsn, Path(folder), callers, rounds, Leader(serve, shares))
            load = Pgbench(dsn, SCRIPTS, Path(folder)).command(OURS, clients=32, seconds=12)
            with psycopg.connect(dsn, autocommit=True) as owner:
                latencies = asyncio.run(
                    measure_latencies(dsn, port, SECRET, load, lambda: settle(owner))
                )
            versions = {
                name: text for caller in callers.values() for name, text in caller.versions.items()
            }
    keep(record(measured, shares, versions), latencies_record(latencies))


def prepare(dsn: str) -> None:
    """Creates the floor, notify() without a wake-up signal, the peer's queue, and providers as workers report them."""
    with psycopg.connect(dsn, autocommit=True) as owner:
        floors.create(owner)
        owner.execute("update tocsin.channel set available = true")
        owner.execute("create schema peer_queue")
        owner.execute("set search_path = peer_queue")
        owner.execute(SchemaManager.get_schema())
        owner.execute(
            "insert into procrastinate_jobs (queue_name, task_name, args, status)"
            " select 'email', 'notify', '{}', 'succeeded' from generate_series(1, 50000)"
        )
        owner.execute("analyze procrastinate_jobs")


@contextmanager
def redis(folder: Path, *options: str) -> Iterator[str]:
    """Redis as Debian configures it, except for its folder and these options: snapshots, no append-only file."""
    folder.mkdir()
    port = stage.free_port()
    command = ("redis-server", "/etc/redis/redis.conf", "--port", str(port), "--dir", str(folder))
    more = (
        "--daemonize",
        "no",
        "--supervised",
        "no",
        "--pidfile",
        "",
        "--logfile",
        "",
        "--unixsocket",
        "",
    )
    with stage.program(*command, *more, *options):
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def peers(dsn: str, redis_url: str, durable_url: str) -> Iterator[dict[str, Peer]]:
    """Yields the process that calls from Python."""
    queue = make_conninfo(dsn, options="-c search_path=peer_queue")
    unsynced = make_conninfo(dsn, options="-c synchronous_commit=off")
    with ExitStack() as stack:
        yield {
            CLIENT: stack.enter_context(peer("callers.py", "tocsin", dsn, runner=sys.executable)),
            CELERY: stack.enter_context(peer("callers.py", "celery", redis_url)),
            SYNCED: stack.enter_context(peer("callers.py", "celery", durable_url)),
            UNSYNCED: stack.enter_context(
                peer("callers.py", "tocsin", unsynced, runner=sys.executable)
            ),
            DEFER: stack.enter_context(
                peer("callers.py", "procrastinate", queue, runner=sys.executable)
            ),
            DJANGO: stack.enter_context(peer("callers.py", "django", dsn, redis_url)),
        }


class Leader:
    """Records the share of a CPU that `tocsin serve` takes beside each contender in SQL."""

    def __init__(self, pid: int, shares: Measured) -> None:
        self._pid, self._shares = pid, shares

    @contextmanager
    def recorded(self, name: str) -> Iterator[None]:
        started, before = time.monotonic(), stage.cpu(self._pid)
        yield
        share = (stage.cpu(self._pid) - before) / (time.monotonic() - started)
        self._shares[name].append(share)


def rates(
    dsn: str, folder: Path, callers: dict[str, Peer], rounds: int, leader: Leader
) -> Measured:
    """Calls a second of each contender at each width."""
    pgbench = Pgbench(dsn, SCRIPTS, folder)
    with psycopg.connect(dsn, autocommit=True) as owner:

        def in_sql(name: str, clients: int) -> float:
            settle(owner)
            with leader.recorded(f"{name}, {clients}"):
                return pgbench.rate(name, clients=clients, seconds=SECONDS)

        def in_python(name: str, clients: int) -> float:
            settle(owner)
            return int(callers[name].ask(clients=clients, seconds=SECONDS)) / SECONDS

        contenders = {
            f"{name}, {clients}": lambda name=name, clients=clients, measure=measure: measure(
                name, clients
            )
            for names, measure in ((SCRIPTS, in_sql), (callers, in_python))
            for clients in CLIENTS
            for name in names
            if measured_at(name, clients)
        }
        with floors.awake(dsn):
            return in_turns(contenders, rounds)


def measured_at(name: str, clients: int) -> bool:
    if name in EVERYWHERE or clients == 32:
        return True
    return clients == 1 and name in (OURS, INSERTS)


def record(measured: Measured, shares: Measured, versions: dict[str, str]) -> Record:
    goals = [
        Goal(f"{OURS}, 32", f"{INSERTS}, 32", at_least=0.85),
        Goal(f"{OURS}, 32", f"{SILENT}, 32", at_least=0.9),
        Goal(f"{OURS}, 32", f"{EACH}, 32", at_least=3),
    ]
    for ours, theirs, ratio in (
        (CLIENT, CELERY, 1),
        (CLIENT, SYNCED, 1.3),
        (UNSYNCED, CELERY, 1.3),
    ):
        goals += [Goal(f"{ours}, {n}", f"{theirs}, {n}", at_least=ratio) for n in CLIENTS]
    return Record(
        name="notify",
        title="notify(), one person a call, with 1, 8 and 32 clients",
        unit="calls/s",
        measured=measured,
        goals=goals,
        facts={
            f"% of a CPU that serve takes beside {name}": round(100 * statistics.median(shares))
            for name, shares in shares.items()
        },
        versions=versions,
    )


def latencies_record(latencies: Latencies) -> Record:
    return Record(
        name="notify-latency",
        title="Sending COMMIT to the bytes of the HTTP process' stream",
        unit="ms",
        measured=latencies.measured(),
        kept={
            "isolated commits: p99 <= 5 ms": latencies.p99(IDLE) <= 5,
            "beside 32 clients: p99 <= 15 ms": latencies.p99(LOADED) <= 15,
            "transactions held open at random: none later than 50 ms": latencies.most(HELD) <= 50,
        },
        facts={"commits": latencies.counts()},
    )


if __name__ == "__main__":
    main()
