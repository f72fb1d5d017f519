"""Clients that notify one person as fast as possible, each a separate process with its own connection.

callers.py KIND ADDRESS…: `tocsin DSN` calls tocsin.client.notify(), `procrastinate DSN` defers a job, `celery REDIS`
calls delay(), `django DSN REDIS` creates a row and calls delay() when it is committed. To {"clients",
"seconds"} they reply with the number of calls that they made together in that time.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

TITLE = "New reply in 'Spring Formal Planning'"
BODY = (
    "Bob: I would book the old mill by the lake, it has room for 40 of us and a kitchen of its own."
)
URL = "/forums/7"
WARM = 20  # calls before the clock starts
Call = Callable[[str], object]


def person() -> str:
    """Returns one of two thousand people with an address, a device and no preference (bench/stock.sql)."""
    return f"p{5 * random.randrange(1999) + 1}"


def tocsin(dsn: str) -> Callable[[], Call]:
    import psycopg

    from tocsin.client import notify

    def connect() -> Call:
        connection = psycopg.connect(dsn, autocommit=True)

        def call(recipient: str) -> None:
            notify(
                connection,
                recipient=recipient,
                event_type="forum.new_reply",
                title=TITLE,
                body=BODY,
                action_url=URL,
                metadata={"thread": 7},
            )

        return call

    return connect


def procrastinate(dsn: str) -> Callable[[], Call]:
    import logging

    import procrastinate as package

    logging.getLogger("procrastinate").setLevel(
        logging.ERROR
    )  # names for each client where its App is

    def connect() -> Call:
        app = package.App(
            connector=package.SyncPsycopgConnector(conninfo=dsn, min_size=1, max_size=1)
        )

        @app.task(name="notify", queue="email")
        def notify_task(**_: Any) -> None: ...

        app.open()
        return lambda recipient: notify_task.defer(
            recipient=recipient,
            event_type="forum.new_reply",
            title=TITLE,
            body=BODY,
            action_url=URL,
        )

    return connect


def _celery_task(url: str) -> Any:
    from celery import Celery

    app = Celery("peer", broker=url)
    app.conf.task_ignore_result = True

    @app.task(name="notify")
    def notify_task(*_: Any) -> None: ...

    return notify_task


def celery(url: str) -> Callable[[], Call]:
    def connect() -> Call:
        notify_task = _celery_task(url)
        return lambda recipient: notify_task.delay(recipient, "forum.new_reply", TITLE, BODY, URL)

    return connect


def django(dsn: str, url: str) -> Callable[[], Call]:
    from django_inbox import create_table, model, setup

    setup(dsn)
    from django.db import connection, transaction
    from django.utils import timezone

    notification = model()
    create_table(notification)
    connection.close()

    def connect() -> Call:
        notify_task = _celery_task(url)

        def call(recipient: str) -> None:
            with transaction.atomic():
                row = notification.objects.create(
                    recipient=recipient,
                    event_type="forum.new_reply",
                    title=TITLE,
                    body=BODY,
                    action_url=URL,
                    metadata={"thread": 7},
                    created_at=timezone.now(),
                )
                transaction.on_commit(lambda: notify_task.delay(row.pk))

        return call

    return connect


KINDS = {"tocsin": tocsin, "procrastinate": procrastinate, "celery": celery, "django": django}


def client(connect: Callable[[], Call], start: Any, seconds: float, counts: Any) -> None:
    """Puts the number of its calls, or its error."""
    try:
        call = connect()
        for _ in range(WARM):
            call(person())
        start.wait()
        count, until = 0, time.perf_counter() + seconds
        while time.perf_counter() < until:
            call(person())
            count += 1
        counts.put(count)
    except Exception as error:  # noqa: BLE001 - for any error, since the others wait for it
        start.abort()
        counts.put(repr(error))


def calls_of(connect: Callable[[], Call], clients: int, seconds: float) -> int:
    """Returns the number of calls of that many clients."""
    fork = multiprocessing.get_context("fork")
    start, counts = fork.Barrier(clients), fork.SimpleQueue()
    processes = [
        fork.Process(target=client, args=(connect, start, seconds, counts)) for _ in range(clients)
    ]
    for process in processes:
        process.start()
    made = [counts.get() for _ in processes]
    for process in processes:
        process.join()
    if died := [one for one in made if not isinstance(one, int)]:
        raise SystemExit(died[0])
    return sum(made)


def main() -> None:
    kind, *addresses = sys.argv[1:]
    connect = KINDS[kind](*addresses)
    used = {"tocsin": "psycopg", "django": "django"}.get(kind, kind)
    print(json.dumps({used: version(used)}), flush=True)
    for line in sys.stdin:
        print(json.dumps(calls_of(connect, **json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
