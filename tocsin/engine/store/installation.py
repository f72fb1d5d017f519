"""The processes of an installation: each reports its state every few seconds, and a report expires."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg.types.json import Jsonb

from tocsin.engine.model import LEASE, PROVIDERS, Channel, SignedToken
from tocsin.engine.store.database import Database, Session
from tocsin.sql import load

_SQL = load("installation")

# What is over, removed in batches, so that no lock is held long.

_BATCH = 1000


async def clean_up(database: Database, *, now: datetime, retention: timedelta) -> int:
    """Removes notifications that were over `retention` before `now`; how many.

    With them go their digests and events, yesterday's keys, and the pushes that corrected badges; stale devices are
    disabled, and what the ledger lost sight of is due.
    """
    before = now - retention
    removed = await _in_batches(database, "clean_up_notifications", before=before)
    await _in_batches(database, "clean_up_digests", before=before)
    await _in_batches(database, "clean_up_events", before=before)
    await _in_batches(database, "clean_up_keys", now=now)
    await _in_batches(database, "clean_up_badge_pushes", now=now)
    await _in_batches(database, "disable_stale_devices", now=now)
    await _in_batches(database, "requeue_lost", now=now)
    return removed


async def _in_batches(database: Database, statement: str, **until: datetime) -> int:
    removed = 0
    while True:
        count = int(await database.value(_SQL[statement], limit=_BATCH, **until))
        removed += count
        if count < _BATCH:
            return removed


async def count_over(database: Database, *, now: datetime, retention: timedelta) -> int:
    """How many notifications a clean-up would remove."""
    return int(await database.value(_SQL["count_over"], before=now - retention))


# Procrastinate's jobs, where its own functions have no query for it.


async def requeue_lost_jobs(database: Database, worker_id: int, running: Sequence[int]) -> None:
    """Has the jobs run again that a worker fetched without learning of it; not those that it is `running`."""
    await database.run(_SQL["requeue_lost_jobs"], worker_id=worker_id, running=list(running))


# What one installation keeps for itself.


async def get_secret(database: Database, name: str) -> bytes:
    """The secret of that name, which the migrations made."""
    value: bytes | None = await database.value(_SQL["get_secret"], name=name)
    if value is None:
        raise AssertionError(f"the migrations make the secret {name}")
    return value


# The APNs token that all workers share.


class SharedTokens:
    """The token store of the actors, in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, key: str) -> SignedToken | None:
        """The token of this key that stands."""
        return await self._database.row(SignedToken, _SQL["load_token"], key=key)

    async def save(self, signed: SignedToken, *, replacing: SignedToken | None) -> SignedToken:
        """Stores it if `replacing` still stands, and returns what stands then."""
        await self._database.run(
            _SQL["save_token"],
            key=signed.key,
            token=signed.token,
            issued_at=signed.issued_at,
            early=signed.early,
            replacing=replacing and replacing.token,
        )
        return await self.load(signed.key) or signed


# Which providers the workers have: each speaks for its own, and its word lapses.

# A worker reports its providers at this interval; they expire after three missed reports.
OFFER_AGAIN = timedelta(seconds=30)
_GOOD_FOR = 3 * OFFER_AGAIN


async def offer_providers(database: Database, names: Collection[str]) -> None:
    """Says which providers of which channels this worker has, for the decisions of notify()."""
    await database.run(
        _SQL["offer_providers"],
        channels=[PROVIDERS[name].channel.value for name in names],
        providers=list(names),
        good_for=_GOOD_FOR,
    )


async def is_offered(database: Database, channel: Channel, provider: str) -> bool:
    """Whether some worker has this provider of the channel."""
    offered = await database.value(
        _SQL["is_offered"], channel=channel.value, provider=provider, good_for=_GOOD_FOR
    )
    return bool(offered)


REPORT_AGAIN = 2.0
"""Seconds between two reports of a process."""
LAPSE = 10.0
"""Seconds of silence after which a process is taken to be gone, or to hang."""


class ActorReport(Struct, frozen=True):
    """One actor of a worker; times are seconds before or after the report."""

    name: str
    waiting: int  # in its mailbox
    size: int  # of its mailbox
    in_flight: int
    senders: int
    rate: float | None  # messages a second at most; None: as fast as it goes
    breaker: str  # closed, open or half_open
    breaker_reason: str | None
    failing_for: float  # seconds since the breaker first opened; 0 while it is closed
    retry_in: float  # seconds until it probes; 0 unless open
    crashes: int  # since the process started
    advice: str | None  # what to check, while every address is refused


class ProcessReport(Struct, frozen=True):
    """The state of one process."""

    leading: bool = False
    streams: int = 0
    actors: list[ActorReport] = []


class Identity(Struct, frozen=True):
    """Which process it is."""

    process_id: UUID
    kind: str  # worker or serve
    host: str
    pid: int
    version: str
    started_at: datetime


class Process(Struct, frozen=True):
    """A process and its last report."""

    process_id: UUID
    kind: str
    host: str
    pid: int
    version: str
    started_at: datetime
    reported_at: datetime
    silent_for: float  # seconds
    report: ProcessReport

    @property
    def silent(self) -> bool:
        """Whether its last report is too old."""
        return self.silent_for > LAPSE


class _Row(Struct):
    process_id: UUID
    kind: str
    host: str
    pid: int
    version: str
    started_at: datetime
    reported_at: datetime
    silent_for: float
    report: Any


async def report_process(
    database: Database | Session, identity: Identity, report: ProcessReport
) -> None:
    """Replaces the report of a process; renews its leases after a time without one."""
    await database.value(
        _SQL["report_process"],
        **msgspec.structs.asdict(identity),
        lease=LEASE,
        report=Jsonb(msgspec.to_builtins(report)),
    )


async def forget_process(database: Database, process_id: UUID) -> None:
    """A process ends as it should."""
    await database.run(_SQL["forget_process"], process_id=process_id)


async def processes(database: Database) -> list[Process]:
    """Every process that spoke within the hour, the silent ones too."""
    rows = await database.rows(_Row, _SQL["processes"])
    # another version's report may hold more, or less
    return [msgspec.convert(msgspec.structs.asdict(row), Process) for row in rows]
