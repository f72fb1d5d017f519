"""The processes of an installation: each says every few seconds how it is, and its word lapses."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg.types.json import Jsonb

from tocsin.engine.model import LEASE
from tocsin.engine.store.database import Database, Session
from tocsin.sql import load

_SQL = load("process")
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


class Report(Struct, frozen=True):
    """What one process says of itself."""

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
    """A process as it last spoke of itself."""

    process_id: UUID
    kind: str
    host: str
    pid: int
    version: str
    started_at: datetime
    reported_at: datetime
    silent_for: float  # seconds
    report: Report

    @property
    def silent(self) -> bool:
        """Whether its word has lapsed."""
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


async def report_process(database: Database | Session, identity: Identity, report: Report) -> None:
    """Writes how a process is, in place of its earlier report; renews its leases after a time without one."""
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
