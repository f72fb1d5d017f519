"""One seed from its start to its result."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
from msgspec import Struct, field

from faults.inject import Injector, Window
from faults.invariants import Check, Violation
from faults.ledger import HURRY, SESSIONS, UNSETTLED, UNTOLD, read_ledger, read_passages
from faults.load import SECRET, Load, new_client
from faults.plan import DIGEST, DST, PEOPLE, STREAMS, TOPICS, Plan
from faults.processes import Life, Service, Supervisor, ends_with_parent, usage
from faults.server import APP, OWNER, Pair, Server, free_port
from tocsin.engine.store.credential import create_api_key
from tocsin.engine.store.database import Database

KNOWN = 1.0  # seconds after which each process has noticed that PostgreSQL ended
READY_SECONDS = 3.0  # until an HTTP process is ready again after PostgreSQL is back
QUIET_SECONDS = 240.0  # the longest wait for it
LATE_SECONDS = (
    90.0  # a lease of 30 s, a job's rescue within a minute; waits for retries are shortened
)
MOST_SESSIONS = {"serve": 14, "worker": 30}  # docs/operations.md, plus the runner's own
MORE_DESCRIPTORS, MORE_MEMORY = 80, 120 * 2**20  # above what a process had before the load
MOST_LINES = 12.0  # a second and process, without a line for each attempt and each request
ROUTINE = ('"event":"attempt"', '"event":"request"', '"event": "attempt"', '"event": "request"')
START_SECONDS = 120.0
# Procrastinate logs it where the end of a job can't be written: the connection was cut, or the job is another's by now.
PROCRASTINATES = "coro=<Worker._process_job() done"
DISK = "256m"


class Probe(Struct):
    """One request of /readyz of an HTTP process."""

    at: float
    took: float
    status: int  # 0: none


class Result(Struct):
    """The result of a seed."""

    seed: int
    faults: dict[str, int]
    calls: dict[str, int]
    events: int
    deliveries: int
    states: dict[str, int]
    accepted: int
    duplicates: dict[str, int]
    ready: list[float]  # seconds until ready, after each return of the database
    refusals: list[float]  # most seconds for a 503, in each outage that was noticed
    quiet: float  # seconds from the last fault or call to the last final state
    seconds: float
    violations: list[Violation]
    notes: list[str] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)


class Stage(Struct):
    """The running parts: a database, far ends, our processes."""

    folder: Path
    server: Server
    far_ends: subprocess.Popen[str]
    services: list[Service]
    supervisor: Supervisor
    ports: list[int]

    def dsn(self) -> str:
        return self.server.url(OWNER)


@asynccontextmanager
async def staged(
    folder: Path,
    template: Path,
    *,
    workers: int,
    serves: int,
    seed: int = 0,
    failover: bool = False,
    delay: float = 0.0,
) -> AsyncIterator[Stage]:
    """Starts all parts; ends them with the block."""
    async with AsyncExitStack() as stack:
        kind = Pair if failover else Server
        server = kind(folder / "disk" / "database", free_port(), template)
        stack.callback(server.end)
        await asyncio.to_thread(server.start)
        far_ends, settings = start_far_ends(folder, workers, seed, delay)
        stack.callback(far_ends.wait)
        stack.callback(far_ends.kill)
        common = {
            "database_url": server.url(OWNER),
            "jwt_secret": SECRET,
            "log_format": "json",
            "data_dir": str(folder),
        }
        ports = [free_port() for _ in range(serves)]
        url = f"http://127.0.0.1:{ports[0]}"
        services = [
            Service(
                "serve",
                slot,
                folder / f"serve-{slot}.log",
                common | {"port": str(port), "public_url": url},
            )
            for slot, port in enumerate(ports)
        ]
        services += [
            Service(
                "worker",
                slot,
                folder / f"worker-{slot}.log",
                common | one | {"public_url": url},
            )
            for slot, one in enumerate(settings)
        ]
        supervisor = Supervisor(services)
        for service in services:
            service.start()
        stack.push_async_callback(stop_all, services)
        supervising = asyncio.create_task(supervisor.run())
        stack.callback(supervising.cancel)
        await until(lambda: all_ready(ports), START_SECONDS)
        await until(lambda: offered(server.url(OWNER), workers), START_SECONDS)
        yield Stage(folder, server, far_ends, services, supervisor, ports)


async def stop_all(services: list[Service]) -> None:
    await asyncio.gather(*(service.stop() for service in services))


def start_far_ends(
    folder: Path, slots: int, seed: int, delay: float
) -> tuple[subprocess.Popen[str], list[dict[str, str]]]:
    """The process of the far ends, and the settings that lead each worker to its own."""
    command = [sys.executable, "-m", "faults.far_ends", str(folder)]
    options = ["--slots", str(slots), "--seed", str(seed), "--delay", str(delay)]
    with (folder / "far-ends.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            preexec_fn=ends_with_parent,  # noqa: PLW1509 - one system call
        )
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


async def run_seed(
    plan: Plan, folder: Path, template: Path, report: Callable[[str], None]
) -> Result:
    """Runs one plan; `report` gets each step."""
    started = time.monotonic()
    notes: list[str] = []

    def step(name: str) -> None:
        notes.append(f"{name} at {time.monotonic() - started:.0f} s")
        report(name)

    step("starts")
    async with staged(
        folder,
        template,
        workers=plan.workers,
        serves=plan.serves,
        seed=plan.seed,
        failover=plan.has("failover"),
    ) as stage:
        api_key = await populate(stage.dsn())
        app = stage.server.url(APP)
        load = Load(lambda: app, stage.ports, api_key)
        injector = Injector(stage.server, stage.supervisor, stage.far_ends, folder / "disk")
        baseline = {service: usage(service.pid) for service in stage.services}
        probes: dict[int, list[Probe]] = {port: [] for port in stage.ports}
        streams = load.streams()
        looking = [asyncio.create_task(probe(port, probes[port])) for port in stage.ports]
        step("faults")
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(plan.actions))
            group.create_task(injector.run(plan.faults))
            group.create_task(run_digests(injector, plan))
        last = time.time()
        step("becomes quiet")
        quiet = await become_quiet(stage.dsn(), last)
        with suppress(TimeoutError):  # a process that was killed last may still be starting
            await until(lambda: all_ready(stage.ports), START_SECONDS)
        step("is checked")
        violations = [] if quiet >= 0 else [Violation("I1/I7", "it does not become quiet")]
        if quiet > LATE_SECONDS and not plan.has("failover"):
            violations.append(Violation("late", f"the last delivery ended after {quiet:.0f} s"))
        violations += await check_badges(load, stage)
        violations += check_resources(stage, baseline, len(plan.actions))
        sessions = violations_of_sessions(stage)
        violations += sessions
        for task in (*streams, *looking):
            task.cancel()
        await asyncio.gather(*streams, *looking, return_exceptions=True)
        ledger = await asyncio.to_thread(read_ledger, stage.dsn())
    step("has ended")
    passages = read_passages(folder / "far-ends.jsonl")
    check = Check(
        ledger, passages, list(load.app_events.values()), load.revocations, injector.windows
    )
    found = check.all()
    ready, slow = check_ready(injector.windows, probes, stage.services, stage.ports)
    violations += found.violations + slow
    violations += [Violation("runner", text) for text in load.refused[:5]]
    violations += [Violation("I10", text) for text in injector.problems]
    violations += check_ends(stage.services)
    violations += check_logs(stage.services, time.monotonic() - started)
    return Result(
        plan.seed,
        dict(Counter(fault.kind for fault in plan.faults)),
        dict(load.responses),
        len(ledger.events),
        len(ledger.deliveries),
        dict(Counter(each.state for each in ledger.deliveries)),
        passages.accepted,
        dict(found.duplicates),
        ready,
        slowest_refusals(injector.windows, probes),
        quiet,
        time.monotonic() - started,
        violations,
        notes,
        injector.windows,
    )


async def populate(dsn: str) -> str:
    """People, devices, followers and digests; returns a key for the API."""
    people = [f"p{number}" for number in range(PEOPLE)]
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as owner:
        await owner.execute(
            "select tocsin.upsert_recipient(n, n || '@example.com') from unnest(%s::text[]) n",
            (people,),
        )
        for number in range(PEOPLE):
            for provider, token, platform in devices(number):
                await owner.execute(
                    "insert into tocsin.device (token, recipient_id, platform, provider) values (%s, %s, %s, %s)",
                    (token, f"p{number}", platform, provider),
                )
        for topic, followers in TOPICS.items():
            for number in followers:
                await owner.execute("select tocsin.subscribe(%s, %s)", (f"p{number}", topic))
        zones = dict.fromkeys(DIGEST, "UTC") | dict(
            zip(DST, ("Europe/Berlin", "America/New_York"), strict=True)
        )
        for number, zone in zones.items():
            await owner.execute(
                "insert into tocsin.digest_preference (recipient_id, frequency, categories, send_at, timezone, next_at)"
                " values (%s, 'daily', '{forum}', '02:30', %s, now() + interval '20 days')",
                (f"p{number}", zone),
            )
        await owner.execute(
            "update tocsin.event_type set max_attempts = 3 where event_type = 'event.changed'"
        )
    database = Database(dsn, max_size=2)
    await database.open()
    try:
        return (await create_api_key(database, "fault runner"))[1]
    finally:
        await database.close()


def devices(number: int) -> list[tuple[str, str, str]]:
    """A person's devices: provider, token, platform."""
    found = []
    if number % 2 == 0:
        found.append(("apns", f"{number:064x}", "ios"))
    if number % 3 == 0:
        found.append(("fcm", f"pixel-{number}", "android"))
    return found


