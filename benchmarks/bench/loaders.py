"""32 clients that notify one person each, as fast as possible, until they are ended: `python -m bench.loaders DSN`."""

from __future__ import annotations

import asyncio
import random
import sys

import psycopg
import uvloop

CLIENTS = 32


async def client(dsn: str) -> None:
    statement = "select tocsin.notify('forum.new_thread', array[%s], 'New thread', 'Bob: hello')"
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        while True:
            await connection.execute(statement, (f"p{random.randrange(4, 10_000)}",), prepare=True)


async def main(dsn: str) -> None:
    await asyncio.gather(*(client(dsn) for _ in range(CLIENTS)))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
