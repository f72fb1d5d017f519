"""An hour of mixed load on `tocsin serve` and `tocsin worker`, compared with its first ten minutes.

Apps notify one person, 200, or a topic's followers; people count, list, mark read and follow streams, which they drop
and resume; mails and pushes go to far ends on this machine; digests are due every minute; the clean-up runs every
minute, as if notifications read a while ago were older than 90 days. All at a steady pace, well below the machine's
limit.

Measured are memory of both processes, the calls' p99, and the size of every table and index; the first sixth against
each of the five after it. `make soak`; `--minutes 5` for a short run, which does not check sizes.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from bench import cpu_limit, stage
from bench.caller import Caller
from bench.record import Goal, Record, keep
from bench.service import serve, worker

HERE = Path(__file__).parent
PEOPLE = 300
STREAMS = 40
CALLERS = 8
TYPES = (
    "forum.new_reply",
    "forum.mention",
    "messages.new_dm",
    "event.changed",
    "approval.requested",
)
# calls a second, all callers together
PACE = {"count": 10.0, "list": 6.0, "mark read": 3.0, "mark all read": 2.0}
NOTIFY = 6.0  # a second
FAN_OUT = 10.0  # seconds between two events for 200 people, and between two of a topic
RETENTION = timedelta(days=90)
WINDOWS = 6
LEAST_MINUTES = (
    20.0  # minutes from which on sizes are checked: all short-lived rows have been deleted once
)
# keeps an hour (docs/architecture.md), so it grows for an hour
AN_HOUR = ("inbox_change",)
MOST_GROWTH, GRANTED = (
    1.25,
    2**20,
)  # last third against the middle one; bytes that are allowed in addition

SIZES = """
select c.relname, pg_relation_size(c.oid)
from pg_class c
where c.relnamespace in ('tocsin'::regnamespace, 'tocsin_queue'::regnamespace) and c.relkind in ('r', 'i')
"""
PEOPLE_SQL = """
insert into tocsin.recipient (recipient_id, email, name) select 'p' || i, 'p' || i || '@example.com', 'Person ' || i
from generate_series(0, 299) i;
insert into tocsin.device (token, recipient_id, platform, provider)
select case p when 'apns' then lpad(to_hex(i), 64, '0') else 'pixel-' || i end, 'p' || i,
    case p when 'apns' then 'ios' else 'android' end, p
