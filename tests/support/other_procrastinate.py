"""An app's own Procrastinate, in the schema public of the database that Tocsin is in: a worker to run beside ours."""

from __future__ import annotations

import asyncio
import os

import procrastinate

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=os.environ["TOCSIN_DATABASE_URL"])
)


@app.task(name="nap")
async def nap(seconds: float) -> None:
    """Sleeps for a while, unless its job is aborted."""
    await asyncio.sleep(seconds)


if __name__ == "__main__":
    app.run_worker(concurrency=10, fetch_job_polling_interval=0.5)
