"""A `serve` with three connections and a `worker` with five: PostgreSQL allows their login no more than eight."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from tests.support.house import following, house
from tests.support.services import mail_catcher, mail_count, running, until

Db = psycopg.Connection[Any]
LOGIN = "tocsin_test_few"
PEOPLE = [f"p{number}" for number in range(60)]


async def test_eight_connections_are_enough_for_both_services(
    db: Db, dsn: str, tmp_path: Path
) -> None:
    few = _limited_login(db, dsn, 8)
    for name in PEOPLE:
        db.execute("select tocsin.upsert_recipient(%s, %s)", (name, f"{name}@example.com"))
    mails = tmp_path / "mails"
    worker_log = tmp_path / "worker.log"
    async with (
        mail_catcher(mails) as mailbox,
        house(few, tmp_path, smtp_url=mailbox.url, max_connections="3") as home,
        running("worker", log=worker_log, settings=home.settings | {"max_connections": "5"}),
        home.person("p0") as person,
        following(person) as stream,
    ):
        assert await stream.event("badge") == '{"count":0,"unseen":0}'
        await until(lambda: _available(db))
        for _ in range(3):
            db.execute("select tocsin.notify('forum.new_reply', %s, 'New reply')", (PEOPLE,))
        calls = [person.get("/api/notifications/") for _ in range(40)]
        assert {each.status_code for each in await asyncio.gather(*calls)} == {200}
        await until(lambda: _unsent(db) == 0)
        assert (await person.get("/api/notifications/unread-count/")).json()["count"] == 3
        marked = await person.post("/api/notifications/mark-all-read/")
        assert marked.json() == {"marked": 3}
        assert await stream.event("read") == '{"ids":"all","read":true}'
        used = db.execute("select count(*) from pg_stat_activity where usename = %s", (LOGIN,))
        (count,) = used.fetchone() or (0,)
        assert 5 <= count <= 8
        assert mail_count(mails) >= len(PEOPLE)
    for log in (home.http.log, worker_log.read_text()):
        assert "too many connections" not in log
        assert "database unavailable" not in log
        assert '"level": "error"' not in log


async def test_a_worker_with_fewer_than_five_connections_does_not_start(
    dsn: str, tmp_path: Path
) -> None:
    settings = {"database_url": dsn, "max_connections": "4"}
    async with running("worker", log=tmp_path / "worker.log", settings=settings) as worker:
        assert await worker.process.wait() == 1
    (line,) = worker.log.strip().splitlines()
    assert "TOCSIN_MAX_CONNECTIONS is 4, and a worker needs at least 5" in line


async def test_a_serve_with_a_standby_and_fewer_than_four_connections_does_not_start(
    dsn: str, tmp_path: Path
) -> None:
    settings = {"database_url": dsn, "replica_url": dsn, "max_connections": "3"}
    async with running("serve", log=tmp_path / "serve.log", settings=settings) as service:
        assert await service.process.wait() == 1
    (line,) = service.log.strip().splitlines()
    assert "TOCSIN_MAX_CONNECTIONS is 3, and with TOCSIN_REPLICA_URL serve needs 4" in line


def _limited_login(db: Db, dsn: str, most: int) -> str:
    if db.execute("select from pg_roles where rolname = %s", (LOGIN,)).fetchone() is None:
        db.execute(f"create role {LOGIN} login password 'few' connection limit {most}")
        db.execute(f"grant tocsin_service to {LOGIN}")
        db.execute(f"grant {LOGIN} to current_user")
    return make_conninfo(dsn, user=LOGIN, password="few")


def _available(db: Db) -> bool:
    row = db.execute("select available from tocsin.channel where channel = 'email'").fetchone()
    return row == (True,)


def _unsent(db: Db) -> int:
    row = db.execute("select count(*) from tocsin.delivery where state <> 'sent'").fetchone()
    return int(row[0]) if row else 0
