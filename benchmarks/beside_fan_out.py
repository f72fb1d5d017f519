"""The API's p99, and the latency of an urgent mail, during a fan-out to 100,000 and while idle.

One `tocsin serve` and one `tocsin worker` over a million notifications. People count, list and mark read at a steady
pace; four times a second an app creates an urgent event for one person, whose mail is timed from COMMIT until the SMTP
server accepted it. First without other load; then while another transaction notifies 100,000 people by inbox and email,
and for some seconds more, in which the worker sends those mails. The fan-out is cancelled when its time is over, so
that the next round begins idle. `make bench-beside-fan-out`
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE

import psycopg
from bench import cpu_limit, stage
from bench.caller import Caller
from bench.record import Goal, Record, keep
from bench.rounds import until_async
from bench.service import serve, worker
from bench.smtp_sink import MARK

HERE = Path(__file__).parent
FANNED = 100_000
CALLERS, PACE = 8, 80.0  # calls a second, all callers together
URGENT = 0.25  # seconds between two
_PEOPLE = """
insert into tocsin.recipient (recipient_id, email, name)
select 'f' || i, 'f' || i || '@example.com', 'Person ' || i
from generate_series(1, %s) i
"""
_FAN_OUT = """
select tocsin.notify('bulletin.new_chapter', array(select 'f' || i from generate_series(1, %s) i), 'A new chapter')
"""
_WORKING = """
select exists (select from tocsin.delivery d where d.due_at is not null and d.channel = 'email')
    -- a lease that a cancel() emptied as its job ended stands until it runs out
    or exists (
        select
        from tocsin.lease l
        cross join unnest(l.delivery_ids) u (delivery_id)
        join tocsin.delivery d using (delivery_id)
        where l.channel = 'email'
            and tocsin.is_held(d, l.claim)
    )
