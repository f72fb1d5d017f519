"""A process reports every few seconds, for operators: its actors, its streams, whether it leads."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any
from uuid import uuid4

import structlog

from tocsin.engine.actors.machinery.base import Actor, Stats
from tocsin.engine.model import Conflict, Unavailable
from tocsin.engine.store.database import Database, Session
from tocsin.engine.store.installation import (
    REPORT_AGAIN,
    ActorReport,
    Identity,
    ProcessReport,
    forget_process,
    report_process,
)

log = structlog.get_logger("tocsin.report")

_RETRY = 0.2  # seconds


def new_identity(kind: str) -> Identity:
    """Returns a new identity of this process; `kind` is worker or serve."""
    return Identity(
        uuid4(), kind, socket.gethostname(), os.getpid(), version("tocsin"), datetime.now(UTC)
    )


async def keep_reporting(
    database: Database, identity: Identity, make_report: Callable[[], ProcessReport]
) -> None:
    """Reports until it is cancelled, and then deletes its report.

    After an outage of the database, the first report comes before anything else: it renews the leases of this process.
    """
    database.availability.on_return = lambda connection: report_process(
        Session(connection), identity, make_report()
    )
    try:
        while True:
            reported = await _report(database, identity, make_report())
            await asyncio.sleep(REPORT_AGAIN if reported else _RETRY)
            await database.availability.wait()
    finally:
        with suppress(Unavailable, Conflict, TimeoutError):
            async with asyncio.timeout(1.0):
                await forget_process(database, identity.process_id)


async def _report(database: Database, identity: Identity, report: ProcessReport) -> bool:
    """Returns whether the report was written, or need not be retried at once."""
    try:
        await report_process(database, identity, report)
    except (Unavailable, Conflict):
        return False
    except Exception:
        # a bug, or a schema in the middle of an upgrade: nothing else of this process depends on it
        log.exception("not reported")
    return True


def actor_reports(actors: Iterable[Actor[Any]]) -> list[ActorReport]:
    """Returns the state of each actor."""
    return [_actor_report(actor.stats()) for actor in actors]


def _actor_report(stats: Stats) -> ActorReport:
    return ActorReport(
        name=stats.name,
        waiting=stats.waiting,
        size=stats.size,
        in_flight=stats.in_flight,
        senders=stats.senders,
        rate=stats.rate,
        breaker=stats.breaker.value,
        breaker_reason=stats.breaker_reason,
        failing_for=round(stats.failing_for, 1),
        retry_in=round(stats.retry_after, 1),
        crashes=stats.crashes,
        advice=stats.advice,
    )
