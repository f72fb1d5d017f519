"""What each part of a load costs, and how well the sum of these costs predicts a mixed load. `make bench-scaling`.

Measured are the CPU time of PostgreSQL, of its standby, and of `tocsin serve` and `tocsin worker`, the WAL without its
full-page images, and the growth of the tables. Operations are made 5, 40 and 250 times a second: what is noticed
together shares a part of the cost. Autovacuum is off; its work is measured as one `vacuum` at the end. The check is
another load, of all operations at once, by two `serve` and three `worker`.

All processes run on this machine, on loopback; mail server, APNs, FCM and Web Push are local and always accept. `--add`
keeps the rounds of earlier runs, `--check` only makes the check.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from bench import cpu_limit, stage
from bench.listening import leads
from bench.paced_load import AT_ONCE, PEOPLE, PacedLoad, finish, prepare
from bench.record import RESULTS, machine
from bench.rounds import until
from bench.scaling_model import (
    GROUPS,
    PACED,
    RATES,
    STREAM,
    WAL,
    Costs,
    Load,
    fit,
    plus,
    predict,
    times,
)
from bench.service import Service, serve, worker
from bench.standby import standby
from soak import far_ends
from stream import OUR_PATH, Part, part

from tocsin.dev.embedded_postgres import Postgres
from tocsin.settings.keys import new_vapid_key

SECONDS = dict(zip(RATES, (8.0, 4.0, 3.0), strict=True))
IDLE_SECONDS = 4.0
WARM_SECONDS = 3.0
WARM = ("mail", "push", "web push", "stream", "fan-out with mail", "count", "list", "mark read")
STREAMS = 200  # whose people are notified
IDLE_STREAMS = 1_000
CHECK_SECONDS = 40.0
# calls a second of the check
CHECK = {
    "notify": 40.0,
    "mail": 15.0,
    "push": 35.0,
    "stream": 15.0,
    "fan-out": 0.3,
    "fan-out with mail": 0.5,
    "count": 100.0,
    "list": 10.0,
    "mark read": 15.0,
}
GROWING = ("event", "notification", "delivery", "attempt")
SIZED = {"notify": "billing.bench", "mail": "billing.bench_mail", "push": "billing.bench_push"}
BULK = 2_000
SIZES = f"""
    select sum(pg_total_relation_size('tocsin.' || name))
    from unnest(array{list(GROWING)}) name
"""
EACH_ITS_OWN = """
    select tocsin.notify(%s, array[%s || (1 + i %% 2000)], 'New reply', 'Bob: the mill it is.', '/f/7')
    from generate_series(1, %s::integer) i
"""
TABLES = """
    select oid::regclass::text
    from pg_class
    where relnamespace in ('tocsin'::regnamespace, 'tocsin_queue'::regnamespace) and relkind = 'r'
