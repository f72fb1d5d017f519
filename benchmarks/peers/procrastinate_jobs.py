"""Jobs of Procrastinate, in a schema of their own; run by the project's own Python.

{"count", "concurrency", "kind"}: defers jobs for that many deliveries, runs a worker until none is left, and replies
with the seconds that it ran. The kinds:

- `each`: a no-op job for each delivery;
- `batch`: a no-op job for 500 deliveries, which records nothing about any of them;
- `recorded`: a job for 500 deliveries, which marks each of them as sent when it was sent, in a table of its own, as an
  app does that must not send all 500 again after a crash.
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
from psycopg_pool import AsyncConnectionPool

SCHEMA = "procrastinate_peer"
BATCH = 500
SENT = f"update {SCHEMA}.message set sent_at = now() where id = %s and sent_at is null"


async def use_schema(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.execute(f"set search_path = {SCHEMA}")
    await connection.commit()


app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=sys.argv[1], configure=use_schema)
)
messages = AsyncConnectionPool(
    sys.argv[1], min_size=4, max_size=4, open=False, kwargs={"autocommit": True}
)


@app.task(name="deliver")
async def deliver(delivery_id: int) -> None:
    """Nothing."""


@app.task(name="deliver_batch")
async def deliver_batch(delivery_ids: list[int]) -> None:
    """Nothing."""


@app.task(name="deliver_and_record")
async def deliver_and_record(delivery_ids: list[int]) -> None:
    async with messages.connection() as connection:
        for delivery_id in delivery_ids:
            await connection.execute(SENT, (delivery_id,), prepare=True)


async def defer(kind: str, count: int) -> None:
    if kind == "each":
        await deliver.batch_defer_async(*({"delivery_id": number} for number in range(count)))
        return
    task = deliver_batch if kind == "batch" else deliver_and_record
    await task.batch_defer_async(
        *(
            {"delivery_ids": list(range(first, min(first + BATCH, count)))}
            for first in range(0, count, BATCH)
        )
    )


def make_table(owner: psycopg.Connection[Any]) -> None:
    owner.execute(f"create schema {SCHEMA}")
    owner.execute(
        f"create table {SCHEMA}.message (id bigint primary key, sent_at timestamptz)"
        " with (fillfactor = 50)"
    )
    owner.execute(f"insert into {SCHEMA}.message select generate_series(0, 99999)")


async def main() -> None:
    with psycopg.connect(sys.argv[1], autocommit=True) as owner:
        make_table(owner)
        async with app.open_async(), messages:
            await app.schema_manager.apply_schema_async()
            print(json.dumps({"procrastinate": version("procrastinate")}), flush=True)
            for line in sys.stdin:
                asked = json.loads(line)
                owner.execute(
                    f"update {SCHEMA}.message set sent_at = null where sent_at is not null"
                )
                owner.execute(f"vacuum {SCHEMA}.message")
                await defer(asked["kind"], asked["count"])
                started = time.perf_counter()
                await app.run_worker_async(
                    wait=False,
                    concurrency=asked["concurrency"],
                    install_signal_handlers=False,
                    delete_jobs="successful",
                )
                print(json.dumps(time.perf_counter() - started), flush=True)


asyncio.run(main())
