"""A small run of `make soak-push`, with 2,000 pushes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import psycopg

Db = psycopg.Connection[Any]
SOAK = Path(__file__).parent.parent.parent / "benchmarks" / "soak_push.py"


async def test_with_one_request_in_twenty_failing_nothing_is_lost_and_nothing_comes_twice(
    db: Db, dsn: str
) -> None:
    connections = "select count(*) from pg_stat_activity where datname = current_database()"
    before = db.execute(connections).fetchone()
    command = [sys.executable, str(SOAK), "--pushes", "2000", "--people", "500", "--dsn", dsn]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    try:
        table, errors = await asyncio.wait_for(process.communicate(), 90)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0, (table + errors).decode()
    assert db.execute(connections).fetchone() == before  # no worker stays behind