async def run_digests(injector: Injector, plan: Plan) -> None:
    """The digests are due in the middle, and two processes make them in parallel."""
    chance = random.Random(plan.seed)
    await asyncio.sleep(chance.uniform(0.3, 0.9) * min(plan.seconds, 20.0))
    names = [f"p{number}" for number in DIGEST]
    with suppress(psycopg.Error, OSError):
        dsn = injector.dsn()
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as owner:
            await owner.execute(
                "update tocsin.digest_preference set next_at = now() where recipient_id = any(%s)",
                (names,),
            )
    await injector.make_digests(datetime.now(UTC))


async def become_quiet(dsn: str, last: float) -> float:
    """Waits until all deliveries have a final state; returns the seconds since `last`, -1 if they do not."""
    deadline = time.time() + QUIET_SECONDS
    calm = 0
    while time.time() < deadline:
        with suppress(psycopg.Error, OSError):
            async with await psycopg.AsyncConnection.connect(
                dsn, autocommit=True, connect_timeout=3
            ) as owner:
                while time.time() < deadline:
                    await owner.execute(HURRY.encode())
                    left = [
                        (await (await owner.execute(one.encode())).fetchone() or (1,))[0]
                        for one in (UNSETTLED, UNTOLD)
                    ]
                    calm = 0 if any(left) else calm + 1
                    if calm >= 3:
                        return time.time() - last
                    await asyncio.sleep(0.3)
        await asyncio.sleep(0.2)
    return -1.0


