"""The clean-up of one day from a large stock, and the vacuum after it."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from datetime import timedelta
from typing import Any, LiteralString

import psycopg

from bench import stage
from bench.large_stock import TABLES, Db
from tocsin.engine.store.database import Database, MakeRow, T
from tocsin.engine.store.installation import Retention, clean_up
from tocsin.sql import load

NAMES = {text: name for name, text in load("installation").items()}
# the oldest day that is there
OVER = "coalesce(read_at, archived_at, case when not in_inbox then created_at end)"
FIRST = f"""
select min({OVER})
from tocsin.notification
where read_at is not null or archived_at is not null or not in_inbox
"""
CHANGED = """
select coalesce(sum(s.n_dead_tup), 0), coalesce(sum(s.n_tup_del), 0)
from pg_stat_user_tables s
where s.schemaname = 'tocsin'
"""
DONE = """
select
    pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8,
    (select (d.blks_hit + d.blks_read)::float8 from pg_stat_database d where d.datname = current_database())
"""


class Timed(Database):
    """A pool whose statements are timed, by their names."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn, max_size=2)
        self.seconds: dict[str, list[float]] = defaultdict(list)

    async def value(self, statement: LiteralString, **arguments: object) -> Any:
        started = time.monotonic()
        result = await super().value(statement, **arguments)
        self.seconds[NAMES[statement]].append(time.monotonic() - started)
        return result

    async def one(self, kind: MakeRow[T], statement: LiteralString, **arguments: object) -> T:
        started = time.monotonic()
        result = await super().one(kind, statement, **arguments)
        self.seconds[NAMES[statement]].append(time.monotonic() - started)
        return result


def clean_up_day(dsn: str, admin_dsn: str, server: int) -> dict[str, Any]:
    """Removes the oldest day; returns what it took and what the vacuum after it took."""
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        first = admin.execute(FIRST).fetchone()
        assert first is not None
        dead, deleted = _ask(admin, CHANGED)
        before = _spent(admin, server)
        database = Timed(dsn)
        removed = asyncio.run(_clean_up(database, first[0] + timedelta(days=91)))
        admin.execute("select pg_stat_clear_snapshot()")
        after = _spent(admin, server)
        found = {"notifications": removed} | _difference("", before, after)
        more_dead, more_deleted = _ask(admin, CHANGED)
        found |= {
            "rows": int(more_deleted - deleted),
            "dead rows": int(more_dead - dead),
            "ms, longest statement": round(1000 * max(map(max, database.seconds.values()))),
            "seconds by statement": {
                name: round(sum(each), 2) for name, each in database.seconds.items()
            },
        }
        for table in TABLES:
            before = _spent(admin, server)
            admin.execute(f"vacuum (analyze) tocsin.{table}".encode())
            vacuumed = _difference(f"vacuum of {table}, ", before, _spent(admin, server))
            if vacuumed[f"vacuum of {table}, pages"] > 1000:
                found |= vacuumed
        return found


async def _clean_up(database: Database, now: Any) -> int:
    await database.open()
    removed = await clean_up(database, now=now, retention=Retention(90))
    await database.close()
    return removed


def _ask(admin: Db, statement: str) -> tuple[Any, ...]:
    # what the sessions before counted is there when they have ended
    time.sleep(1)
    row = admin.execute(statement.encode()).fetchone()
    assert row is not None
    return row


def _spent(admin: Db, server: int) -> tuple[float, float, float, float]:
    wal, pages = _ask(admin, DONE)
    return stage.cpu(server), wal, pages, time.monotonic()


def _difference(what: str, before: tuple[float, ...], after: tuple[float, ...]) -> dict[str, float]:
    cpu, wal, pages, seconds = (late - early for early, late in zip(before, after, strict=True))
    return {
        f"{what}CPU s": round(cpu, 2),
        f"{what}WAL MB": round(wal / 1e6, 1),
        f"{what}pages": round(pages),
        f"{what}s": round(seconds, 1),
    }
