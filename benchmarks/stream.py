"""Milliseconds from an app's COMMIT to the bytes of a stream, with 100 to 5,000 streams open. `make bench-stream`.

One `tocsin serve`; another process commits 100 and 1,000 changes a second in PostgreSQL, each for one of the people
whose streams a third process reads by epoll. The clock starts when COMMIT is sent. Peer: nginx with nchan, fed by
one LISTEN; its changes are a row of the app's own table with a NOTIFY in the same transaction, its streams check no
token, count nothing, and keep a message for a minute. Floor: a bare LISTEN that receives the same notifications.

Also: the same while 32 clients notify other people as fast as possible, which has no peer; and the memory of a stream
in new processes, five times.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from bench import cpu_limit, stage
from bench.commits import CHANNEL
from bench.nchan import PATH, nchan, version
from bench.record import Goal, Record, keep
from bench.service import serve

HERE = Path(__file__).parent
STREAMS = (100, 1000, 5000)
RATES = (100, 1000)
OURS, PEER, FLOOR = "tocsin", "nginx + nchan", "floor: bare LISTEN"
LIMIT = "the limit that was set"
OUR_PATH = "/api/notifications/stream/"
MOST_LATENCY, MOST_MEMORY = 15.0, 15.0  # milliseconds, kB
LOADED = "tocsin, 1,000 streams, 100/s, 32 clients notify, p99 (no peer)"
MEMORY_STREAMS = 1000
Took = dict[str, list[float]]


def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    options = parser.parse_args()
    with ExitStack() as stack:
        running = stack.enter_context(stage.server())
        dsn = stack.enter_context(stage.database(running, "stream"))
        prepare(dsn)
        served = stack.enter_context(serve(dsn))
        nchan_port, nchan_worker = stack.enter_context(nchan(dsn))
        bench = Bench(
            dsn,
            reader=stack.enter_context(part("bench.streams")),
            committer=stack.enter_context(part("bench.commits", dsn)),
        )
        stack.callback(bench.stop)
        ports = {OURS: served.port, PEER: nchan_port}
        pids = {OURS: served.process.pid, PEER: nchan_worker}
        empty = {name: stage.rss(pid) for name, pid in pids.items()}
        memory = measure_memory(dsn, options.rounds)
        opened = 0
        for streams in STREAMS:
            for name, port in ports.items():
                bench.open(name, port, opened, streams)
            opened = streams
            for number in range(options.rounds):
                for rate in RATES:
                    for name in turned([OURS, PEER, FLOOR], number):
                        bench.measure(name, streams, rate, options.seconds)
                if streams == 1000:
                    with loaders(dsn):
                        bench.measure(OURS, streams, 100, options.seconds, LOADED)
        for name, pid in pids.items():
            used = (stage.rss(pid) - empty[name]) / opened / 1000
            memory[f"{name}, {opened:,} streams, after all"] = [used]
    keep(latency(bench, options.rounds), per_stream(memory))


def latency(bench: Bench, rounds: int) -> Record:
    measured = dict(bench.took) | {LIMIT: [MOST_LATENCY] * rounds}
    return Record(
        "stream",
        "From COMMIT to the bytes of a stream",
        "ms",
        measured,
        goals=[
            *(
                Goal(
                    label(OURS, streams, rate, "p50"), label(PEER, streams, rate, "p50"), at_most=5
                )
                for streams in STREAMS
                for rate in RATES
            ),
            Goal(LOADED, LIMIT, at_most=1),
        ],
        facts={f"changes that did not come, {name}": each for name, each in bench.lost.items()},
        kept={"each change came to our streams": not bench.lost[OURS]},
        versions={"nginx": version()},
    )


def per_stream(memory: Took) -> Record:
    fresh = memory_label(OURS)
    return Record(
        "stream-memory",
        "Memory of an open stream",
        "kB",
        memory | {LIMIT: [MOST_MEMORY] * len(memory[fresh])},
        goals=[Goal(fresh, LIMIT, at_most=1)],
        versions={"nginx": version()},
    )


def measure_memory(dsn: str, rounds: int) -> Took:
    """Kilobytes of a stream in new processes, after a thousand were opened at once."""
    memory: Took = defaultdict(list)
    for _ in range(rounds):
        with ExitStack() as stack:
            served = stack.enter_context(serve(dsn))
            nchan_port, nchan_worker = stack.enter_context(nchan(dsn))
            for name, port, pid, path in (
                (OURS, served.port, served.process.pid, OUR_PATH),
                (PEER, nchan_port, nchan_worker, PATH),
            ):
                reader, before = stack.enter_context(part("bench.streams")), stage.rss(pid)
                reader.ask(open=[0, MEMORY_STREAMS], port=port, path=path, token=name == OURS)
                used = (stage.rss(pid) - before) / MEMORY_STREAMS / 1000
                memory[memory_label(name)].append(used)
    return memory


def memory_label(name: str) -> str:
    return f"{name}, {MEMORY_STREAMS:,} streams, new process"


class Bench:
    """The processes of a measurement: the one that commits, and the one that reads."""

    def __init__(self, dsn: str, *, reader: Part, committer: Part) -> None:
        self.took: Took = defaultdict(list)
        self.lost = dict.fromkeys((OURS, PEER, FLOOR), 0)
        self._reader = reader
        self._committer = committer
        self._floor = Floor(dsn)
        self._number = 1

    def open(self, name: str, port: int, opened: int, streams: int) -> None:
        path = OUR_PATH if name == OURS else PATH
        self._reader.ask(open=[opened, streams], port=port, path=path, token=name == OURS)

    def measure(
        self, name: str, streams: int, rate: int, seconds: float, only: str | None = None
    ) -> None:
        how = "notify" if name == OURS else "insert"
        first, count = self._number, int(rate * seconds)
        self._number += count
        self._reader.send(collect=[first, 0 if name == FLOOR else count])
        committed = dict(
            self._committer.ask(how=how, people=streams, rate=rate, seconds=seconds, first=first)
        )
        came = dict(self._reader.receive())
        received = self._floor.collect(count if how == "insert" else 0)
        if name == FLOOR:
            came = received
        times = sorted(1000 * (came[each] - at) for each, at in committed.items() if each in came)
        self.lost[name] += count - len(times)
        quantiles = {"p50": times[len(times) // 2], "p99": times[int(0.99 * len(times))]}
        for which, value in quantiles.items():
            if only is None:
                self.took[label(name, streams, rate, which)].append(value)
            elif f", {which}" in only:
                self.took[only].append(value)

    def stop(self) -> None:
        self._floor.stop()


class Floor:
    """A connection that receives the notifications that feed the peer."""

    def __init__(self, dsn: str) -> None:
        self._came: dict[int, float] = {}
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._connection.execute(f"listen {CHANNEL}")
        self._stopping = False
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def collect(self, count: int) -> dict[int, float]:
        deadline = time.monotonic() + 2
        while len(self._came) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        came, self._came = self._came, {}
        return came

    def stop(self) -> None:
        self._stopping = True
        self._thread.join()
        self._connection.close()

    def _receive(self) -> None:
        while not self._stopping:
            for notice in self._connection.notifies(timeout=0.5):
                now = time.monotonic()
                self._came[int(notice.payload.split()[-1].rstrip(";"))] = now


class Part:
    """A process of this benchmark that replies to each line with a line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.receive()

    def ask(self, **asked: Any) -> Any:
        self.send(**asked)
        return self.receive()

    def send(self, **asked: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()

    def receive(self) -> Any:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise SystemExit(f"{self._process.args} ended")
        return json.loads(line)


@contextmanager
def part(module: str, *arguments: str) -> Iterator[Part]:
    with subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=HERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield Part(process)
        finally:
            process.kill()


@contextmanager
def loaders(dsn: str) -> Iterator[None]:
    """32 clients that notify people without a stream, one call after the other."""
    module = [sys.executable, "-m", "bench.loaders", dsn]
    with stage.program(*module, environ={"PYTHONPATH": str(HERE)}):
        time.sleep(1.5)
        yield
    time.sleep(0.5)


def prepare(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute(
            "insert into tocsin.recipient (recipient_id) select 's' || i from generate_series(1, %s) i",
            (STREAMS[-1],),
        )
        owner.execute(
            "create table peer_inbox (id bigserial primary key, recipient text, title text)"
        )
        owner.execute("create index on peer_inbox (recipient)")
        owner.execute("analyze tocsin.recipient")


def turned(names: list[str], number: int) -> list[str]:
    turn = number % len(names)
    return names[turn:] + names[:turn]


def label(name: str, streams: int, rate: int, which: str) -> str:
    return f"{name}, {streams:,} streams, {rate:,}/s, {which}"


if __name__ == "__main__":
    main()
