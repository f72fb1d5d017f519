"""One seed from its start to its result."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from msgspec import Struct, field

from faults.inject import Injector, Window
from faults.invariants import Check, Violation
from faults.ledger import MAKE_DUE, NOT_FANNED_OUT, UNSETTLED, Ledger, read_ledger, read_passages
from faults.load import Load
from faults.plan import DIGEST, DST, PEOPLE, TOPICS, Plan
from faults.process_checks import (
    Probe,
    check_badges,
    check_ends,
    check_logs,
    check_ready,
    check_resources,
    probe,
    slowest_refusals,
    violations_of_sessions,
)
from faults.processes import usage
from faults.server import APP
from faults.stage import START_SECONDS, Stage, all_ready, staged, until
from tocsin.engine.store.credential import create_api_key
from tocsin.engine.store.database import Database

QUIET_SECONDS = 240.0  # the longest wait for it
# A lease of 30 s, a job's rescue within a minute; waits for retries are shortened.
LATE_SECONDS = 90.0
DISK = "256m"


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


async def run_seed(
    plan: Plan, folder: Path, template: Path, report: Callable[[str], None]
) -> Result:
    """Runs one plan; `report` gets each step."""
    run = Run(plan, folder, report)
    run.step("starts")
    async with staged(
        folder,
        template,
        workers=plan.workers,
        serves=plan.serves,
        seed=plan.seed,
        failover=plan.has("failover"),
    ) as stage:
        api_key, app = await populate(stage.dsn()), stage.server.url(APP)
        load = Load(lambda: app, stage.ports, api_key)
        injector = Injector(stage.server, stage.supervisor, stage.far_ends, folder / "disk")
        await run.play(stage, load, injector)
        ledger = await asyncio.to_thread(read_ledger, stage.dsn())
    run.step("has ended")
    return run.result(stage, load, injector, ledger)


class Run:
    """One plan: what it has found so far."""

    def __init__(self, plan: Plan, folder: Path, report: Callable[[str], None]) -> None:
        self._plan = plan
        self._folder = folder
        self._report = report
        self._started = time.monotonic()
        self._notes: list[str] = []
        self._violations: list[Violation] = []
        self._probes: dict[int, list[Probe]] = {}
        self._quiet = -1.0

    def step(self, name: str) -> None:
        self._notes.append(f"{name} at {time.monotonic() - self._started:.0f} s")
        self._report(name)

    async def play(self, stage: Stage, load: Load, injector: Injector) -> None:
        """Load and faults, until all is quiet again; then checks what runs."""
        baseline = {service: usage(service.pid) for service in stage.services}
        self._probes = {port: [] for port in stage.ports}
        probing = [asyncio.create_task(probe(port, self._probes[port])) for port in stage.ports]
        watching = [*load.streams(), *probing]
        self.step("faults")
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(self._plan.actions))
            group.create_task(injector.run(self._plan.faults))
            group.create_task(run_digests(injector, self._plan))
        last = time.time()
        self.step("becomes quiet")
        self._quiet = await become_quiet(stage.dsn(), last)
        with suppress(TimeoutError):  # a process that was killed last may still be starting
            await until(lambda: all_ready(stage.ports), START_SECONDS)
        self.step("is checked")
        self._check_quiet()
        self._violations += await check_badges(load, stage.dsn())
        self._violations += check_resources(stage, baseline, len(self._plan.actions))
        self._violations += violations_of_sessions(stage)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)

    def _check_quiet(self) -> None:
        if self._quiet < 0:
            self._violations.append(Violation("I1/I7", "it does not become quiet"))
        if self._quiet > LATE_SECONDS and not self._plan.has("failover"):
            text = f"the last delivery ended after {self._quiet:.0f} s"
            self._violations.append(Violation("late", text))

    def result(self, stage: Stage, load: Load, injector: Injector, ledger: Ledger) -> Result:
        """Checks the ledger, and what the processes left behind."""
        passages = read_passages(self._folder / "far-ends.jsonl")
        events = list(load.app_events.values())
        found = Check(ledger, passages, events, load.revocations, injector.windows).all()
        ready, slow = check_ready(injector.windows, self._probes, stage.services, stage.ports)
        seconds = time.monotonic() - self._started
        violations = [*self._violations, *found.violations, *slow]
        violations += [Violation("runner", text) for text in load.refused[:5]]
        violations += [Violation("I10", text) for text in injector.problems]
        violations += check_ends(stage.services)
        violations += check_logs(stage.services, seconds)
        return Result(
            seed=self._plan.seed,
            faults=dict(Counter(fault.kind for fault in self._plan.faults)),
            calls=dict(load.responses),
            events=len(ledger.events),
            deliveries=len(ledger.deliveries),
            states=dict(Counter(each.state for each in ledger.deliveries)),
            accepted=passages.accepted,
            duplicates=dict(found.duplicates),
            ready=ready,
            refusals=slowest_refusals(injector.windows, self._probes),
            quiet=self._quiet,
            seconds=seconds,
            violations=violations,
            notes=self._notes,
            windows=injector.windows,
        )


async def populate(dsn: str, more: Sequence[int] = ()) -> str:
    """People (`more` ones without devices), devices, followers and digests; returns a key for the API."""
    people = [f"p{number}" for number in (*range(PEOPLE), *more)]
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
        # events of the larger topic are fanned out after the call
        most = min(len(followers) for followers in TOPICS.values())
        await owner.execute(
            "create or replace function tocsin.fan_out_at_once() returns integer language sql immutable"
            f" as 'select {most}'"
        )
        for topic, followers in TOPICS.items():
            for number in followers:
                await owner.execute("select tocsin.subscribe(%s, %s)", (f"p{number}", topic))
        # the digests of the first are made by hand: their own hour is half a day away
        far = f"{datetime.now(UTC) + timedelta(hours=12):%H:%M}"
        hours = dict.fromkeys(DIGEST, ("UTC", far)) | {
            number: (zone, "02:30")
            for number, zone in zip(DST, ("Europe/Berlin", "America/New_York"), strict=True)
        }
        for number, (zone, hour) in hours.items():
            await owner.execute(
                "insert into tocsin.digest_preference (recipient_id, frequency, categories, send_at, timezone, next_at)"
                " values (%s, 'daily', '{forum}', %s, %s, now() + interval '20 days')",
                (f"p{number}", hour, zone),
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
    """Returns a person's devices: provider, token, platform."""
    found = []
    if number % 2 == 0:
        found.append(("apns", f"{number:064x}", "ios"))
    if number % 3 == 0:
        found.append(("fcm", f"pixel-{number}", "android"))
    return found


async def run_digests(injector: Injector, plan: Plan) -> None:
    """Makes the digests that are due in the middle, by two processes in parallel."""
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
    quiet = 0
    while time.time() < deadline:
        with suppress(psycopg.Error, OSError):
            async with await psycopg.AsyncConnection.connect(
                dsn, autocommit=True, connect_timeout=3
            ) as owner:
                while time.time() < deadline:
                    await owner.execute(MAKE_DUE.encode())
                    left = [
                        (await (await owner.execute(one.encode())).fetchone() or (1,))[0]
                        for one in (UNSETTLED, NOT_FANNED_OUT)
                    ]
                    quiet = 0 if any(left) else quiet + 1
                    if quiet >= 3:
                        return time.time() - last
                    await asyncio.sleep(0.3)
        await asyncio.sleep(0.2)
    return -1.0
