"""Time from sending COMMIT until the bytes of an event stream are at its reader, under three kinds of load."""

from __future__ import annotations

import asyncio
import random
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import jwt
import psycopg

PERSON = "p3"  # not among those whom pgbench notifies
IDLE, LOADED, HELD = "isolated commits", "beside 32 clients", "held at random"
HOLDERS = 8
_EVENT = re.compile(rb'"event_id":\s*(\d+)')
_NOTIFY = f"select tocsin.notify('forum.new_reply', array['{PERSON}'], 'New reply', 'Bob replied.')"


@dataclass
class Latencies:
    """Milliseconds of each commit, by its load."""

    taken: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def p99(self, load: str) -> float:
        return statistics.quantiles(self.taken[load], n=100)[98]

    def most(self, load: str) -> float:
        return max(self.taken[load])

    def measured(self) -> dict[str, list[float]]:
        return {
            f"{load}, {name}": [value]
            for load, taken in self.taken.items()
            for name, value in (
                ("p50", statistics.median(taken)),
                ("p99", self.p99(load)),
                ("most", self.most(load)),
            )
        }

    def counts(self) -> dict[str, int]:
        return {load: len(taken) for load, taken in self.taken.items()}


class Stream:
    """One reader of the person's event stream: the times when the bytes of each event came."""

    def __init__(self, port: int, secret: str) -> None:
        self._port = port
        claims = {"sub": PERSON, "exp": datetime.now(UTC) + timedelta(hours=1)}
        self._token = jwt.encode(claims, secret, algorithm="HS256")
        self.came: dict[int, float] = {}
        self._any = asyncio.Condition()

    async def read(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        head = f"Host: localhost\r\nAuthorization: Bearer {self._token}\r\n\r\n"
        writer.write(f"GET /api/notifications/stream/ HTTP/1.1\r\n{head}".encode())
        while line := await reader.readline():
            now = time.perf_counter()
            for found in _EVENT.finditer(line):
                self.came[int(found[1])] = now
            async with self._any:
                self._any.notify_all()
        raise SystemExit("the stream ended")

    async def wait_for(self, event_id: int) -> float:
        async with self._any, asyncio.timeout(60):
            await self._any.wait_for(lambda: event_id in self.came)
        return self.came[event_id]


async def measure_latencies(
    dsn: str,
    port: int,
    secret: str,
    load: Sequence[str],
    rest: Callable[[], None],
    *,
    commits: int = 110,
) -> Latencies:
    """Commits one by one, then beside the command `load`, then with several open transactions; with pauses."""
    latencies, stream = Latencies(), Stream(port, secret)
    reading = asyncio.create_task(stream.read())
    async with await psycopg.AsyncConnection.connect(dsn) as app:
        await asyncio.to_thread(rest)
        for _ in range(5):
            await _notify(app, stream)
        for _ in range(commits):
            await asyncio.sleep(0.12)  # until the leader is idle again
            latencies.taken[IDLE].append(await _notify(app, stream))
        beside = await asyncio.create_subprocess_exec(
            *load, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        await asyncio.sleep(1)
        while beside.returncode is None:
            latencies.taken[LOADED].append(await _notify(app, stream))
            await asyncio.sleep(0.01)
    await asyncio.to_thread(rest)
    until = time.perf_counter() + 12
    held = await asyncio.gather(*(_hold(dsn, stream, until) for _ in range(HOLDERS)))
    latencies.taken[HELD] = [one for several in held for one in several]
    reading.cancel()
    return latencies


async def _notify(app: psycopg.AsyncConnection, stream: Stream) -> float:
    row = await (await app.execute(_NOTIFY)).fetchone()
    assert row is not None
    sent = time.perf_counter()
    await app.commit()
    return 1000 * (await stream.wait_for(row[0]) - sent)


async def _hold(dsn: str, stream: Stream, until: float) -> list[float]:
    """Returns an app whose transactions are open for up to half a second; 15 % of them are rolled back."""
    latencies = []
    async with await psycopg.AsyncConnection.connect(dsn) as app:
        while time.perf_counter() < until:
            row = await (await app.execute(_NOTIFY)).fetchone()
            assert row is not None
            await asyncio.sleep(random.choice((0, random.random() * 0.05, random.random() * 0.5)))
            if random.random() < 0.15:
                await app.rollback()
            else:
                sent = time.perf_counter()
                await app.commit()
                latencies.append(1000 * (await stream.wait_for(row[0]) - sent))
            await asyncio.sleep(random.random() * 0.2)
    return latencies