"""
WRITTEN = "select sum(record_size), sum(fpi_size) from pg_get_wal_stats(%s, %s)"
SENDER = "select pid from pg_stat_replication"


def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--add", action="store_true", help="keep the rounds of earlier runs")
    parser.add_argument("--check", action="store_true", help="only the check")
    options = parser.parse_args()
    file = RESULTS / cpu_limit.folder() / "scaling.json"
    kept = json.loads(file.read_text("utf-8")) if file.exists() else {}
    rounds = kept.get("rounds", []) if options.add or options.check else []
    with stage.server() as running:
        for _ in range(0 if options.check else options.rounds):
            with installed(running) as bench:
                rounds.append(bench.measure())
        with installed(running) as bench:
            check = bench.check()
    keep(file, rounds, check)


def keep(file: Path, rounds: list[dict[str, Costs]], check: dict[str, Any]) -> None:
    model = fit(rounds)
    load = Load(**check["load"])
    predicted = predict(model, load)
    check["predicted"] = {name: float(f"{value:.5g}") for name, value in predicted.items()}
    written = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "goals": [],
        "disk": disk(rounds),
        "check": check,
        "rounds": rounds,
    }
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    for name, value in predicted.items():
        measured = check["measured"][name]
        print(f"{name:<12} measured {measured:>14,.0f}  predicted {value:>14,.0f}", end="")
        print(f"  {value / measured - 1:+.0%}" if measured else "")


def disk(rounds: list[dict[str, Costs]]) -> dict[str, float]:
    """Returns the bytes of each thing that is kept until the clean-up."""
    sizes = {name: sorted(each["sizes"][name] for each in rounds) for name in SIZED}
    middle = {name: values[len(values) // 2] for name, values in sizes.items()}
    return {
        "notify": round(middle["notify"]),
        "mail": round(middle["mail"] - middle["notify"]),
        "push": round(middle["push"] - middle["notify"]),
    }


class Bench:
    """An installation in a database of its own, with a standby."""

    def __init__(self, stack: ExitStack, running: Postgres, dsn: str, standby_pid: int) -> None:
        self._dsn = dsn
        self._owner = stack.enter_context(psycopg.connect(dsn, autocommit=True))
        self._admin = stack.enter_context(
            psycopg.connect(running.superuser_dsn, autocommit=True, dbname="postgres")
        )
        self._admin.execute("create extension if not exists pg_walinspect")
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="tocsin-scaling-")))
        self._settings = far_ends(stack, folder) | {
            "vapid_key": new_vapid_key(),
            "allow_private_endpoints": "1",
        }
        prepare(self._owner, browsers(stack))
        self._fixed = {"postgres": running.pid, "standby": standby_pid}
        self._runner = stack.enter_context(asyncio.Runner())
        self._load = PacedLoad(dsn)
        self._runner.run(self._load.open())
        stack.callback(lambda: self._runner.run(self._load.close()))
        self._serves: list[Service] = []
        self._workers: list[Popen[bytes]] = []
        self._idle: Costs = {}

    def measure(self) -> dict[str, Costs]:
        """Measures each part once."""
        parts: dict[str, Costs] = {"people of a fan-out": {"count": AT_ONCE}}
        with ExitStack() as stack:
            self._start(stack, serves=1, workers=1)
            parts["idle"] = self._idle = self._rest()
            for name in (name for name in PACED if name != STREAM):
                parts |= self._at_all_rates(name)
            parts["fan-out"] = self._part("fan-out", 2.0, 5.0) | {"rate": 2.0}
            parts["fan-out with mail"] = self._part("fan-out with mail", 2.0, 5.0)
            parts["count"] = self._part("count", 100.0, 4.0)
            parts["list"] = self._part("list", 40.0, 4.0)
            parts["sizes"] = self._sizes()
            with part("bench.streams") as reader:
                self._open_streams(reader, STREAMS)
                parts |= self._at_all_rates(STREAM)
            with part("bench.streams") as reader:
                self._open_streams(reader, IDLE_STREAMS)
                parts["idle, streams"] = self._rest(3 * IDLE_SECONDS)
                parts["streams"] = {"count": IDLE_STREAMS}
            with ExitStack() as more:
                self._start(more, serves=2)
                parts["idle, more serves"] = self._idle = self._rest()
                parts |= self._at_all_rates("notify", ", more serves", RATES[1:])
            del self._serves[1:]
            with ExitStack() as more:
                self._start(more, workers=2)
                parts["idle, more workers"] = self._idle = self._rest()
                parts |= self._at_all_rates("mail", ", more workers", RATES[1:])
            del self._workers[1:]
            parts["vacuum"] = self._vacuum_cost()
            parts["clean-up"] = self._clean_up()
        return parts

    def check(self) -> dict[str, Any]:
        """Measures the mixed load; returns it with its costs."""
        with ExitStack() as stack:
            self._start(stack, serves=2, workers=3)
            readers = [stack.enter_context(part("bench.streams")) for _ in self._serves]
            for number, (reader, each) in enumerate(zip(readers, self._serves, strict=True)):
                half = STREAMS // 2
                bounds = [number * half, (number + 1) * half]
                reader.ask(open=bounds, port=each.port, path=OUR_PATH, token=True)
            self._make(CHECK, WARM_SECONDS)
            self._rest(1.0)
            self._vacuum()
            before = self._notifications()

            def work() -> None:
                self._make(CHECK, CHECK_SECONDS)
                self._vacuum()

            seconds, used = self._measured(work)
            operations = self._load.counts | Counter(vacuum=self._notifications() - before)
            done = Load(seconds, operations, serves=2, workers=3, streams=STREAMS)
            sent = self._owner.execute(
                "select channel, state, count(*) from tocsin.delivery group by 1, 2 order by 1, 2"
            ).fetchall()
        return {
            "load": {name: getattr(done, name) for name in done.__struct_fields__},
            "measured": used,
            "deliveries": {f"{channel} {state}": count for channel, state, count in sent},
        }

    def _at_all_rates(
        self, name: str, more: str = "", rates: Iterable[float] = RATES
    ) -> dict[str, Costs]:
        return {
            f"{name}, {rate:.0f}/s{more}": self._part(name, rate, SECONDS[rate]) for rate in rates
        }

    def _part(self, name: str, rate: float, seconds: float) -> Costs:
        """Returns the cost of one call, without what an idle installation costs."""
        took, used = self._measured(lambda: self._make({name: rate}, seconds))
        calls = self._load.counts["notify"] or self._load.counts[name]
        return times(plus(used, self._idle, -took), 1 / calls) | {"fpi": used["fpi"] / calls}

    def _make(self, paces: dict[str, float], seconds: float) -> None:
        ports = [each.port for each in self._serves]
        self._runner.run(self._load.run(paces, seconds, ports))

    def _rest(self, seconds: float = IDLE_SECONDS) -> Costs:
        """Returns the cost of a second without load."""
        finish(self._owner)
        until(self._is_quiet)
        took, used = self._measured(lambda: time.sleep(seconds))
        return times(used, 1 / took)

    def _is_quiet(self) -> bool:
        """Returns whether no process of Tocsin is still starting."""
        before = self._cpu()
        time.sleep(1.0)
        after = self._cpu()
        most = 0.03 * (len(self._serves) + len(self._workers))
        return sum(after[name] - before[name] for name in ("serve", "worker")) < most

    def _vacuum_cost(self) -> Costs:
        """Returns the cost of a vacuum for each notification in the tables."""
        _, used = self._measured(self._vacuum)
        return times(used, 1 / self._notifications())

    def _vacuum(self) -> None:
        finish(self._owner)
        tables = [name for (name,) in self._owner.execute(TABLES).fetchall()]
        self._owner.execute(f"vacuum (analyze) {', '.join(tables)}".encode())

    def _notifications(self) -> int:
        row = self._owner.execute("select count(*) from tocsin.notification").fetchone()
        assert row is not None
        return int(row[0])

    def _clean_up(self) -> Costs:
        """Returns what PostgreSQL does to remove a notification with all that belongs to it."""
        settings = {"database_url": self._dsn, "unread_retention_days": "100"}
        later = (datetime.now(UTC) + timedelta(days=200)).isoformat()
        (count,) = self._owner.execute("select count(*) from tocsin.notification").fetchone() or (
            0,
        )

        def clean_up() -> None:
            command = stage.ours("cleanup", "--now", later)
            with stage.program(*command, settings=settings) as process:
                process.wait()

        _, used = self._measured(clean_up)
        assert self._notifications() == 0
        return times(used, 1 / count)

    def _sizes(self) -> Costs:
        """Returns the bytes that a notification takes, with its event and its deliveries."""
        grown: Costs = {}
        for name, event_type in SIZED.items():
            before = self._owner.execute(SIZES).fetchone() or (0,)
            kind = "a" if name == "push" else "p"
            self._owner.execute(EACH_ITS_OWN, (event_type, kind, BULK))
            finish(self._owner)
            after = self._owner.execute(SIZES).fetchone() or (0,)
            grown[name] = (int(after[0]) - int(before[0])) / BULK
        return grown

    def _measured(self, work: Callable[[], object]) -> tuple[float, Costs]:
        """Returns the seconds until all of it is done, and the CPU time and the WAL until then."""
        begun, started, before = self._position(), time.monotonic(), self._cpu()
        work()
        finish(self._owner)
        after, took, ended = self._cpu(), time.monotonic() - started, self._position()
        row = self._admin.execute(WRITTEN, (begun, ended)).fetchone() or (0, 0)
        used = {name: 1e6 * (after[name] - before[name]) for name in GROUPS}
        return took, used | {WAL: float(row[0] or 0), "fpi": float(row[1] or 0)}

    def _cpu(self) -> Costs:
        senders = sum(stage.cpu(pid) for (pid,) in self._admin.execute(SENDER).fetchall())
        return {
            "postgres": stage.cpu(self._fixed["postgres"]) - senders,
            "walsender": senders,
            "standby": stage.cpu(self._fixed["standby"]),
            "serve": sum(stage.cpu(each.process.pid) for each in self._serves),
            "worker": sum(stage.cpu(each.pid) for each in self._workers),
        }

    def _position(self) -> str:
        row = self._admin.execute("select pg_current_wal_insert_lsn()").fetchone()
        assert row is not None
        return str(row[0])

    def _start(self, stack: ExitStack, *, serves: int = 0, workers: int = 0) -> None:
        for _ in range(workers):  # first, so that a worker leads
            self._workers.append(stack.enter_context(worker(self._dsn, **self._settings)))
        until(lambda: leads(self._owner))
        self._serves += [stack.enter_context(serve(self._dsn)) for _ in range(serves)]
        until(self._is_quiet)
        self._make(dict.fromkeys(WARM, 8.0), WARM_SECONDS)
        finish(self._owner)

    def _open_streams(self, reader: Part, number: int) -> None:
        reader.ask(open=[0, number], port=self._serves[0].port, path=OUR_PATH, token=True)


def browsers(stack: ExitStack) -> list[dict[str, Any]]:
    """Starts a push service; returns a subscription for each person with a browser."""
    command = [sys.executable, "-m", "bench.web_push_far_end", str(PEOPLE["w"])]
    process = stack.enter_context(
        Popen(command, cwd=Path(__file__).parent, stdin=PIPE, stdout=PIPE, text=True)
    )
    stack.callback(process.kill)
    assert process.stdout is not None
    made: list[dict[str, Any]] = json.loads(process.stdout.readline())
    return made


@contextmanager
def installed(running: Postgres) -> Iterator[Bench]:
    with ExitStack() as stack:
        stack.enter_context(without_autovacuum(running))
        follower = stack.enter_context(standby(running))
        dsn = stack.enter_context(stage.database(running, "scaling", rows=None))
        yield Bench(stack, running, dsn, follower)


@contextmanager
def without_autovacuum(running: Postgres) -> Iterator[None]:
    """Turns it off in all databases of the benchmarks' own server, until the block ends."""
    with psycopg.connect(running.superuser_dsn, autocommit=True) as admin:
        admin.execute("alter system set autovacuum = off")
        admin.execute("select pg_reload_conf()")
        try:
            yield
        finally:
            admin.execute("alter system reset autovacuum")
            admin.execute("select pg_reload_conf()")


if __name__ == "__main__":
    main()