# What is checked of the processes.


async def check_badges(load: Load, stage: Stage) -> list[Violation]:
    """Compares REST and streams with the database; a stream may follow after a moment."""
    violations = []
    statement = (
        "select recipient_id, count(*) filter (where in_inbox and archived_at is null and read_at is null)"
        " from tocsin.notification group by 1"
    )
    async with await psycopg.AsyncConnection.connect(stage.dsn(), autocommit=True) as owner:
        rows = await (await owner.execute(statement.encode())).fetchall()
    counts: dict[str, int] = dict(rows)
    for number in range(PEOPLE):
        wanted = counts.get(f"p{number}", 0)
        found = await load.count(number)
        if found == -1:
            found = await load.count(number)
        if found != wanted:
            violations.append(Violation("I6", f"REST counts {found} for p{number}, not {wanted}"))
    for number in STREAMS:
        wanted = counts.get(f"p{number}", 0)
        if not await shows(load, number, wanted):
            text = f"the stream of p{number} shows {load.badges.get(number)}, not {wanted}"
            violations.append(Violation("I6", text))
    return violations


async def shows(load: Load, number: int, wanted: int) -> bool:
    """Whether a person's stream reaches the count within a time limit."""
    with suppress(TimeoutError):
        await until(lambda: load.badges.get(number) == wanted, 15)
        return True
    return False


def check_resources(
    stage: Stage, baseline: dict[Service, tuple[int, int]], calls: int
) -> list[Violation]:
    violations = []
    for service in stage.services:
        memory, descriptors = usage(service.pid)
        before, opened = baseline[service]
        name = f"{service.kind} {service.slot}"
        if descriptors > opened + MORE_DESCRIPTORS:
            text = f"{name} has {descriptors} descriptors open, {opened} before {calls} calls"
            violations.append(Violation("I9", text))
        if memory > before + MORE_MEMORY:
            text = f"{name} has {memory >> 20} MiB, {before >> 20} before {calls} calls"
            violations.append(Violation("I9", text))
    return violations


def violations_of_sessions(stage: Stage) -> list[Violation]:
    most = sum(MOST_SESSIONS[service.kind] for service in stage.services)
    with psycopg.connect(stage.dsn(), autocommit=True) as owner:
        row = owner.execute(SESSIONS.encode()).fetchone()
    count = row[0] if row else 0
    return [Violation("I9", f"{count} sessions, {most} at most")] if count > most else []


