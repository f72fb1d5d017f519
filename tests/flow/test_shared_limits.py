"""What several real processes share: the rate limits of HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import psycopg

from tests.support.http_fixtures import SECRET, bearer, token
from tests.support.services import free_port, running, until

Db = psycopg.Connection[Any]


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
