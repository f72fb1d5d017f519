"""Two mail servers: a worker uses the second one while the first one fails, and each is visible by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import psycopg

from tests.support.doctor import find
from tests.support.services import SECRET, free_port, mail_catcher, mail_count, running, until

TOKEN = "the-token-of-the-metrics"
Db = psycopg.Connection[Any]


async def test_mails_leave_by_the_next_server_while_the_first_one_fails_and_alarms(
    db: Db, dsn: str, tmp_path: Path
) -> None:
    people = [f"p{number}" for number in range(6)]
    for name in people:
        db.execute("select tocsin.upsert_recipient(%s, %s)", (name, f"{name}@example.com"))
    down, port = free_port(), free_port()
    async with mail_catcher(tmp_path / "mails") as mails:
        up = f"127.0.0.1:{mails.port}"
        settings: dict[str, Any] = {
            "database_url": dsn,
            "public_url": "http://127.0.0.1:1",
            "smtp_url": f"smtp://127.0.0.1:{down} smtp://{up}",
        }
        front = {"port": str(port), "jwt_secret": SECRET, "metrics_token": TOKEN}
        async with (
            running("serve", log=tmp_path / "serve.log", settings=settings | front),
            running("worker", log=tmp_path / "worker.log", settings=settings),
        ):
            await until(lambda: _available(db))
            db.execute("select tocsin.notify('forum.new_reply', %s, 'New reply')", (people,))
            await until(lambda: mail_count(tmp_path / "mails") == len(people))
            await until(lambda: len(_attempts(db)) == len(people))

            async def alarms() -> list[Any]:
                found = await find("services", **settings)
                return [
                    each for each in found if f"Email (127.0.0.1:{down}) fails" in each.sentence
                ]

            (alarm,) = await until(alarms)
            failing = f'tocsin_provider_failing{{provider="email/127.0.0.1:{down}"}} 1.0'
            await until(lambda: failing in _metrics(port))
    assert set(_attempts(db)) == {("sent", up)}
    assert (alarm.status, "leave by the next server" in alarm.sentence) == ("yellow", True)
    log = (tmp_path / "worker.log").read_text()
    assert f"email/127.0.0.1:{down}" in log
    assert "smtp_connect_refused" in log


def _metrics(port: int) -> str:
    """Returns the metrics; none while the service starts."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    try:
        return httpx.get(f"http://127.0.0.1:{port}/metrics/", headers=headers).text
    except httpx.TransportError:
        return ""


def _available(db: Db) -> bool:
    row = db.execute("select available from tocsin.channel where channel = 'email'").fetchone()
    return row == (True,)


def _attempts(db: Db) -> list[tuple[str, str]]:
    return db.execute("select outcome, provider from tocsin.attempt").fetchall()


async def test_the_doctor_checks_each_mail_server(tmp_path: Path) -> None:
    down = f"127.0.0.1:{free_port()}"
    async with mail_catcher(tmp_path / "mails") as mails:
        up = f"127.0.0.1:{mails.port}"
        found = await find("smtp", smtp_url=f"smtp://{down}, smtp://{up}")
    assert [each.status for each in found] == ["red", "green"]
    assert f"{down} can't be used" in found[0].sentence
    assert f"{up} takes mail" in found[1].sentence
