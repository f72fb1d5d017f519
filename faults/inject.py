"""Carries out a plan's faults, and records when each really began and ended."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from msgspec import Struct

from faults.plan import DST, Fault
from faults.processes import Service, Supervisor
from faults.server import OWNER, Pair, Server, accepts
from tocsin.engine.model import Conflict, Unavailable
from tocsin.engine.store.database import Database
from tocsin.engine.store.digest import make_digests

LIBFAKETIME = next(
    Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), Path("/nowhere/libfaketime.so.1")
)
SHIFT = 3540  # seconds: an hour, less the minute that certificates allow
BALLAST = "ballast"
CHANGES = {  # a time zone and the day on which its clock changes at about the digest's hour, 02:30
    "Europe/Berlin": ("2027-03-28", "2027-10-31"),
    "America/New_York": ("2027-03-14", "2027-11-07"),
}


class Window(Struct):
    """A fault as it happened (Unix seconds); `ended` is the time when its cause ended."""

    kind: str
    began: float
    ended: float = 0.0
    slot: int = -1  # of the affected worker
    pid: int = 0
    note: str = ""

    @property
    def database(self) -> bool:
        """Whether the database was unavailable."""
        return self.kind in {
            "stop_server",
            "freeze_server",
            "crash_backend",
            "disk_full",
            "failover",
        }


class Injector:
    """The faults of one run."""

    def __init__(
        self,
        server: Server,
        supervisor: Supervisor,
        far_ends: subprocess.Popen[str],
        ballast: Path | None,
    ) -> None:
        self._server = server
        self._supervisor = supervisor
        self._far_ends = far_ends
        self._ballast = ballast  # a folder of the same small disk as the database
        self.windows: list[Window] = []
        self.problems: list[str] = []

    def dsn(self) -> str:
        return self._server.url(OWNER)

    async def run(self, faults: tuple[Fault, ...]) -> None:
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                group.create_task(self._at(fault, started + fault.at))

    async def _at(self, fault: Fault, when: float) -> None:
        await asyncio.sleep(max(0.0, when - time.monotonic()))
        window = Window(fault.kind, time.time())
        self.windows.append(window)
        channel, _, mode = fault.kind.partition("_")
        if channel in {"smtp", "apns", "fcm"}:
            await self._misbehave(channel, mode, fault)
        else:
            await getattr(self, f"_{fault.kind}")(fault, window)
        window.ended = window.ended or time.time()

    async def _misbehave(self, channel: str, mode: str, fault: Fault) -> None:
        share = fault.share
        if mode in {"hang", "hang_after_data", "rst", "410", "drop"}:
            share = min(share, 0.3)
        self._command(channel, mode, share)
        await asyncio.sleep(fault.seconds)
        self._command(channel, "", 1.0)

    def _command(self, channel: str, mode: str, share: float) -> None:
        assert self._far_ends.stdin is not None
        line = {"channel": channel, "mode": mode, "share": share}
        self._far_ends.stdin.write(json.dumps(line) + "\n")
        self._far_ends.stdin.flush()

    # Our processes.

    def _slots(self, kind: str) -> list[Service]:
        return [service for service in self._supervisor.services if service.kind == kind]

    def _worker(self, fault: Fault) -> Service:
        workers = self._slots("worker")
        return workers[fault.number % len(workers)]

    async def _kill(self, service: Service, fault: Fault, window: Window) -> None:
        self._supervisor.held.add(service)
        window.slot = service.slot if service.kind == "worker" else -1
        window.pid, window.note = service.pid, f"{service.kind} {service.slot}"
        window.began = time.time()  # the search for it may have taken a while
        service.kill()
        await asyncio.sleep(fault.seconds)
        self._supervisor.held.discard(service)

    async def _kill_worker(self, fault: Fault, window: Window) -> None:
        await self._kill(self._worker(fault), fault, window)

    async def _kill_serve(self, fault: Fault, window: Window) -> None:
        services = self._slots("serve")
        await self._kill(services[fault.number % len(services)], fault, window)

    async def _kill_leader(self, fault: Fault, window: Window) -> None:
        leader = self._worker(fault)
        statement = "select pid from tocsin.process where (report ->> 'leading')::boolean"
        with suppress(psycopg.Error):
            url = self._server.url(OWNER)
            async with await psycopg.AsyncConnection.connect(url, connect_timeout=2) as owner:
                pids = {row[0] for row in await (await owner.execute(statement)).fetchall()}
            found = [each for each in self._supervisor.services if each.pid in pids]
            leader = found[0] if found else leader
        await self._kill(leader, fault, window)

    async def _frozen(self, service: Service, fault: Fault, window: Window) -> None:
        window.slot = service.slot if service.kind == "worker" else -1
        window.pid, window.note = service.pid, f"{service.kind} {service.slot}"
        service.freeze()
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            service.resume()

    async def _freeze_worker(self, fault: Fault, window: Window) -> None:
        await self._frozen(self._worker(fault), fault, window)

    _freeze_worker_beyond_lease = _freeze_worker

    async def _freeze_serve(self, fault: Fault, window: Window) -> None:
        services = self._slots("serve")
        await self._frozen(services[fault.number % len(services)], fault, window)

    async def _freeze_far_end(self, fault: Fault, window: Window) -> None:
        os.kill(self._far_ends.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            os.kill(self._far_ends.pid, signal.SIGCONT)

    async def _clock(self, fault: Fault, window: Window) -> None:
        """Starts a worker with a wrong clock, and then replaces it by one with the right clock."""
        service = self._worker(fault)
        window.slot = service.slot
        sign = "+" if fault.number % 2 else "-"
        window.note = f"worker {service.slot} {sign}{SHIFT} s"
        service.extra = {
            "LD_PRELOAD": str(LIBFAKETIME),
            "FAKETIME": f"{sign}{SHIFT}s",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        service.terminate()
        await asyncio.sleep(fault.seconds)
        service.extra = {}
        service.terminate()

    # The database.

    async def _stop_server(self, fault: Fault, window: Window) -> None:
        await asyncio.to_thread(self._server.stop)
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(self._server.start)
        window.ended = time.time()
        await self.returned(window)

    async def _freeze_server(self, fault: Fault, window: Window) -> None:
        self._server.signal_all(signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            self._server.signal_all(signal.SIGCONT)

    async def _crash_backend(self, fault: Fault, window: Window) -> None:
        """PostgreSQL then ends all sessions and recovers."""
        pids = await self._backends()
        random.Random(fault.number).shuffle(pids)
        for pid in pids:
            with suppress(ProcessLookupError):  # some sessions are short
                os.kill(pid, signal.SIGKILL)
                break
        await asyncio.sleep(0.05)
        await self.returned(window)
        window.ended = time.time()

    async def _terminate_all(self, fault: Fault, window: Window) -> None:
        await self._terminate(fault, window, lambda pids: pids)

    async def _terminate_some(self, fault: Fault, window: Window) -> None:
        chance = random.Random(fault.number)
        await self._terminate(fault, window, lambda pids: chance.sample(pids, len(pids) // 2))

    async def _terminate(
        self, fault: Fault, window: Window, choose: Callable[[list[int]], list[int]]
    ) -> None:
        """Repeats it every two seconds."""
        ends = time.monotonic() + fault.seconds
        cut = 0
        while True:
            with suppress(psycopg.Error):  # another fault of the database at the same time
                cut += await asyncio.to_thread(self._server.terminate, choose)
            window.note = f"{cut} sessions"
            if time.monotonic() + 2.0 > ends:
                return
            await asyncio.sleep(2.0)

    async def _disk_full(self, fault: Fault, window: Window) -> None:
        assert self._ballast is not None
        file = self._ballast / BALLAST
        await asyncio.to_thread(_fill, file)
        try:
            await asyncio.sleep(fault.seconds)
            window.note = "PostgreSQL ran on" if self._server.runs else "PostgreSQL ended"
        finally:
            file.unlink()
        if not await self._comes_back():
            await asyncio.to_thread(self._server.start)
        window.ended = time.time()
        await self.returned(window)

    async def _comes_back(self) -> bool:
        """Returns whether it recovers by itself."""
        for _ in range(50):
            if not self._server.runs:
                return False
            if await accepts(self._server.url(OWNER)):
                return True
            await asyncio.sleep(0.1)
        return self._server.runs

    async def _failover(self, fault: Fault, window: Window) -> None:
        assert isinstance(self._server, Pair)
        while not await self._replicates(self._server):  # only the last moments may be lost
            await asyncio.sleep(0.05)
        window.began = time.time()
        self._server.hold_replication()
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(self._server.fail_over)
        await self.returned(window)
        window.ended = time.time()

    async def _replicates(self, pair: Pair) -> bool:
        try:
            return await asyncio.to_thread(pair.replicates)
        except psycopg.Error:
            return False

    async def _backends(self) -> list[int]:
        try:
            return await asyncio.to_thread(self._server.backends)
        except psycopg.Error:
            return []

    async def returned(self, window: Window) -> None:
        """Waits until the database executes a statement again."""
        while not await accepts(self._server.url(OWNER)):
            await asyncio.sleep(0.02)

    # The calendar.

    async def _dst(self, fault: Fault, window: Window) -> None:
        """Digests at 02:30 through a night in which that hour is missing, or comes twice."""
        for i, person in enumerate(DST):
            zone = list(CHANGES)[i % len(CHANGES)]
            day = datetime.fromisoformat(CHANGES[zone][fault.number % 2])
            local = ZoneInfo(zone)
            before = (day - timedelta(days=1)).replace(hour=2, minute=30, tzinfo=local)
            try:
                first = await self._digest_after(person, before.timestamp())
                second = await self._digest_after(person, first)
            except (psycopg.Error, OSError) as error:
                window.note = f"not done: {type(error).__name__}"
                return  # another fault at the same time
            _check_hours(self.problems, zone, day, (before.timestamp(), first, second))

    async def _digest_after(self, person: int, due: float) -> float:
        """Runs the digests a minute after that time, twice in parallel; returns when the person's next one is due."""
        set_next = (
            "update tocsin.digest_preference set next_at = to_timestamp(%s) where recipient_id = %s"
        )
        read_next = "select extract(epoch from next_at)::float8 from tocsin.digest_preference where recipient_id = %s"
        url = self._server.url(OWNER)
        name = f"p{person}"
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as owner:
            await owner.execute(set_next, (due, name))
        await self.make_digests(datetime.fromtimestamp(due + 60, UTC))
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as owner:
            row: Any = await (await owner.execute(read_next, (name,))).fetchone()
        return float(row[0])

    async def make_digests(self, now: datetime) -> None:
        """Runs `tocsin digest run --now` in two processes in parallel."""
        database = Database(self.dsn(), max_size=2)
        try:
            await database.open()
            await asyncio.gather(
                *(make_digests(database, now, at_once=True) for _ in range(2)),
                return_exceptions=True,
            )
        except (Unavailable, Conflict):
            pass  # another fault at the same time
        finally:
            await database.close()


def _check_hours(
    problems: list[str], zone: str, day: datetime, due: tuple[float, float, float]
) -> None:
    """Checks that the next digest is on the day of the change, the one after it on the next day at the chosen hour."""
    local = [datetime.fromtimestamp(each, ZoneInfo(zone)) for each in due]
    shifted = local[1].date() == day.date() and local[1].hour in {1, 2, 3}
    after = day + timedelta(days=1)
    settled = (local[2].date(), local[2].hour, local[2].minute) == (after.date(), 2, 30)
    if not (shifted and settled):
        problems.append(f"digests of {zone} are due at {', '.join(map(str, local))}")


def _fill(file: Path) -> None:
    """Fills the rest of the disk."""
    with file.open("wb", buffering=0) as ballast:
        with suppress(OSError):
            while True:
                ballast.write(bytes(2**20))
        with suppress(OSError):
            while True:
                ballast.write(bytes(4096))
