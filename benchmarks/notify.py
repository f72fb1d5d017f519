"""notify() calls a second, each a transaction of its own, and the time from COMMIT to the HTTP process.

One person with an address and a device gets a forum.new_reply: an event, a notification, a badge, two deliveries and
two entries of the event queue, in a database with a million notifications. `tocsin serve` runs beside it as the leader,
which scans, folds and makes jobs as in production; no workers run, since this is about the caller's side.

In SQL, by pgbench: notify(); the same with a NOTIFY in each transaction; without the wake-up signal (its own source
without it); and the floor, the same rows inserted by a function that has nothing to decide (bench/insert_only.sql).

From Python, a process for each client: `tocsin.client.notify()`; Celery's `delay()` on Redis as Debian configures it
(snapshots, no append-only file: a crash loses the latest tasks); Procrastinate's `defer()` on a schema of its own in
the same database; a Django model's `create()` with a Celery `delay()` on commit.

Then the time from COMMIT's return to the stream's bytes at its reader: idle, beside 32 clients, and with transactions
that are held open for a random time, 15 % of them rolled back.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from bench import cpu_limit, stage
from bench.commit_to_stream import Latencies, measure_latencies
from bench.listening import SECRET, serving, settle
from bench.peer import Peer, peer
from bench.pgbench import Pgbench
from bench.record import Goal, Record, keep
from bench.rounds import Measured, in_turns
from procrastinate.schema import SchemaManager
from psycopg.conninfo import make_conninfo

CLIENTS = (1, 8, 32)
SECONDS = 1  # of each contender in a round, after its warm-up
FLOOR = Path(__file__).parent / "bench" / "insert_only.sql"

OURS, EACH, SILENT, INSERTS = "notify()", "a NOTIFY each", "no wake-up signal", "the rows alone"
CLIENT, CELERY, DEFER, DJANGO = (
    "Python notify()",
    "Celery delay()",
    "Procrastinate defer()",
    "Django + on_commit",
)
_PERSON = "\\set k random(0, 1998)\n\\set p 5 * :k + 1\n\\set d 3 * :k + 1\n"
_CONTENT = (
    "'New reply in ''Spring Formal Planning''', 'Bob: I would book the old mill by the lake, it has room for 40 of us "
    "and a kitchen of its own.', '/forums/7', '{\"thread\": 7}'"
)
_NOTIFY = f"notify('forum.new_reply', array['p' || :p], {_CONTENT})"
SCRIPTS = {
    OURS: f"{_PERSON}select tocsin.{_NOTIFY};\n",
    EACH: f"{_PERSON}select tocsin.{_NOTIFY}, pg_notify('bench', '');\n",
    SILENT: f"{_PERSON}select bench.{_NOTIFY};\n",
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
        redis(Path(folder)) as redis_url,
    ):
        prepare(dsn)
        port = stage.free_port()
        with serving(dsn, port), peers(dsn, redis_url) as callers:
            measured = rates(dsn, Path(folder), callers, rounds)
            load = Pgbench(dsn, SCRIPTS, Path(folder)).command(OURS, clients=32, seconds=12)
            with psycopg.connect(dsn, autocommit=True) as owner:
                latencies = asyncio.run(
                    measure_latencies(dsn, port, SECRET, load, lambda: settle(owner))
                )
            versions = {
                name: text for caller in callers.values() for name, text in caller.versions.items()
            }
    keep(record(measured, versions), latencies_record(latencies))


def prepare(dsn: str) -> None:
    """Creates the floor, notify() without a wake-up signal, the peer's queue, and providers as workers report them."""
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute(FLOOR.read_text(encoding="utf-8"))
        for name in ("create_event_for_one", "create_event", "notify"):
            owner.execute(without_bell(owner, name))
        owner.execute("update tocsin.channel set available = true")
        owner.execute("create schema peer_queue")
        owner.execute("set search_path = peer_queue")
        owner.execute(SchemaManager.get_schema())
        owner.execute(
            "insert into procrastinate_jobs (queue_name, task_name, args, status)"
            " select 'email', 'notify', '{}', 'succeeded' from generate_series(1, 50000)"
        )
        owner.execute("analyze procrastinate_jobs")


def without_bell(owner: psycopg.Connection, name: str) -> str:
    """Returns a copy of one of our functions in the schema bench, without the wake-up signal."""
    row = owner.execute(
        "select pg_get_functiondef(oid) from pg_proc where proname = %s and pronamespace = 'tocsin'::regnamespace",
        (name,),
    ).fetchone()
    assert row is not None
    source = (
        str(row[0])
        .replace(f"tocsin.{name}(", f"bench.{name}(")
        .replace("tocsin.create_event(", "bench.create_event(")
        .replace("tocsin.create_event_for_one(", "bench.create_event_for_one(")
    )
    silent = source.replace("if tocsin.leader_is_idle() then", "if false then")
    assert silent != source or name == "notify", "the wake-up signal has moved"
    return silent


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Redis as Debian configures it, except for its folder: snapshots, no append-only file."""
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
    with stage.program(*command, *more):
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def peers(dsn: str, redis_url: str) -> Iterator[dict[str, Peer]]:
    """Yields the process that calls from Python."""
    queue = make_conninfo(dsn, options="-c search_path=peer_queue")
    with ExitStack() as stack:
        yield {
            CLIENT: stack.enter_context(peer("callers.py", "tocsin", dsn, runner=sys.executable)),
            CELERY: stack.enter_context(peer("callers.py", "celery", redis_url)),
            DEFER: stack.enter_context(
                peer("callers.py", "procrastinate", queue, runner=sys.executable)
            ),
            DJANGO: stack.enter_context(peer("callers.py", "django", dsn, redis_url)),
        }


def rates(dsn: str, folder: Path, callers: dict[str, Peer], rounds: int) -> Measured:
    """Calls a second of each contender at each width."""
    pgbench = Pgbench(dsn, SCRIPTS, folder)
    with psycopg.connect(dsn, autocommit=True) as owner:

        def in_sql(name: str, clients: int) -> float:
            settle(owner)
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
            if clients == 32 or name not in (EACH, SILENT)
        }
        return in_turns(contenders, rounds)


def record(measured: Measured, versions: dict[str, str]) -> Record:
    goals = [
        Goal(f"{OURS}, 32", f"{INSERTS}, 32", at_least=0.85),
        Goal(f"{OURS}, 32", f"{SILENT}, 32", at_least=0.85),
        Goal(f"{OURS}, 32", f"{EACH}, 32", at_least=3),
    ]
    goals += [Goal(f"{CLIENT}, {n}", f"{CELERY}, {n}", at_least=1) for n in CLIENTS]
    return Record(
        name="notify",
        title="notify(), one person a call, with 1, 8 and 32 clients",
        unit="calls/s",
        measured=measured,
        goals=goals,
        versions=versions,
    )


def latencies_record(latencies: Latencies) -> Record:
    return Record(
        name="notify-latency",
        title="COMMIT to the bytes of the HTTP process' stream",
        unit="ms",
        measured=latencies.measured(),
        kept={
            "idle: p99 <= 5 ms": latencies.p99("idle") <= 5,
            "beside 32 clients: p99 <= 50 ms": latencies.p99("beside 32 clients") <= 50,
            "transactions held open at random: none later than 50 ms": latencies.most(
                "held at random"
            )
            <= 50,
        },
        facts={"commits": latencies.counts()},
    )


if __name__ == "__main__":
    main()
