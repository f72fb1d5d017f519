"""The peers of the engine: job queues, each with the options that a short trial found to be the fastest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from psycopg.conninfo import conninfo_to_dict

from bench.peer import PEERS, PYTHON, Peer, peer
from bench.rounds import until
from bench.stage import HOME, free_port, program

EACH = "Procrastinate, one job a delivery"
BATCH = "Procrastinate, 500 a job, no-op"
RECORDED = "Procrastinate, 500 a job, each recorded"
CELERY = "Celery on Redis"
GRAPHILE = "graphile-worker, batched"
BOSS = "pg-boss, 500 at once"
T = TypeVar("T")
_KINDS = {EACH: "each", BATCH: "batch", RECORDED: "recorded"}


@dataclass(frozen=True)
class Queue:
    """One peer: its measurement in jobs a second, and what a trial chose."""

    measure: Callable[[], float]
    chosen: str
    versions: dict[str, str]


@contextmanager
def queues(dsn: str, *, jobs: int, tasks: int, batched: int) -> Iterator[dict[str, Queue]]:
    """Yields all peers by name; a round has `jobs` of Procrastinate's one a delivery, `tasks` of Celery's."""
    with ExitStack() as stack:
        worker = stack.enter_context(peer("procrastinate_jobs.py", dsn, runner=sys.executable))
        found = procrastinate(worker, jobs, batched)
        found[CELERY] = stack.enter_context(celery(tasks))
        found[GRAPHILE] = graphile(stack.enter_context(_node("graphile_worker.mjs", dsn)), batched)
        found[BOSS] = boss(stack.enter_context(_node("pg_boss.mjs", dsn)), batched)
        yield found


def procrastinate(worker: Peer, jobs: int, batched: int) -> dict[str, Queue]:
    """One worker, with the best concurrency for each kind of job."""
    found = {}
    for name, kind in _KINDS.items():
        count = {"each": jobs, "batch": batched, "recorded": batched // 4}[kind]
        widths = (1, 4, 16, 64) if kind == "each" else (1, 4)

        def seconds(width: int, count: int, kind: str = kind) -> float:
            return float(worker.ask(count=count, concurrency=width, kind=kind))

        best = _fastest(widths, lambda width, count=count, ask=seconds: ask(width, count // 4))
        found[name] = Queue(
            lambda count=count, ask=seconds, best=best: count / ask(best, count),
            f"{best} at once",
            worker.versions,
        )
    return found


def graphile(worker: Peer, count: int) -> Queue:
    worker.ask(count=count // 4)
    return Queue(lambda: count / worker.ask(count=count), "24 at once", worker.versions)


def boss(worker: Peer, count: int) -> Queue:
    worker.ask(count=count // 4, loops=1)
    best = _fastest((1, 2, 4), lambda loops: worker.ask(count=count // 4, loops=loops))
    return Queue(
        lambda: count / worker.ask(count=count, loops=best), f"{best} loops", worker.versions
    )


def _fastest(options: Sequence[T], seconds: Callable[[T], float]) -> T:
    """Returns the option whose trial took the shortest time."""
    trials = {option: seconds(option) for option in options}
    return min(trials, key=lambda option: trials[option])


@contextmanager
def _node(script: str, dsn: str) -> Iterator[Peer]:
    """A process of Node's, which takes the database as a URL."""
    parts = conninfo_to_dict(dsn)
    url = "postgres://{user}:{password}@{host}:{port}/{dbname}".format(**parts)
    with peer(f"node/{script}", url, runner="node") as worker:
        yield worker


@contextmanager
def celery(count: int) -> Iterator[Queue]:
    """Celery on a Redis of its own, with the fastest of its pools."""
    port = free_port()
    redis = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(HOME)]
    with program(*redis, log=HOME / "redis.log"):
        _listens(port)
        with peer("celery_tasks.py", str(port)) as tasks:

            def trial(pools: tuple[str, ...]) -> float:
                with _celery_workers(port, pools):
                    tasks.ask(count=100 * len(pools))
                    return float(tasks.ask(count=count // 5))

            best = _fastest((("prefork",), ("threads",), ("solo",), ("solo", "solo")), trial)
            with _celery_workers(port, best):
                tasks.ask(count=100 * len(best))
                chosen = " and ".join(best)
                yield Queue(lambda: count / tasks.ask(count=count), chosen, tasks.versions)


@contextmanager
def _celery_workers(port: int, pools: tuple[str, ...]) -> Iterator[None]:
    """Workers without options that cost time and aren't needed."""
    script = PEERS / "celery_worker.py"
    with ExitStack() as stack:
        for number, pool in enumerate(pools):
            command = (PYTHON, script, str(port), pool, str(number))
            stack.enter_context(program(*command, log=HOME / "celery.log"))
        yield


def _listens(port: int) -> None:
    """Waits for Redis."""
    ping = ["redis-cli", "-p", str(port), "ping"]
    until(lambda: subprocess.run(ping, capture_output=True).stdout.strip() == b"PONG")
