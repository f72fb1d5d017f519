"""What several real processes share: a provider's Retry-After, and the rate limits of HTTP."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import psycopg

from tests.support.http_fixtures import SECRET, bearer, token
from tests.support.phones import device, far_ends, notify_phones
from tests.support.services import free_port, running, until
from tocsin.testing.fcm import quota_exceeded

Db = psycopg.Connection[Any]


def breakers(db: Db) -> list[str]:
    """Returns the state of each worker's breaker of FCM."""
    return [
        state
        for (state,) in db.execute(
            "select a ->> 'breaker' from tocsin.process p, jsonb_array_elements(p.report['actors']) a"
            " where a ->> 'name' = 'fcm'"
        )
    ]


async def test_a_retry_after_that_one_worker_gets_holds_the_other_one(
    db: Db, dsn: str, tmp_path: Path
) -> None:
    db.execute("select tocsin.upsert_recipient('alice')")
    device(db, "pixel", "android")
    async with AsyncExitStack() as stack:
        _, fcm, settings = await stack.enter_async_context(far_ends(tmp_path))
        settings |= {"database_url": dsn, "data_dir": str(tmp_path)}
        for number in range(2):
            log = tmp_path / f"worker{number}.log"
            await stack.enter_async_context(running("worker", log=log, settings=settings))
        await until(lambda: breakers(db) == ["closed"] * 2)
        fcm.script.then("pixel", [quota_exceeded("600")])
        notify_phones(db)
        await until(lambda: breakers(db) == ["open"] * 2)
        assert len(fcm.received) <= 1
        held = db.execute("select key, reason from tocsin.send_hold").fetchall()
        assert held == [("fcm", "fcm_429_quota_exceeded")]
        late = tmp_path / "late.log"
        await stack.enter_async_context(running("worker", log=late, settings=settings))
        await until(lambda: breakers(db) == ["open"] * 3)


async def test_two_processes_share_the_rate_of_a_caller(db: Db, dsn: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "database_url": dsn,
        "public_url": "http://127.0.0.1:1",
        "jwt_secret": SECRET,
        "rate_limits": "reads=2/1h",
    }
    port = free_port()
    url = f"http://127.0.0.1:{port}/api/notifications/unread-count/"

    async def seconds_to_wait() -> int:
        """Returns for how long a person beyond the limit has to wait."""
        async with httpx.AsyncClient(headers=bearer(token())) as client:
            while (response := await client.get(url)).status_code == 200:
                pass
        assert response.status_code == 429
        return int(response.headers["Retry-After"])

    async with running(
        "serve", log=tmp_path / "one.log", settings=settings | {"port": str(port)}
    ) as one:
        await one.wait_for_log("listening")
        assert 1500 < await seconds_to_wait() <= 1800
        other = settings | {"port": str(free_port())}
        async with running("serve", log=tmp_path / "two.log", settings=other):

            async def shared() -> bool:
                return await seconds_to_wait() > 1900

            await until(shared)

        async def alone() -> bool:
            return await seconds_to_wait() <= 1800

        await until(alone)
