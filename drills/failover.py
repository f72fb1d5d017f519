"""Failovers by Patroni under load: a killed leader, a partitioned one, and a switchover.

Each with a synchronous and with an asynchronous standby. `make drill-failover` runs it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from msgspec import Struct, structs

from drills.patroni import Node, PatroniCluster
from faults.inject import Window
from faults.invariants import Check, Violation
from faults.journal import read
from faults.ledger import read_ledger, read_passages
from faults.load import COMMITTED, UNKNOWN, Load
from faults.plan import Action, make_actions
from faults.process_checks import (
    Probe,
    check_badges,
    check_ends,
    check_logs,
    crowding,
    probe,
)
from faults.run import become_quiet, populate
from faults.server import APP, OWNER, make_template
from faults.stage import Running, serving, until

EVENTS = ("kill", "partition", "switchover")
BEFORE = 5.0  # seconds of load before the event
LOAD_SECONDS, CALLS_A_SECOND = 50.0, 6.0
LAG = 0.7  # seconds by which the asynchronous standby is behind a killed leader
SETTLE_SECONDS, FAILOVER_SECONDS = 120.0, 90.0
READY_SECONDS = 5.0  # until ready, and until the first badge and the first mail
CANARY = 99  # the person whose badge and mail are measured
FIRST_CANARY = 900_000


class Row(Struct):
    """The result of one event."""

    standby: str
    event: str
    outage: float  # seconds until there is a new leader; the following ones begin there
    ready: float
    badge: float
    mail: float
    confirmed: int  # events whose COMMIT the app saw
    unknown: int  # events whose COMMIT had no response
    lost: int  # confirmed events that are not there
    again: int  # messages sent twice because their outcome could not be known
    violations: list[Violation]


class Drill:
    """The events of one kind of standby, one after the other."""

    def __init__(
        self, cluster: PatroniCluster, running: Running, load: Load, folder: Path, standby: str
    ) -> None:
        self._cluster = cluster
        self._running = running
        self._load = load
        self._folder = folder
        self._standby = standby
        self._owner = cluster.url(OWNER)
        self._windows: list[Window] = []
        self._probes: list[Probe] = []
        self._again = 0
        self._random = random.Random(7)

    async def run(self, events: list[str]) -> list[Row]:
        (port,) = self._running.ports
        tasks = [*self._load.streams(), asyncio.create_task(self._load.follow(CANARY))]
        tasks.append(asyncio.create_task(probe(port, self._probes)))
        started = time.monotonic()
        try:
            rows = [await self._play(number, event) for number, event in enumerate(events)]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        logs = check_logs(self._running.services, time.monotonic() - started)
        rows[-1].violations += [*logs, *check_ends(self._running.services)]
        return rows

    async def _play(self, number: int, event: str) -> Row:
        leader, standby = await self._settled()
        before = set(self._load.app_events)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._load.run(self._actions(number)))
            await asyncio.sleep(BEFORE)
            # after an asynchronous failover the last moments may be missing, otherwise nothing
            may_lose = self._standby == "asynchronous" and event != "switchover"
            window = Window("failover" if may_lose else "stop_server", time.time(), note=event)
            self._windows.append(window)
            await getattr(self, f"_{event}")(leader, standby)
            await until(standby.accepts_writes, FAILOVER_SECONDS)
            window.ended = time.time()
            badge, mail = await self._first_notification(number)
        # not earlier: a former leader that is still stopping confuses Patroni when it comes back
        await self._heal(leader, event)
        row = Row(
            standby=self._standby,
            event=event,
            outage=window.ended - window.began,
            ready=self._ready(window) - window.ended,
            badge=badge - window.ended,
            mail=mail - window.ended,
            confirmed=0,
            unknown=0,
            lost=0,
            again=0,
            violations=[],
        )
        await self._check(row, before)
        return row

    async def _settled(self) -> tuple[Node, Node]:
        """Waits until there is a leader with a standby that follows it."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while (found := await self._cluster.leader()) is None:
            if time.monotonic() > deadline:
                raise TimeoutError("Patroni has no leader with a standby")
            await asyncio.sleep(0.2)
        return found

    def _actions(self, number: int) -> tuple[Action, ...]:
        """Returns the calls during one event, with numbers of their own."""
        first = number * 10_000
        return tuple(
            structs.replace(action, number=first + action.number, target=first + action.target)
            for action in make_actions(self._random, LOAD_SECONDS, rate=CALLS_A_SECOND)
        )

    # The events.

    async def _kill(self, leader: Node, standby: Node) -> None:
        held = list(standby.receivers()) if self._standby == "asynchronous" else []
        for pid in held:
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(LAG if held else 0.0)
        leader.kill()
        for pid in held:  # ends before it reads what the leader sent last
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGCONT)

    async def _partition(self, leader: Node, standby: Node) -> None:
        leader.cut_off()

    async def _switchover(self, leader: Node, standby: Node) -> None:
        await self._cluster.switch_over(leader, standby)

    async def _heal(self, former: Node, event: str) -> None:
        if event == "kill":
            former.start_patroni()
        elif event == "partition":
            former.reconnect()

    # Measurements and checks.

    async def _first_notification(self, number: int) -> tuple[float, float]:
        """Returns when the first notification on the new leader moved a badge, and when its mail was accepted."""
        badge = self._load.badges.get(CANARY, 0)
        deadline = time.monotonic() + FAILOVER_SECONDS
        canary = FIRST_CANARY + 1000 * number
        while True:
            action = Action(canary, 0.0, "sql", (CANARY,), "compliance.overdue", "commit")
            await self._load.run((action,))
            if self._load.app_events[canary].outcome == COMMITTED:
                break
            if time.monotonic() > deadline:
                raise TimeoutError("no notification is stored on the new leader")
            canary += 1
            await asyncio.sleep(0.1)
        await until(lambda: self._load.badges.get(CANARY, 0) > badge, FAILOVER_SECONDS)
        shown = time.time()
        await until(lambda: self._mailed(action.marker), FAILOVER_SECONDS)
        return shown, self._mailed(action.marker)

    def _mailed(self, marker: str) -> float:
        """Returns when the mail of an event was accepted; 0.0 if it was not."""
        journal = self._folder / "far-ends.jsonl"
        if marker.encode() in journal.read_bytes():
            for line in read(journal):
                if marker in line.get("markers", ()) and line["result"] == "accepted":
                    return float(line["at"])
        return 0.0

    def _ready(self, window: Window) -> float:
        """Returns when /readyz succeeded first after the event."""
        ready = (each.at for each in self._probes if each.status == 200)
        return next((at for at in ready if at > window.ended), float("inf"))

    async def _check(self, row: Row, before: set[int]) -> None:
        """Waits until all is quiet, counts, and checks everything that was stored and sent until now."""
        if await become_quiet(self._owner, time.time()) < 0:
            row.violations.append(Violation("I1/I7", "it does not become quiet"))
        row.violations += await check_badges(self._load, self._owner)
        ledger = await asyncio.to_thread(read_ledger, self._owner)
        passages = read_passages(self._folder / "far-ends.jsonl")
        events = self._load.app_events
        revocations = self._load.revocations
        check = Check(ledger, passages, list(events.values()), revocations, self._windows)
        found = check.all()
        row.violations += found.violations
        row.violations += [Violation("drill", text) for text in self._load.refused]
        self._load.refused.clear()
        again = sum(found.duplicates.values())
        row.again, self._again = again - self._again, again
        mine = [event for number, event in events.items() if number not in before]
        outcomes = Counter(event.outcome for event in mine)
        row.confirmed, row.unknown = outcomes[COMMITTED], outcomes[UNKNOWN]
        there = {event.marker for event in ledger.events}
        row.lost = sum(
            event.outcome == COMMITTED and event.action.marker not in there for event in mine
        )
        limit = READY_SECONDS * crowding()
        for name in ("ready", "badge", "mail"):
            if (took := getattr(row, name)) > limit:
                row.violations.append(Violation("late", f"{name} after {took:.1f} s"))