def check_ready(
    windows: list[Window],
    probes: dict[int, list[Probe]],
    services: list[Service],
    ports: list[int],
) -> tuple[list[float], list[Violation]]:
    """Seconds from each return of the database until each HTTP process that survived it was ready."""
    times, violations = [], []
    for window in windows:
        if not window.database or any(
            other is not window
            and other.database
            and other.began < window.ended + 5 < other.ended + 5
            for other in windows
        ):
            continue
        for slot, port in enumerate(ports):
            through = any(
                life.alive_at(window.ended + 5) and was_ready(probes[port], life, window.began)
                for life in services[slot].lives
            )
            frozen = any(
                other.kind == "freeze_serve"
                and other.began < window.ended + 5
                and other.ended > window.ended - 1
                for other in windows
            )
            ready = [
                each.at for each in probes[port] if each.status == 200 and each.at > window.ended
            ]
            if not through or frozen:
                continue
            took = (ready[0] if ready else time.time()) - window.ended
            times.append(round(took, 2))
            if took > READY_SECONDS * crowding():
                text = f"serve {slot} was ready {took:.1f} s after {window.kind} of"
                text += f" {window.ended - window.began:.0f} s was over"
                violations.append(Violation("ready", text))
    return times, violations


def crowding() -> float:
    """Running processes per CPU, at least 1: each has to wait for its turn."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def was_ready(probes: list[Probe], life: Life, before: float) -> bool:
    """Whether a process was ready by then."""
    return any(each.status == 200 and life.started < each.at < before for each in probes)


def slowest_refusals(windows: list[Window], probes: dict[int, list[Probe]]) -> list[float]:
    """For each stop of the server, after the processes had time to notice it."""
    found = []
    for window in windows:
        if window.kind != "stop_server":
            continue
        took = [
            each.took
            for one in probes.values()
            for each in one
            if window.began + KNOWN < each.at - each.took and each.at < window.ended
        ]
        if took:
            found.append(round(max(took), 2))
    return found


def check_ends(services: list[Service]) -> list[Violation]:
    return [
        Violation(
            "process",
            f"{service.kind} {service.slot} ended by itself: {life.how}",
            {"log": _tail(service.log), "after": round(life.ended - life.started, 1)},
        )
        for service in services
        for life in service.lives
        if life.how not in {"killed", "stopped", ""}
    ]


def check_logs(services: list[Service], seconds: float) -> list[Violation]:
    violations = []
    for service in services:
        lines = service.log.read_text(errors="replace").splitlines()
        traces = [
            line
            for line in lines
            if ("Traceback" in line or '"exception"' in line) and PROCRASTINATES not in line
        ]
        if traces:
            text = f"{service.kind} {service.slot} logged {len(traces)} tracebacks"
            violations.append(Violation("log", text, {"first": traces[0][:3000]}))
        rare = [line for line in lines if not any(word in line for word in ROUTINE)]
        if len(rare) > MOST_LINES * seconds:
            text = f"{service.kind} {service.slot} logged {len(rare)} lines in {seconds:.0f} s"
            common = Counter(line.partition('"event":')[2][:60] for line in rare).most_common(5)
            violations.append(Violation("log", text, {"most": common}))
    return violations


# Waiting.


async def until(condition: Callable[[], Any], seconds: float) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.05)


async def all_ready(ports: list[int]) -> bool:
    async with new_client(5.0) as client:
        with suppress(httpx.HTTPError):
            for port in ports:
                response = await client.get(f"http://127.0.0.1:{port}/readyz")
                if response.status_code != 200:
                    return False
            return True
    return False


async def offered(dsn: str, workers: int) -> bool:
    """Whether each worker has reported that it runs."""
    statement = "select count(*) from tocsin.process where kind = 'worker'"
    with suppress(psycopg.Error):
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as owner:
            row = await (await owner.execute(statement)).fetchone()
            return row is not None and row[0] >= workers
    return False


async def probe(port: int, probes: list[Probe]) -> None:
    """Requests /readyz repeatedly."""
    async with new_client(15.0) as client:
        while True:
            began = time.time()
            status = 0
            with suppress(httpx.HTTPError):
                status = (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code
            probes.append(Probe(time.time(), time.time() - began, status))
            await asyncio.sleep(0.1)


def _tail(file: Path) -> list[str]:
    return file.read_text(errors="replace").splitlines()[-8:]