"""


def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds",
        type=float,
        default=4.0,
        help="of idling, and of sending after the fan-out's COMMIT",
    )
    options = parser.parse_args()
    with ExitStack() as stack:
        running = stack.enter_context(stage.server())
        dsn = stack.enter_context(stage.database(running, "beside"))
        with psycopg.connect(dsn, autocommit=True) as owner:
            owner.execute(_PEOPLE, (FANNED,))
            owner.execute("analyze tocsin.recipient")
        bench = asyncio.run(run(dsn, options.rounds, options.seconds))
    api, mail = bench.api, bench.mail
    keep(
        Record(
            "beside-fan-out",
            "During a fan-out to 100,000",
            "ms",
            {
                "tocsin, API p99, idle": api["idle"],
                "tocsin, API p99, during a fan-out": api["busy"],
                "tocsin, urgent mail, idle": mail["idle"],
                "tocsin, urgent mail, during a fan-out": mail["busy"],
            },
            goals=[
                Goal("tocsin, API p99, during a fan-out", "tocsin, API p99, idle", at_most=2),
                Goal(
                    "tocsin, urgent mail, during a fan-out", "tocsin, urgent mail, idle", at_most=3
                ),
            ],
            facts={
                "calls": bench.calls,
                "urgent mails": bench.urgent,
                "seconds of the fan-out's notify()": round(max(bench.fan_out_seconds), 2),
                "mails of the fan-out sent meanwhile": bench.sent,
                "ms with a CPU for serve, per second during a fan-out": round(bench.ran),
                "ms of waiting for one, per second during a fan-out": round(bench.waited),
            },
            kept={"no call failed, each urgent mail came": not bench.failed},
        )
    )


async def run(dsn: str, rounds: int, seconds: float) -> Bench:
    sink = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.smtp_sink"),
        cwd=HERE,
        stdin=PIPE,
        stdout=PIPE,
        start_new_session=True,
    )
    assert sink.stdout is not None
    port = int(await sink.stdout.readline())
    try:
        with ExitStack() as stack:
            served = stack.enter_context(serve(dsn))
            stack.enter_context(worker(dsn, smtp_url=f"smtp://127.0.0.1:{port}"))
            bench = Bench(dsn, served.port, served.process.pid)
            listening = asyncio.create_task(bench.listen(sink.stdout))
            await bench.phase("warm", 3)
            for _ in range(rounds):
                await bench.phase("idle", seconds)
                await bench.beside_fan_out(seconds)
            listening.cancel()
            return bench
    finally:
        sink.kill()
        await sink.wait()


class Bench:
    """The load, and its measurements."""

    def __init__(self, dsn: str, port: int, pid: int) -> None:
        self.dsn = dsn
        self.port = port
        self.ran = self.waited = 0.0  # serve, the last time beside a fan-out
        self._schedule = Path(f"/proc/{pid}/schedstat")
        self.api: dict[str, list[float]] = {"warm": [], "idle": [], "busy": []}
        self.mail: dict[str, list[float]] = {"warm": [], "idle": [], "busy": []}
        self.fan_out_seconds: list[float] = []
        self.calls = self.urgent = self.sent = self.failed = 0
        self._accepted: dict[int, asyncio.Future[float]] = {}

    async def listen(self, output: asyncio.StreamReader) -> None:
        """Records the urgent mails that were accepted, and when."""
        async for line in output:
            number, at = line.split()
            if waiting := self._accepted.pop(int(number), None):
                waiting.set_result(float(at))

    async def phase(
        self, name: str, seconds: float, after: asyncio.Task[int] | None = None
    ) -> None:
        """Runs the steady load until `after` is done and for that long afterwards."""
        calls: list[float] = []
        mails: list[float] = []
        over = asyncio.Event()
        tasks = [asyncio.create_task(self._call(calls, over)) for _ in range(CALLERS)]
        tasks.append(asyncio.create_task(self._notify_urgently(mails, over)))
        if after is not None:
            await asyncio.wait({after})
        await asyncio.sleep(seconds)
        over.set()
        await asyncio.gather(*tasks)
        self.api[name].append(sorted(calls)[int(0.99 * len(calls))])
        self.mail[name].append(sorted(mails)[len(mails) // 2])
        self.calls += len(calls)
        self.urgent += len(mails)

    async def beside_fan_out(self, seconds: float) -> None:
        fan_out = asyncio.create_task(self._fan_out())
        started, (ran, waited) = time.monotonic(), self._scheduled()
        await self.phase("busy", seconds, fan_out)
        took, (ran_now, waited_now) = time.monotonic() - started, self._scheduled()
        self.ran, self.waited = (ran_now - ran) / took, (waited_now - waited) / took
        event_id = await fan_out
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as app:
            cursor = await app.execute("select tocsin.cancel(%s)", (event_id,))
            stopped = (await cursor.fetchone() or (0,))[0]
            self.sent += FANNED - stopped

            async def quiet() -> bool:
                return not (await (await app.execute(_WORKING)).fetchone() or (True,))[0]

            await until_async(quiet)
        await asyncio.sleep(1)

    def _scheduled(self) -> tuple[float, float]:
        """Milliseconds in which serve's main thread had a CPU, and waited for one."""
        ran, waited, _ = self._schedule.read_text().split()
        return int(ran) / 1e6, int(waited) / 1e6

    async def _fan_out(self) -> int:
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as app:
            started = time.monotonic()
            row = await (await app.execute(_FAN_OUT, (FANNED,))).fetchone()
            self.fan_out_seconds.append(time.monotonic() - started)
            assert row is not None
            return int(row[0])

    async def _call(self, times: list[float], over: asyncio.Event) -> None:
        caller = Caller(self.port)
        page = None
        while not over.is_set():
            await asyncio.sleep(random.expovariate(PACE / CALLERS))
            person = f"p{random.randrange(1, 10_000)}"
            kind = random.choice(("count", "list", "mark"))
            if kind == "mark" and page:
                person, id_ = page
                request = ("PATCH", f"/api/notifications/{id_}/read/")
            else:
                path = "unread-count/" if kind == "count" else ""
                request = ("GET", f"/api/notifications/{path}")
            started = time.perf_counter()
            status, content = await caller.ask(person, *request)
            times.append(1000 * (time.perf_counter() - started))
            self.failed += status != 200
            if kind == "list" and content["results"]:
                page = (person, random.choice(content["results"])["id"])
        caller.close()

    async def _notify_urgently(self, times: list[float], over: asyncio.Event) -> None:
        statement = (
            "select tocsin.notify('compliance.overdue', array[%s], %s, 'Bob: today, please.')"
        )
        waiting: list[tuple[float, asyncio.Future[float]]] = []
        number = int(1000 * time.time())
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as app:
            while not over.is_set():
                number += 1
                future = self._accepted[number] = asyncio.get_running_loop().create_future()
                person = f"p{random.randrange(1, 10_000)}"
                await app.execute(statement, (person, f"{MARK}{number}"))
                waiting.append((time.monotonic(), future))
                await asyncio.sleep(URGENT)
        for committed, future in waiting:
            try:
                times.append(1000 * (await asyncio.wait_for(future, 30) - committed))
            except TimeoutError:
                self.failed += 1


if __name__ == "__main__":
    main()
