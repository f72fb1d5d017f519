"""`TOCSIN_SEND_RATES` of real workers."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psycopg

from tests.support.services import mail_catcher, mail_count, running, until

Db = psycopg.Connection[Any]


def available(db: Db) -> bool:
    row = db.execute("select available from tocsin.channel where channel = 'email'").fetchone()
    return row == (True,)


async def test_two_workers_send_no_more_mails_than_the_rate(
    db: Db, dsn: str, tmp_path: Path
) -> None:
    people = [f"p{number}" for number in range(60)]
    for name in people:
        db.execute("select tocsin.upsert_recipient(%s, %s)", (name, f"{name}@example.com"))
    async with AsyncExitStack() as stack:
        mails = await stack.enter_async_context(mail_catcher(tmp_path / "mails"))
        settings: dict[str, Any] = {
            "database_url": dsn,
            "public_url": "http://127.0.0.1:1",
            "smtp_url": f"smtp://127.0.0.1:{mails.port}",
            "send_rates": "email=20/s",
        }
        for number in range(2):
            log = tmp_path / f"worker{number}.log"
            await stack.enter_async_context(running("worker", log=log, settings=settings))
        await until(lambda: available(db))
        db.execute("select tocsin.notify('forum.new_reply', %s, 'New reply')", (people,))
        await until(lambda: mail_count(tmp_path / "mails") == len(people))
        sent = "select count(*) from tocsin.attempt where outcome = 'sent'"
        await until(lambda: db.execute(sent).fetchone() == (len(people),))
        rates = (
            "select distinct a['rate']::int"
            " from tocsin.process p, jsonb_array_elements(p.report['actors']) a"
            " where a ->> 'name' = 'email'"
        )
        assert await until(lambda: db.execute(rates).fetchall() == [(20,)])
    (seconds,) = db.execute(
        "select extract(epoch from max(at) - min(at))::float8 from tocsin.attempt"
    ).fetchone() or (0.0,)
    assert seconds > 2  # 0.1 s without a rate