from generate_series(0, 299) i, unnest(array['apns', 'fcm']) p
where i % 2 = 0;
insert into tocsin.digest_preference (recipient_id, frequency, categories, next_at)
select 'p' || i, 'daily', '{forum}', now() from generate_series(0, 49) i;
insert into tocsin.subscription (topic, recipient_id, level, because)
select 'forum.thread:1', 'p' || i, 'all', 'followed' from generate_series(0, 99) i
"""
SETTLED = "select count(*) from tocsin.delivery where settled_at is null"
WRONG_BADGES = """
select count(*)
from tocsin.recipient r
where tocsin.unread_count(r.recipient_id) <> (
    select count(*)
    from tocsin.notification n
    where n.recipient_id = r.recipient_id and n.in_inbox and n.archived_at is null and n.read_at is null
)
"""


def main() -> int:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    minutes = parser.parse_args().minutes
    if minutes < 2:
        parser.error("less than two minutes show nothing")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="tocsin-soak-")))
        running = stack.enter_context(stage.server())
        dsn = stack.enter_context(stage.database(running, "soak", rows=None))
        with psycopg.connect(dsn, autocommit=True) as owner:
            for statement in PEOPLE_SQL.split(";\n"):
                owner.execute(statement.encode())
        settings = far_ends(stack, folder)
        served = stack.enter_context(serve(dsn))
        working = stack.enter_context(worker(dsn, **settings))
        soak = Soak(dsn, served.port, {"serve": served.process, "worker": working}, minutes * 60)
        asyncio.run(soak.run())
    keep(*soak.records())
    return 1 if soak.broken else 0


def far_ends(stack: ExitStack, folder: Path) -> dict[str, str]:
    """SMTP, APNs and FCM servers in separate processes; yields the settings that lead to them."""
    smtp = stack.enter_context(
        Popen(
            [sys.executable, "-m", "bench.smtp_sink"], cwd=HERE, stdin=PIPE, stdout=PIPE, text=True
        )
    )
    stack.callback(smtp.kill)
    command = [sys.executable, HERE / "soak_far_ends.py", folder, "--no-faults"]
    phones = stack.enter_context(Popen(command, stdin=PIPE, stdout=PIPE, text=True))
    stack.callback(phones.kill)
    assert smtp.stdout is not None
    assert phones.stdout is not None
    settings: dict[str, str] = json.loads(phones.stdout.readline())
    port = int(smtp.stdout.readline())
    # each person gets more than anybody would want
    return settings | {"smtp_url": f"smtp://127.0.0.1:{port}", "mail_cap": "0"}


class Soak:
    """The load of one run, and its measurements."""

    def __init__(
        self, dsn: str, port: int, processes: dict[str, Popen[bytes]], seconds: float
    ) -> None:
        self.dsn = dsn
        self.port = port
        self.processes = processes
        self.seconds = seconds
        self.kept_for = max(15.0, seconds / 20)  # how long read notifications are kept
        self.started = 0.0
        self.times: dict[str, list[list[float]]] = defaultdict(self._windows)
        self.memory: dict[str, list[list[float]]] = defaultdict(self._windows)
        self.sizes: dict[str, list[int]] = defaultdict(list)
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.unsettled = self.wrong_badges = -1

    async def run(self) -> None:
        self.started = time.monotonic()
        callers = [Caller(self.port) for _ in range(CALLERS)]
        tasks = [
            *(self.call(caller) for caller in callers),
            *(self.follow(number) for number in range(STREAMS)),
            self.notify(),
            self.watch(),
            self.measure_sizes(),
            self.upkeep(),
        ]
        running = [asyncio.create_task(each) for each in tasks]
        done, _ = await asyncio.wait(
            running, timeout=self.seconds, return_when=asyncio.FIRST_EXCEPTION
        )
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for each in done:
            each.result()
        for caller in callers:
            caller.close()
        await self.drain()

    async def call(self, caller: Caller) -> None:
        """Makes the calls of people, at their share of the pace; a late caller doesn't catch up."""
        while True:
            await asyncio.sleep(random.expovariate(sum(PACE.values()) / CALLERS))
            kind = random.choices(list(PACE), list(PACE.values()))[0]
            person = f"p{random.randrange(PEOPLE)}"
            try:
                await getattr(self, kind.replace(" ", "_"))(caller, person)
            except (OSError, EOFError) as error:
                self.failed[f"{kind}: {type(error).__name__}"] += 1

    async def count(self, caller: Caller, person: str) -> None:
        await self.timed("count", caller, person, "GET", "/api/notifications/unread-count/")

    async def list(self, caller: Caller, person: str) -> None:
        query = random.choice(("", "", "?read=false", "?category=forum"))
        await self.timed("list", caller, person, "GET", f"/api/notifications/{query}")

    async def mark_read(self, caller: Caller, person: str) -> None:
        page = await self.timed("list", caller, person, "GET", "/api/notifications/?read=false")
        if page and page["results"]:
            path = f"/api/notifications/{random.choice(page['results'])['id']}/read/"
            await self.timed("mark read", caller, person, "PATCH", path)

    async def mark_all_read(self, caller: Caller, person: str) -> None:
        path = "/api/notifications/mark-all-read/"
        await self.timed("mark all read", caller, person, "POST", path)

    async def timed(self, kind: str, caller: Caller, person: str, method: str, path: str) -> Any:
        started = time.perf_counter()
        status, content = await caller.ask(person, method, path)
        self.took(kind, time.perf_counter() - started)
        if status >= 400:
            self.failed[f"{kind}: {status}"] += 1
            return None
        return content

    async def follow(self, number: int) -> None:
        """Reads a stream for a while, then resumes it."""
        last = b""
        while True:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(random.uniform(20, 60)):
                    async for line in Caller(self.port).follow(f"p{number}", last):
                        if line.startswith(b"id: "):
                            last = line[4:]
                            self.done["stream events"] += 1
            self.done["streams"] += 1

    async def notify(self) -> None:
        """Makes the calls of apps: mostly for one person, sometimes for many."""
        fanned_at = time.monotonic()
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as app:
            while True:
                await asyncio.sleep(random.expovariate(NOTIFY))
                people = [f"p{random.randrange(PEOPLE)}"]
                if time.monotonic() - fanned_at > FAN_OUT:
                    fanned_at = time.monotonic()
                    people = [f"p{each}" for each in random.sample(range(PEOPLE), 200)]
                    await app.execute(
                        "select tocsin.notify_topic('forum.thread:1', 'forum.new_reply', 'To followers')"
                    )
                started = time.perf_counter()
                await app.execute(
                    "select tocsin.notify(%s, %s, 'New reply', 'Bob: the mill it is.', '/f/1')",
                    (random.choice(TYPES), people),
                )
                if len(people) == 1:
                    self.took("notify", time.perf_counter() - started)
                self.done["notifications"] += len(people)

    async def upkeep(self) -> None:
        """Once a minute (or a twentieth of a short run): digests are due, and the clean-up runs."""
        while True:
            await asyncio.sleep(min(60.0, self.kept_for))
            async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as owner:
                await owner.execute("update tocsin.digest_preference set next_at = now()")
            now = datetime.now(UTC) + RETENTION - timedelta(seconds=self.kept_for)
            process = await asyncio.create_subprocess_exec(
                *stage.ours("cleanup", "--now", now.isoformat()),
                env={"TOCSIN_DATABASE_URL": self.dsn},
                stdout=asyncio.subprocess.DEVNULL,
            )
            if await process.wait():
                self.failed["clean-up"] += 1
            self.done["clean-ups"] += 1

    async def watch(self) -> None:
        """Memory, every second; a process that ended ends the run."""
        while True:
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise SystemExit(f"tocsin {name} ended with {process.returncode}")
                self.memory[name][self.window()].append(stage.rss(process.pid) / 2**20)
            if sys.stderr.isatty():
                left = self.seconds - (time.monotonic() - self.started)
                rss = ", ".join(
                    f"{name} {each[self.window()][-1]:.0f} MiB"
                    for name, each in self.memory.items()
                )
                print(
                    f"\r\033[K{left / 60:.1f} min left; {rss}; {dict(self.failed)}",
                    end="",
                    file=sys.stderr,
                )
            await asyncio.sleep(1)

    async def measure_sizes(self) -> None:
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as owner:
            while True:
                for name, size in await (await owner.execute(SIZES)).fetchall():
                    self.sizes[name].append(size)
                await asyncio.sleep(self.seconds / 120)

    async def drain(self) -> None:
        """Nothing remains when the load has ended."""
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as owner:
            for _ in range(600):
                self.unsettled = (await (await owner.execute(SETTLED)).fetchone() or [-1])[0]
                if not self.unsettled:
                    break
                await asyncio.sleep(0.1)
            self.wrong_badges = (await (await owner.execute(WRONG_BADGES)).fetchone() or [-1])[0]

    def took(self, kind: str, seconds: float) -> None:
        self.times[kind][self.window()].append(1000 * seconds)
        self.done[kind] += 1

    def window(self) -> int:
        share = (time.monotonic() - self.started) / self.seconds
        return min(WINDOWS - 1, int(share * WINDOWS))

    @staticmethod
    def _windows() -> list[list[float]]:
        return [[] for _ in range(WINDOWS)]

    @property
    def broken(self) -> bool:
        return bool(self.failed or self.unsettled or self.wrong_badges)

    def growing(self) -> list[str]:
        """Tables and indexes that are larger in the last third than in the one before."""
        grown = []
        for name, sizes in self.sizes.items():
            third = len(sizes) // 3
            before, after = max(sizes[third : 2 * third]), max(sizes[2 * third :])
            if after > before * MOST_GROWTH + GRANTED and not name.startswith(AN_HOUR):
                grown.append(f"{name} {before} to {after}")
        return grown

    def records(self) -> list[Record]:
        minutes = self.seconds / 60
        facts = {
            "minutes": minutes,
            **self.done,
            "MiB of all tables and indexes at the end": self.mib(),
        }
        kept = {
            "no call failed": not self.failed,
            "all deliveries reached a final state": self.unsettled == 0,
            "each badge is count(*)": self.wrong_badges == 0,
        }
        if minutes >= LEAST_MINUTES:
            kept["no table or index grows without bound"] = not self.growing()
        if broke := [*self.failed.items(), *self.growing()]:
            print("\nbroke:", broke, file=sys.stderr)
        return [
            compared("soak-memory", "Memory", "MiB", self.memory, max, 1.05, facts, kept),
            compared("soak-calls", "Calls' p99", "ms", self.times, p99, 1.1, {}, {}),
        ]

    def mib(self) -> float:
        return round(sum(sizes[-1] for sizes in self.sizes.values()) / 2**20, 1)


def compared(
    name: str,
    what: str,
    unit: str,
    seen: dict[str, list[list[float]]],
    summed: Callable[[list[float]], float],
    most: float,
    facts: dict[str, Any],
    kept: dict[str, bool],
) -> Record:
    """Compares the first window with each later one."""
    measured: dict[str, list[float]] = {}
    goals = []
    for each, windows in seen.items():
        first, then = f"tocsin, {each}, first sixth", f"tocsin, {each}, then"
        measured[first] = [summed(windows[0])] * (WINDOWS - 1)
        measured[then] = [summed(window) for window in windows[1:]]
        goals.append(Goal(then, first, at_most=most))
    return Record(name, f"{what} in a soak", unit, measured, goals, facts, kept)


def p99(times: list[float]) -> float:
    return sorted(times)[int(0.99 * len(times))]


if __name__ == "__main__":
    sys.exit(main())
