"""No-op tasks of Celery on Redis; controlled by lines of JSON on standard input.

{"count"}: queues that many while the worker takes none, starts it, and replies with the seconds until the queue is
empty. Acknowledged early, without results: Celery's fastest mode.
"""

from __future__ import annotations

import json
import sys
import time

import celery
import redis
from celery import Celery

PORT = sys.argv[1]
app = Celery("tasks", broker=f"redis://127.0.0.1:{PORT}/0")
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=64,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)


@app.task(name="deliver")
def deliver(delivery_id: int) -> None:
    """Nothing."""


def main() -> None:
    broker = redis.Redis(port=int(PORT))
    print(
        json.dumps({"celery": celery.__version__, "redis": broker.info()["redis_version"]}),
        flush=True,
    )
    for line in sys.stdin:
        count = json.loads(line)["count"]
        app.control.cancel_consumer("celery", reply=True, timeout=1.0)
        with app.pool.acquire(block=True) as connection, app.amqp.Producer(connection) as producer:
            for number in range(count):
                deliver.apply_async((number,), producer=producer)
        started = time.perf_counter()
        app.control.add_consumer("celery")
        while broker.llen("celery") or broker.hlen("unacked"):
            time.sleep(0.005)
        print(json.dumps(time.perf_counter() - started), flush=True)


if __name__ == "__main__":
    main()
