"""Commits changes at a steady rate, each for one of some people, and reports when each COMMIT was sent.

A separate process with lines of JSON as input: it replies to {"how": "notify" or "insert", "people", "rate", "seconds",
"first"} with [[number, when (monotonic)], …]. "notify" is Tocsin's; "insert" is the usual alternative: a row of the
app's own table and a NOTIFY in the same transaction.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time

import psycopg
import uvloop

from bench.streams import MARK

CHANNEL = "peer_inbox"
_CONNECTIONS = 8
# in one message with its BEGIN, so that the clock starts between two round trips
_HOW = {
    "notify": "begin; select tocsin.notify('forum.new_thread', array[%(person)s], %(text)s)",
    "insert": (
        "begin; with row as (insert into peer_inbox (recipient, title) values (%(person)s, %(text)s))"
        f" select pg_notify('{CHANNEL}', %(person)s || ' ' || %(text)s)"
    ),
}


class Committer:
    """A pool of connections that take turns."""

    def __init__(self, connections: list[psycopg.AsyncConnection]) -> None:
        self._free: asyncio.Queue[psycopg.AsyncConnection] = asyncio.Queue()
        for each in connections:
            self._free.put_nowait(each)
        self._sent: list[tuple[int, float]] = []

    async def run(
        self, how: str, people: int, rate: float, seconds: float, first: int
    ) -> list[tuple[int, float]]:
        self._sent = []
        count = int(rate * seconds)
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(first, first + count):
                due = started + (number - first) / rate
                if (early := due - time.monotonic()) > 0.0005:
                    await asyncio.sleep(early)
                connection = await self._free.get()
                group.create_task(self._commit(connection, _HOW[how], number, people))
        return self._sent

    async def _commit(
        self, connection: psycopg.AsyncConnection, statement: str, number: int, people: int
    ) -> None:
        person = f"s{random.randrange(people) + 1}"
        await connection.execute(statement, {"person": person, "text": MARK % number})
        self._sent.append((number, time.monotonic()))
        await connection.execute("commit")
        self._free.put_nowait(connection)


async def connect(dsn: str) -> psycopg.AsyncConnection:
    """Returns a connection whose statements may be several in one message."""
    return await psycopg.AsyncConnection.connect(
        dsn, autocommit=True, cursor_factory=psycopg.AsyncClientCursor
    )


async def main(dsn: str) -> None:
    committer = Committer([await connect(dsn) for _ in range(_CONNECTIONS)])
    print("{}", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await committer.run(**json.loads(line))), flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