async def run_standby(
    standby: str, events: list[str], folder: Path, template: Path, *, entrance: str
) -> list[Row]:
    """Runs the events with one kind of standby, on a new installation."""
    async with AsyncExitStack() as stack:
        synchronous = standby == "synchronous"
        cluster = PatroniCluster(folder, template, synchronous=synchronous, entrance=entrance)
        stack.callback(cluster.end)
        await cluster.start()
        owner, app = cluster.url(OWNER), cluster.url(APP)
        running = await stack.enter_async_context(serving(folder, owner, workers=2, serves=1))
        api_key = await populate(owner, [CANARY])
        load = Load(lambda: app, running.ports, api_key)
        return await Drill(cluster, running, load, folder, standby).run(events)


def table(rows: list[Row]) -> str:
    """Returns a line for each event."""
    head = (
        ["standby", "event"],
        ["new leader, s", "ready, s", "badge, s", "mail, s"],
        ["confirmed", "unknown", "lost", "twice", "violations"],
    )
    names = [name for group in head for name in group]
    lines = ["| " + " | ".join(names) + " |", "| --- | --- |" + " ---: |" * (len(names) - 2)]
    lines += [
        f"| {row.standby} | {row.event} | {row.outage:.1f} | {row.ready:.1f} | {row.badge:.1f} | {row.mail:.1f}"
        f" | {row.confirmed} | {row.unknown} | {row.lost} | {row.again} | {len(row.violations)} |"
        for row in rows
    ]
    for row in rows:
        for violation in row.violations[:10]:
            lines.append(f"{row.standby} {row.event}: {violation.invariant}: {violation.text}")
            lines.append(f"    {str(violation.evidence)[:2000]}")
    return "\n".join(lines)


def _no_data(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name in {"postgres", "etcd"}]


def main() -> int:
    """Runs the drill; returns 1 if an invariant was violated."""
    parser = argparse.ArgumentParser(prog="python -m drills.failover", description=__doc__)
    kinds = ("synchronous", "asynchronous")
    parser.add_argument("--standby", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--events", nargs="+", choices=EVENTS, default=EVENTS)
    parser.add_argument(
        "--entrance",
        choices=("haproxy", "haproxy-open", "hosts"),
        default="haproxy",
        help="haproxy-open closes no connection to a former leader; hosts: both nodes in the DSN",
    )
    parser.add_argument("--keep", type=Path, help="a new folder for the logs")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="tocsin-drill-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        make_template(folder / "template")
        for standby in options.standby:
            place = folder / standby
            place.mkdir()
            place.chmod(0o755)
            try:
                found = asyncio.run(
                    run_standby(
                        standby,
                        options.events,
                        place,
                        folder / "template",
                        entrance=options.entrance,
                    )
                )
            finally:
                if options.keep is not None:
                    shutil.copytree(place, options.keep / standby, ignore=_no_data)
            print(table(found), flush=True)
            rows += found
    return 1 if any(row.violations for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
