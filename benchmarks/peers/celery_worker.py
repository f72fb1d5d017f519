"""A Celery worker: the port of Redis, the pool, and its number."""

from __future__ import annotations

import sys

from celery_tasks import app

_, _, pool, number = sys.argv
app.worker_main(
    [
        *("worker", "--pool", pool, "--concurrency", "2", "--loglevel", "warning", "-O", "fair"),
        *("--hostname", f"worker{number}@localhost"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    ]
)
