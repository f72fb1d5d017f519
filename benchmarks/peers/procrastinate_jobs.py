"""No-op jobs of Procrastinate, in a schema of their own; run by the project's own Python.

{"count", "concurrency"}: defers that many, runs a worker until none is left, and replies with the seconds that it ran.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from importlib.metadata import version
from typing import Any

import procrastinate
import psycopg

SCHEMA = "procrastinate_peer"


async def use_schema(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.execute(f"set search_path = {SCHEMA}")
    await connection.commit()


app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=sys.argv[1], configure=use_schema)
)


@app.task(name="deliver")
async def deliver(delivery_id: int) -> None:
    """Nothing."""


async def main() -> None:
    with psycopg.connect(sys.argv[1], autocommit=True) as owner:
        owner.execute(f"create schema {SCHEMA}")
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        print(json.dumps({"procrastinate": version("procrastinate")}), flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            await deliver.batch_defer_async(
                *({"delivery_id": number} for number in range(asked["count"]))
            )
            started = time.perf_counter()
            await app.run_worker_async(
                wait=False,
                concurrency=asked["concurrency"],
                install_signal_handlers=False,
                delete_jobs="successful",
            )
            print(json.dumps(time.perf_counter() - started), flush=True)


asyncio.run(main())
