"""What announcing depends on in PostgreSQL, on a clock that only jumps to the next timer: commits, locks, scans."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

from tocsin.engine.store.dispatch import Scan


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer, so that nothing in it takes real time."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(selectors.SelectSelector())
        waits = self._selector.select  # type: ignore[attr-defined]

        def select(timeout: float | None = None) -> Any:
            self._now += timeout or 0.0
            return waits(0)

        self._selector.select = select  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._now


class SimulatedPostgres:
    """Transactions, and the leader's session (the methods of LeaderSession that the listener uses).

    A commit takes `flush` seconds. Those that send a signal go one by one, the others together. A scan takes
    `scan_seconds`.
    """

    pid = 1

    def __init__(self, *, scan_seconds: float, flush: float) -> None:
        self.scan_seconds, self.flush = scan_seconds, flush
        self.scans = self.announced_by_commit = self.commits = 0
        self.delays: list[float] = []  # from COMMIT to the announcement
        self._idle = False
        self._without_signal = 0  # transactions that keep the leader from becoming idle
        self._unseen: list[
            float
        ] = []  # when those called COMMIT that are committed without a signal
        self._turn, self._waiting = asyncio.Lock(), 0
        self._signal, self._signals = asyncio.Event(), 0

    async def commit(self) -> None:
        """A transaction that changes an inbox."""
        called = self._clock()
        if self._idle:
            self._waiting += 1
            async with self._turn:
                self._waiting -= 1
                await asyncio.sleep(self.flush)
            self.announced_by_commit += 1
            self.delays.append(self._clock() - called)
            self._signals += 1
            self._signal.set()
        else:
            self._without_signal += 1
            await asyncio.sleep(self.flush)
            self._unseen.append(called)
            self._without_signal -= 1
        self.commits += 1

    async def scan(self, since: str | None, *, announce: bool, start_idle: bool = False) -> Scan:
        self.scans += 1
        found, self._unseen = self._unseen, []
        await asyncio.sleep(self.scan_seconds)
        assert announce or since is None or not found, "committed without a signal or a scan"
        self.delays += [self._clock() - called for called in found]
        started = start_idle and not self._without_signal
        self._idle = self._idle or started
        people = ["alice"] * len(found)
        return Scan("1:1:", people, [], [], [], [], started, None if announce else self._waiting)

    async def wait_for_wake(self, timeout: float) -> int:
        try:
            await asyncio.wait_for(self._signal.wait(), timeout)
        except TimeoutError:
            return 0
        self._signal.clear()
        signals, self._signals = self._signals, 0
        return signals

    async def stop_idle(self) -> None:
        self._idle = False

    async def listen(self) -> None:
        pass

    async def announce_everyone(self) -> None:
        pass

    async def record_heartbeat(self) -> bool:
        return True

    def _clock(self) -> float:
        return asyncio.get_running_loop().time()


async def at_rate(postgres: SimulatedPostgres, rate: float, seconds: float) -> None:
    """Commits at random times, whether or not earlier ones are done."""
    chance = random.Random(1)
    async with asyncio.TaskGroup() as group:
        for _ in range(int(rate * seconds)):
            await asyncio.sleep(chance.expovariate(rate))
            group.create_task(postgres.commit())


async def by_clients(
    postgres: SimulatedPostgres, clients: int, work: float, seconds: float
) -> None:
    """Each client commits, and works a random time before it does so again."""
    chance = random.Random(1)
    end = asyncio.get_running_loop().time() + seconds

    async def client() -> None:
        while asyncio.get_running_loop().time() < end:
            await asyncio.sleep(chance.expovariate(1 / work))
            await postgres.commit()

    await asyncio.gather(*(client() for _ in range(clients)))


def simulate(run: Callable[[], Awaitable[SimulatedPostgres]]) -> SimulatedPostgres:
    """Returns what a coroutine function does on a loop of its own."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(_awaited(run))


async def _awaited(run: Callable[[], Awaitable[SimulatedPostgres]]) -> SimulatedPostgres:
    return await run()
