"""The metrics of a worker: its attempts and its actors, for this machine or with the token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import psycopg

from tests.support.services import free_port, mail_catcher, mail_count, running, until

Db = psycopg.Connection[Any]


async def test_a_worker_counts_its_attempts_and_shows_its_actors(
    db: Db, dsn: str, tmp_path: Path
) -> None:
    people = [f"p{number}" for number in range(3)]
    for name in people:
        db.execute("select tocsin.upsert_recipient(%s, %s)", (name, f"{name}@example.com"))
    port = free_port()
    url = f"http://127.0.0.1:{port}/metrics/"
    async with mail_catcher(tmp_path / "mails") as mails:
        settings: dict[str, Any] = {
            "database_url": dsn,
            "public_url": "http://127.0.0.1:1",
            "smtp_url": f"smtp://127.0.0.1:{mails.port}",
            "worker_metrics_port": str(port),
        }
        log = tmp_path / "worker.log"
        async with running("worker", log=log, settings=settings) as worker:
            await worker.wait_for_log("leading")
            await until(lambda: _available(db))
            db.execute("select tocsin.notify('forum.new_reply', %s, 'New reply')", (people,))
            await until(lambda: mail_count(tmp_path / "mails") == len(people))
            attempts = 'tocsin_attempts_total{channel="email",outcome="sent",reason=""}'
            await until(lambda: f"{attempts} 3.0" in _get(url).text)
            await until(lambda: 'tocsin_actor_failing{actor="email"} 0.0' in _get(url).text)
            text = _get(url).text
            assert 'tocsin_attempt_seconds_count{channel="email"} 3.0' in text
            assert "process_resident_memory_bytes" in text
            assert _get(url, headers={"Host": "evil.test"}).status_code == 421
            assert _get(f"http://127.0.0.1:{port}/other").status_code == 404
            async with running("worker", log=tmp_path / "2.log", settings=settings) as second:
                assert await second.process.wait() == 1
                (line,) = second.log.strip().splitlines()
                assert f"TOCSIN_WORKER_METRICS_PORT {port} is in use" in line


async def test_with_a_token_a_worker_shows_its_metrics_to_those_who_send_it(
    db: Db, dsn: str, tmp_path: Path
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    settings = {
        "database_url": dsn,
        "worker_metrics_port": str(port),
        "metrics_token": "the-token-of-metrics",
    }
    async with running("worker", log=tmp_path / "worker.log", settings=settings) as worker:
        await worker.wait_for_log("working")
        sent = {"Authorization": "Bearer the-token-of-metrics", "Host": "worker-1:9465"}
        assert _get(url, headers=sent).status_code == 200
        for wrong in ("", "Bearer another-token-here", "Basic the-token-of-metrics"):
            refused = _get(url, headers={"Authorization": wrong})
            assert refused.status_code == 401
            assert "TOCSIN_METRICS_TOKEN" in refused.text


def _get(url: str, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.get(url, headers=headers)


def _available(db: Db) -> bool:
    row = db.execute("select available from tocsin.channel where channel = 'email'").fetchone()
    return row == (True,)
