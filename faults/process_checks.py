"""What is checked of the processes: badges, resources, readiness, ends and logs."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx
import psycopg
from msgspec import Struct

from faults.inject import Window
from faults.invariants import Violation
from faults.ledger import SESSIONS
from faults.load import Load, new_client
from faults.plan import PEOPLE, STREAMS
from faults.processes import Life, Service, usage
from faults.stage import Stage, until

KNOWN = 1.0  # seconds after which each process has noticed that PostgreSQL ended
READY_SECONDS = 3.0  # until an HTTP process is ready again after PostgreSQL is back
MOST_SESSIONS = {"serve": 14, "worker": 30}  # docs/operations.md, plus the runner's own
MORE_DESCRIPTORS, MORE_MEMORY = 80, 120 * 2**20  # above what a process had before the load
MOST_LINES = 12.0  # a second and process, without a line for each attempt and each request
ROUTINE = ('"event":"attempt"', '"event":"request"', '"event": "attempt"', '"event": "request"')
# Procrastinate logs it where the end of a job can't be written: the connection was cut, or the job is another's by now.
PROCRASTINATES = "coro=<Worker._process_job() done"


class Probe(Struct):
    """One request of /readyz of an HTTP process."""

    at: float
    took: float
    status: int  # 0: none


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


async def check_badges(load: Load, dsn: str) -> list[Violation]:
    """Compares REST and streams with the database; a stream may follow after a moment."""
    violations = []
    statement = (
        "select recipient_id, count(*) filter (where in_inbox and archived_at is null and read_at is null)"
        " from tocsin.notification group by 1"
    )
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as owner:
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
    """Returns whether a person's stream reaches the count within a time limit."""
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
    """Returns whether a process was ready by then."""
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


def _tail(file: Path) -> list[str]:
    return file.read_text(errors="replace").splitlines()[-8:]
