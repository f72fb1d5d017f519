"""What each further `tocsin serve` costs at 1,000 badge changes a second: 1, 4, 16 of them. `make bench-many-serves`.

Another process commits the changes, each for one of 200 people, whose streams are spread over all processes but the
last one, which has none: it shows what a process pays for changes that are not its own. Per change: CPU time of
PostgreSQL with all its backends, of one session that only listens, and of that process; and the time from COMMIT to the
bytes of the stream. No peer: it is about how far PostgreSQL's NOTIFY carries, where every process gets all of them.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise

import psycopg
from bench import cpu_limit, stage
from bench.record import Record, keep
from bench.service import Service, serve
from stream import OUR_PATH, Part, Took, part

PROCESSES = (1, 4, 16)
PEOPLE = 200
QUIET = 3.0  # seconds
CONNECTIONS = "4"  # of each process: 16 of them share PostgreSQL's 200


def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rate", type=int, default=1000, help="changes a second")
    options = parser.parse_args()
    latency: Took = defaultdict(list)
    used: Took = defaultdict(list)
    facts: dict[str, str | int] = {}
    lost = 0
    with stage.server() as running:
        for count in PROCESSES:
            name = f"{count} processes" if count > 1 else "1 process"
            with ExitStack() as stack:
                # a new database, so that none has the changes of another
                dsn = stack.enter_context(stage.database(running, "many_serves", rows=None))
                prepare(dsn)
                committer = stack.enter_context(part("bench.commits", dsn))
                served = start(stack, dsn, count)
                bench = Bench(dsn, committer, options.rate, options.seconds)
                stack.callback(bench.stop)
                reader = stack.enter_context(part("bench.streams"))
                open_streams(reader, served)
                facts[f"without changes, ms a second, {name}"] = bench.quiet(served[-1])
                for _ in range(options.rounds):
                    lost += bench.measure(name, reader, served[-1], latency, used)
                facts[f"changes a second that were reached, {name}"] = bench.reached
    keep(
        Record(
            "many-serves",
            f"From COMMIT to the bytes of a stream, {options.rate:,} changes a second",
            "ms",
            latency,
            facts={"changes that did not come": lost},
        ),
        Record(
            "many-serves-cpu",
            f"CPU of a change, {options.rate:,} changes a second",
            "µs",
            used,
            facts=facts,
        ),
    )


class Bench:
    """Commits at a steady rate, and what that costs."""

    def __init__(self, dsn: str, committer: Part, rate: int, seconds: float) -> None:
        self._committer = committer
        self._rate = rate
        self._seconds = seconds
        self._number = 1
        file = stage.HOME / "postgres" / "data" / "postmaster.pid"
        self._postgres = int(file.read_text().splitlines()[0])
        self._listening = psycopg.connect(dsn, autocommit=True)
        self._listening.execute("listen tocsin_badge")
        self._stopping = False
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()
        self.reached = 0

    def stop(self) -> None:
        self._stopping = True
        self._thread.join()
        self._listening.close()

    def quiet(self, idle: Service) -> str:
        """Returns the CPU time of a second without changes."""
        before = self._cpu(idle)
        time.sleep(QUIET)
        used = (
            1000 * (now - then) / QUIET for now, then in zip(self._cpu(idle), before, strict=True)
        )
        return "PostgreSQL {:.0f}, one that listens {:.0f}, the last process {:.0f}".format(*used)

    def measure(self, name: str, reader: Part, idle: Service, latency: Took, used: Took) -> int:
        """Measures one round; returns how many changes did not come."""
        first, count = self._number, int(self._rate * self._seconds)
        self._number += count
        before = self._cpu(idle)
        reader.send(collect=[first, count])
        committed = dict(
            self._committer.ask(
                how="notify", people=PEOPLE, rate=self._rate, seconds=self._seconds, first=first
            )
        )
        came = dict(reader.receive())
        postgres, listening, last = (
            1e6 * (now - then) / count for now, then in zip(self._cpu(idle), before, strict=True)
        )
        used[f"PostgreSQL, {name}"].append(postgres)
        used[f"one session that listens, {name}"].append(listening)
        if name != "1 process":  # which has the streams
            used[f"the process without streams, {name}"].append(last)
        took = max(committed.values()) - min(committed.values())
        self.reached = round(len(committed) / took)
        times = sorted(1000 * (came[each] - at) for each, at in committed.items() if each in came)
        latency[f"{name}, p50"].append(times[len(times) // 2])
        latency[f"{name}, p99"].append(times[int(0.99 * len(times))])
        return count - len(times)

    def _cpu(self, idle: Service) -> tuple[float, float, float]:
        pids = (self._postgres, self._listening.info.backend_pid, idle.process.pid)
        return stage.cpu(pids[0]), stage.cpu(pids[1]), stage.cpu(pids[2])

    def _receive(self) -> None:
        while not self._stopping:
            for _ in self._listening.notifies(timeout=0.5):
                pass


def start(stack: ExitStack, dsn: str, count: int) -> list[Service]:
    """Starts so many processes at once."""
    with ThreadPoolExecutor() as pool:
        started = [
            pool.submit(stack.enter_context, serve(dsn, max_connections=CONNECTIONS))
            for _ in range(count)
        ]
        return [each.result() for each in started]


def open_streams(reader: Part, served: list[Service]) -> None:
    """Opens the stream of each person, evenly at all processes but the last one."""
    serving = served[:-1] or served
    bounds = [PEOPLE * number // len(serving) for number in range(len(serving) + 1)]
    for each, (start, end) in zip(serving, pairwise(bounds), strict=True):
        reader.ask(open=[start, end], port=each.port, path=OUR_PATH, token=True)


def prepare(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute(
            "insert into tocsin.recipient (recipient_id) select 's' || i from generate_series(1, %s) i",
            (PEOPLE,),
        )
        owner.execute("analyze tocsin.recipient")


if __name__ == "__main__":
    main()
