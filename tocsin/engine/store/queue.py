"""Procrastinate's jobs, where its own functions have no query for it."""

from __future__ import annotations

from collections.abc import Sequence

from tocsin.engine.store.database import Database
from tocsin.sql import load

_SQL = load("queue")


async def requeue_lost_jobs(database: Database, worker_id: int, running: Sequence[int]) -> None:
    """Has the jobs run again that a worker fetched without learning of it; not those that it is `running`."""
    await database.run(_SQL["requeue_lost_jobs"], worker_id=worker_id, running=list(running))
