"""Measures single outages: how many mails are sent twice, and how long until the service is back.

`make faults SCENARIO=outage LENGTHS=20,45,90,140`, and likewise promotion, freeze-server, terminate-connections.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import psycopg
from msgspec import Struct

from faults.journal import read
from faults.ledger import UNSETTLED
from faults.server import APP, OWNER, Pair, accepts
from faults.stage import Stage, all_ready, staged, until

PEOPLE = 800
UNDER_WAY = 100  # mails that are accepted before the outage
DELAY = 0.05  # seconds that the mail server needs for each
READY_LIMIT = 200.0
QUIET_LIMIT = 400.0
CUT_EVERY, CUT_FOR = 4.0, 40.0
URGENT = 5.0  # high-priority mails a second

Outage = Callable[[Stage, float], Awaitable[None]]


class Row(Struct):
    """The result of one outage."""

    length: float
    meanwhile: int  # mails accepted while the database was unavailable
    twice: int  # of these
    twice_in_all: int
    missing: int
    ready: float  # seconds after the database was back
    first_mail: float
    last_mail: float


def run_scenario(name: str, lengths: list[float], folder: Path) -> int:
    """Runs a scenario by its name and prints its table; returns the exit status."""
    if name == "terminate-connections":
        return asyncio.run(_terminate_connections(folder))
    outages: dict[str, Outage] = {
        "outage": _stop,
        "promotion": _promote,
        "freeze-server": _freeze,
    }
    rows = []
    for length in lengths:
        place = folder / f"{name}-{length:.0f}"
        place.mkdir()
        place.chmod(0o755)
        failover = name == "promotion"
        rows.append(asyncio.run(_measure(outages[name], length, place, folder, failover)))
        print(_table(rows[-1:], head=len(rows) == 1), flush=True)
    return (
        1 if any(row.missing or (row.twice_in_all and name != "promotion") for row in rows) else 0
    )


async def _stop(stage: Stage, length: float) -> None:
    await asyncio.to_thread(stage.server.stop)
    await asyncio.sleep(length)
    await asyncio.to_thread(stage.server.start)


async def _freeze(stage: Stage, length: float) -> None:
    stage.server.signal_all(signal.SIGSTOP)
    await asyncio.sleep(length)
    stage.server.signal_all(signal.SIGCONT)


async def _promote(stage: Stage, length: float) -> None:
    server = stage.server
    assert isinstance(server, Pair)
    await asyncio.to_thread(server.stop)
    await asyncio.sleep(length)
    await asyncio.to_thread(server.fail_over)


async def _measure(outage: Outage, length: float, folder: Path, work: Path, failover: bool) -> Row:
    async with staged(
        folder, work / "template", workers=2, serves=1, failover=failover, delay=DELAY
    ) as stage:
        names = [f"q{number}" for number in range(PEOPLE)]
        async with await psycopg.AsyncConnection.connect(stage.dsn(), autocommit=True) as owner:
            await owner.execute(
                "select tocsin.upsert_recipient(n, n || '@example.com') from unnest(%s::text[]) n",
                (names,),
            )
            await owner.execute(
                "select tocsin.notify('bulletin.new_org', %s, 'M000001 to all')", (names,)
            )
        journal = folder / "far-ends.jsonl"
        await until(lambda: len(_accepted(journal)) >= UNDER_WAY, 60)
        stopped = time.time()
        await outage(stage, length)
        await until(lambda: accepts(stage.server.url(OWNER)), 60)
        back = time.time()
        await until(lambda: all_ready(stage.ports), READY_LIMIT)
        ready = time.time() - back
        await until(lambda: _is_settled(stage), QUIET_LIMIT)
    return _row(length, journal, stopped, back, ready)


def _row(length: float, journal: Path, stopped: float, back: float, ready: float) -> Row:
    times: dict[str, list[float]] = {}
    for to, at in _accepted(journal):
        times.setdefault(to, []).append(at)
    meanwhile = [ats for ats in times.values() if any(stopped < at < back for at in ats)]
    after = [at for ats in times.values() for at in ats if at >= back]
    return Row(
        length,
        len(meanwhile),
        sum(len(ats) > 1 for ats in meanwhile),
        sum(len(ats) > 1 for ats in times.values()),
        PEOPLE - len(times),
        ready,
        min(after) - back if after else 0.0,
        max(after) - back if after else 0.0,
    )


def _table(rows: list[Row], *, head: bool) -> str:
    lines = [
        "| outage, s | meanwhile | of these twice | twice in all | missing | ready, s | first mail, s | last, s |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    return "\n".join(
        (lines if head else [])
        + [
            f"| {row.length:.0f} | {row.meanwhile} | {row.twice} | {row.twice_in_all} | {row.missing} |"
            f" {row.ready:.1f} | {row.first_mail:.1f} | {row.last_mail:.1f} |"
            for row in rows
        ]
    )


def _accepted(journal: Path) -> list[tuple[str, float]]:
    return [(line["to"], line["at"]) for line in read(journal) if line["result"] == "accepted"]


async def _is_settled(stage: Stage) -> bool:
    with suppress(psycopg.Error):
        async with await psycopg.AsyncConnection.connect(
            stage.dsn(), autocommit=True, connect_timeout=3
        ) as owner:
            row = await (await owner.execute(UNSETTLED.encode())).fetchone()
            return row is not None and row[0] == 0
    return False


# All connections terminated, again and again.


async def _terminate_connections(work: Path) -> int:
    folder = work / "terminate-connections"
    folder.mkdir()
    folder.chmod(0o755)
    async with staged(folder, work / "template", workers=2, serves=1) as stage:
        async with await psycopg.AsyncConnection.connect(stage.dsn(), autocommit=True) as owner:
            await owner.execute("select tocsin.upsert_recipient('urgent', 'urgent@example.com')")
        committed: dict[str, float] = {}
        last_cut = 0.0
        sending = asyncio.create_task(_send_urgent(stage, committed))
        ends = time.monotonic() + CUT_FOR
        while time.monotonic() < ends:
            await asyncio.sleep(CUT_EVERY)
            await asyncio.to_thread(stage.server.terminate, lambda pids: pids)
            last_cut = time.time()
        await asyncio.sleep(2 * CUT_EVERY)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        journal = folder / "far-ends.jsonl"
        await until(lambda: set(committed) <= set(_first_times(journal)), QUIET_LIMIT)
    first = _first_times(journal)
    all_of_them = [first[marker] - at for marker, at in committed.items()]
    after = [
        first[marker] - max(at, last_cut)
        for marker, at in committed.items()
        if first[marker] > last_cut
    ]
    print("| high-priority mails | number | p50, s | p99, s | most, s |")
    print("| --- | ---: | ---: | ---: | ---: |")
    print(_quantiles("from COMMIT to the mail server, all", all_of_them))
    print(_quantiles("what came after the last cut, from there or from COMMIT", after))
    return 0


async def _send_urgent(stage: Stage, committed: dict[str, float]) -> None:
    """Repeats calls; a call with an unknown outcome is not counted."""
    number = 0
    while True:
        number += 1
        marker = f"M{number:06d}"
        with suppress(psycopg.Error, OSError, TimeoutError):
            async with asyncio.timeout(5):
                async with await psycopg.AsyncConnection.connect(
                    stage.server.url(APP), autocommit=True, connect_timeout=3
                ) as app:
                    await app.execute(
                        "select tocsin.notify('compliance.overdue', array['urgent'], %s)",
                        (f"{marker} urgent",),
                    )
                    committed[marker] = time.time()
        await asyncio.sleep(1 / URGENT)


def _first_times(journal: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in read(journal):
        if line["result"] == "accepted":
            for marker in line["markers"]:
                found.setdefault(marker, line["at"])
    return found


def _quantiles(name: str, values: list[float]) -> str:
    values = sorted(values) or [0.0]

    def at(share: float) -> float:
        return values[min(len(values) - 1, int(share * len(values)))]

    return f"| {name} | {len(values)} | {at(0.5):.2f} | {at(0.99):.2f} | {values[-1]:.2f} |"
