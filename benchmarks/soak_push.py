"""The soak test of pushes: from SQL to both far ends through the whole engine, one request in twenty failing.

Starts a PostgreSQL of its own (or takes a migrated database by --dsn), `tocsin worker` and the far ends
(soak_far_ends.py), creates events until there are enough pushes, and compares the ledger with what the far ends
accepted. Waits are shortened: a pause that a provider requests (15 minutes after Apple's 503) ends after a second or
two. The exit status is 1 if a promise is broken. `make soak-push`.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from bench import cpu_limit
from bench.record import Record, keep
from psycopg.rows import dict_row

from tocsin.dev import embedded_postgres, supervisor
from tocsin.dev.postgres_cluster import remove_cluster
from tocsin.migrate import migrate

HERE = Path(__file__).parent
AT_ONCE = 500  # people per event
WINDOW = 4000  # most pushes in progress
MOST_ATTEMPTS = 1.1  # per delivery
MOST_GROWTH = 1.1  # of the worker's memory, after the first tenth
WARM = 20_000  # pushes after which memory is checked
DUE_EVERY = 0.5  # seconds
STUCK = 60.0  # seconds without any progress


async def main() -> int:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--pushes", type=int, default=100_000)
    parser.add_argument("--people", type=int, default=5_000, help="each with two devices")
    parser.add_argument("--dsn", help="of a migrated database, in place of a PostgreSQL of its own")
    options = parser.parse_args()
    if options.people < AT_ONCE:
        parser.error(f"--people is at least {AT_ONCE}: that many are notified at once")
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with workplace() as folder, database(options.dsn, folder) as dsn:
        soak = Soak(dsn, folder, pushes=options.pushes, people=options.people)
        await soak.run()
        result = soak.result()
    report(result)
    return 1 if result["broken"] else 0


@contextmanager
def workplace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tocsin-soak-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL may run as another user
        yield folder


@contextmanager
def database(dsn: str | None, folder: Path) -> Iterator[str]:
    """Yields the named database, or a new one that ends with it."""
    if dsn is not None:
        yield dsn
        return
    server = embedded_postgres.start(folder / "data", durable=False)
    try:
        migrate(server.dsn)
        yield server.dsn
    finally:
        embedded_postgres.stop(server)
        remove_cluster(folder / "data")


class Soak:
    """One run."""

    def __init__(self, dsn: str, folder: Path, *, pushes: int, people: int) -> None:
        self.dsn = dsn
        self.folder = folder
        self.people = people
        self.events = max(1, pushes // (2 * AT_ONCE))
        self.pushes = self.events * 2 * AT_ONCE
        self.accepted = 0
        self.moved_at = time.monotonic()
        self.warm_rss = self.last_rss = 0
        self.seconds = self.cpu_seconds = 0.0

    async def run(self) -> None:
        async with (
            await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as app,
            far_ends(self.folder) as (far, settings),
            worker(self.folder, settings | {"database_url": self.dsn, "mail_cap": "0"}) as process,
        ):
            await make_people(app, self.people)
            tasks = [
                asyncio.create_task(self.listen(far)),
                asyncio.create_task(self.watch(process.pid)),
                asyncio.create_task(make_due(self.dsn)),
            ]
            try:
                started, cpu = time.perf_counter(), cpu_seconds(process.pid)
                await self.create_events(app)
                await self.drain(app)
                self.seconds = time.perf_counter() - started
                self.cpu_seconds = cpu_seconds(process.pid) - cpu
                self.last_rss = rss(process.pid)
            finally:
                for each in tasks:
                    each.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                if sys.stderr.isatty():
                    print(file=sys.stderr)

    async def create_events(self, app: psycopg.AsyncConnection[Any]) -> None:
        """Creates events for the next people, as long as not too many pushes are in progress."""
        for number in range(self.events):
            while number * 2 * AT_ONCE - self.accepted >= WINDOW:
                if time.monotonic() - self.moved_at > STUCK:
                    print(f"stuck with {self.accepted} accepted", file=sys.stderr)
                    return
                await asyncio.sleep(0.02)
            await app.execute(
                "select tocsin.notify('messages.new_dm', %s, 'Bob: hello', 'How are you?')",
                ([f"p{i % self.people}" for i in range(number * AT_ONCE, (number + 1) * AT_ONCE)],),
            )

    async def drain(self, app: psycopg.AsyncConnection[Any]) -> None:
        """Waits until each delivery has a final state; fails if there is no progress."""
        left, moved_at = -1, time.monotonic()
        while True:
            cursor = await app.execute(
                "select count(*) from tocsin.delivery where settled_at is null"
            )
            row = await cursor.fetchone()
            assert row is not None
            if not row[0]:
                return
            if row[0] != left:
                left, moved_at = row[0], time.monotonic()
            if time.monotonic() - moved_at > STUCK:
                print(f"stuck with {left} deliveries to do", file=sys.stderr)
                return
            await asyncio.sleep(0.1)

    async def listen(self, far: asyncio.subprocess.Process) -> None:
        assert far.stdout is not None
        async for line in far.stdout:
            if int(line) != self.accepted:
                self.accepted, self.moved_at = int(line), time.monotonic()

    async def watch(self, pid: int) -> None:
        """Records the worker's memory, and prints a line of progress."""
        started = time.perf_counter()
        printed = -1
        while True:
            now, share = rss(pid), self.accepted / self.pushes
            if not self.warm_rss and share >= 0.1:
                self.warm_rss = now
            rate = self.accepted / (time.perf_counter() - started)
            line = f"{self.accepted:>7} of {self.pushes} pushes {share:>5.0%} {rate:>6.0f}/s {now / 2**20:>6.1f} MiB"
            if sys.stderr.isatty():
                print(
                    f"\r[{'#' * int(share * 30):<30}] {line}", end="", file=sys.stderr, flush=True
                )
            elif int(share * 10) > printed:
                printed = int(share * 10)
                print(line, file=sys.stderr, flush=True)
            await asyncio.sleep(0.25)

    def result(self) -> dict[str, Any]:
        """Compares the ledger with what the far ends accepted."""
        accepted = json.loads((self.folder / "accepted.json").read_text())
        with psycopg.connect(self.dsn, row_factory=dict_row) as connection:
            ledger = connection.execute(LEDGER).fetchall()
            attempts, claims, disabled = (
                connection.execute(query).fetchone()["n"]  # type: ignore[index]
                for query in COUNTS
            )
        times = {row["key"]: accepted[row["provider"]].pop(row["key"], 0) for row in ledger}
        unknown = {row["key"] for row in ledger if row["unknown"]}
        took = sorted(row["seconds"] for row in ledger if row["attempts"] == 1)
        result: dict[str, Any] = {
            "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
            "pushes": len(ledger),
            "rate": round(len(ledger) / self.seconds),
            "cpu_ms": round(1000 * self.cpu_seconds / len(ledger), 2),
            "p50": round(took[len(took) // 2], 2),
            "p99": round(took[len(took) * 99 // 100], 2),
            "attempts_per_delivery": round(attempts / len(ledger), 4),
            "unknown_outcomes": len(unknown),
            "accepted_twice": sum(count > 1 for count in times.values()),
            "mib_after_a_tenth": round(self.warm_rss / 2**20, 1),
            "mib_at_the_end": round(self.last_rss / 2**20, 1),
        }
        broken = {
            "notified, but not in the ledger": self.pushes - len(ledger),
            "not sent": sum(row["state"] != "sent" for row in ledger),
            "sent, but never accepted": sum(not count for count in times.values()),
            "accepted, but not in the ledger": sum(len(each) for each in accepted.values()),
            "accepted twice with a known outcome": sum(
                count > 1 and key not in unknown for key, count in times.items()
            ),
            "claims left": claims,
            "devices disabled": disabled,
            f"attempts a delivery beyond {MOST_ATTEMPTS}": attempts / len(ledger) > MOST_ATTEMPTS,
            f"memory grew beyond {MOST_GROWTH}": len(ledger) >= WARM
            and self.last_rss > MOST_GROWTH * self.warm_rss,
        }
        return result | {"broken": {what: int(count) for what, count in broken.items() if count}}


LEDGER = """
select
    case v.provider when 'apns' then d.provider_id else v.token || ' ' || d.notification_id end as key,
    v.provider,
    d.state::text as state,
    d.attempts,
    exists (select from tocsin.attempt a where a.delivery_id = d.delivery_id and a.outcome = 'unknown') as unknown,
    extract(epoch from d.settled_at - d.created_at)::float8 as seconds
from tocsin.delivery d
join tocsin.device v using (device_id)
"""
COUNTS = (
    "select count(*) as n from tocsin.attempt",
    "select count(*) as n from tocsin.delivery where claim is not null or settled_at is null",
    "select count(*) as n from tocsin.device where disabled_at is not null",
)


async def make_people(app: psycopg.AsyncConnection[Any], count: int) -> None:
    """Creates people, each with an iPhone and an Android phone."""
    await app.execute(
        "insert into tocsin.recipient (recipient_id) select 'p' || i from generate_series(0, %s) i",
        (count - 1,),
    )
    await app.execute(
        "insert into tocsin.device (token, recipient_id, platform, provider)"
        " select case p when 'apns' then lpad(to_hex(i), 64, '0') else 'pixel-' || i end, 'p' || i,"
        " case p when 'apns' then 'ios' else 'android' end, p"
        " from generate_series(0, %s) i, unnest(array['apns', 'fcm']) p",
        (count - 1,),
    )
    await app.execute("update tocsin.channel set available = true where channel = 'push'")
    await app.execute("analyze tocsin.recipient, tocsin.device")


async def make_due(dsn: str) -> None:
    """Makes waiting deliveries due, as if the requested pause were over."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        while True:
            await asyncio.sleep(DUE_EVERY)
            await connection.execute(
                "with over as (update tocsin.delivery set due_at = clock_timestamp()"
                " where channel = 'push' and state = 'deferred' and due_at > clock_timestamp() + interval '0.2 s'"
                " and reason <> 'circuit_open' returning delivery_id)"
                " select tocsin.wake() where exists (select from over)"
            )


@asynccontextmanager
async def far_ends(
    folder: Path,
) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, str]]]:
    """Waits until they have ended and written what they accepted."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(HERE / "soak_far_ends.py"), str(folder), stdin=pipe, stdout=pipe
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, json.loads(await process.stdout.readline())
    finally:
        process.stdin.close()
        await ended(process)


@asynccontextmanager
async def worker(
    folder: Path, settings: dict[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")}
    environ |= {f"TOCSIN_{name.upper()}": value for name, value in settings.items()}
    environ["TOCSIN_DATA_DIR"] = str(folder)
    reading, writing = (
        os.pipe()
    )  # ends with this process, by kill -9 too, and then so does the worker
    environ[supervisor.VARIABLE] = str(reading)
    command = [sys.executable, "-m", "tocsin", "worker"]
    with (folder / "worker.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, env=environ, stdout=log, stderr=log, pass_fds=[reading]
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await ended(process)
        os.close(reading)
        os.close(writing)


async def ended(process: asyncio.subprocess.Process) -> None:
    try:
        await asyncio.wait_for(process.wait(), 15)
    except TimeoutError:
        process.kill()
        await process.wait()


def rss(pid: int) -> int:
    """Bytes of memory of a process, from /proc; 0 without /proc."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, from /proc; 0 without /proc."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def report(result: dict[str, Any]) -> None:
    """Prints one table and the broken promises, and writes the JSON of a run that was long enough."""
    rows = (
        ("pushes", f"{result['pushes']}"),
        ("pushes a second", f"{result['rate']}"),
        ("worker's CPU a push", f"{result['cpu_ms']} ms"),
        (f"notify to accepted, {WINDOW} under way: p50", f"{result['p50']} s"),
        ("p99", f"{result['p99']} s"),
        ("attempts a delivery", f"{result['attempts_per_delivery']}"),
        ("outcome unknown at least once", f"{result['unknown_outcomes']}"),
        ("of these, accepted twice", f"{result['accepted_twice']}"),
        ("worker's memory after a tenth", f"{result['mib_after_a_tenth']} MiB"),
        ("worker's memory at the end", f"{result['mib_at_the_end']} MiB"),
    )
    for what, value in rows:
        print(f"{what:<48}{value:>12}")
    for what, count in result["broken"].items():
        print(f"BROKEN: {what}: {count}")
    if result["pushes"] >= WARM:
        keep(record(result))


def record(result: dict[str, Any]) -> Record:
    """Returns a run as a record for results/; it is judged by its promises."""
    return Record(
        name="soak-push",
        title="100,000 pushes, one request in twenty failing",
        unit="s",
        measured={
            "tocsin, notify to accepted, p50": [result["p50"]],
            "tocsin, notify to accepted, p99": [result["p99"]],
        },
        facts={
            "pushes": result["pushes"],
            "pushes a second": result["rate"],
            "worker's CPU a push (ms)": result["cpu_ms"],
            "attempts a delivery": result["attempts_per_delivery"],
            "outcome unknown at least once": result["unknown_outcomes"],
            "of these, accepted twice": result["accepted_twice"],
            "worker's memory after a tenth (MiB)": result["mib_after_a_tenth"],
            "worker's memory at the end (MiB)": result["mib_at_the_end"],
        },
        kept={
            "nothing lost, nothing twice with a known outcome, nothing left behind": not result[
                "broken"
            ]
        },
    )


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
