"""`tocsin up` without an account at Apple or Google: a push arrives on the phones of the page."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import psycopg

from tests.support.running_up import RunningUp
from tests.support.services import LONGEST, until
from tocsin.dev.embedded_postgres import gone
from tocsin.dev.seed import seed
from tocsin.settings.running_instance import find_running_instance, with_running_instance

Db = psycopg.Connection[Any]
JSON = {"Accept": "application/json"}


async def test_pushes_arrive_without_any_account_and_nothing_stays_behind(
    db: Db, dsn: str, tmp_path: Path
) -> None:
    seed(dsn)
    argv = [sys.executable, "-m", "tocsin", "up"]
    up = RunningUp(tmp_path / "data", argv=argv, TOCSIN_DATABASE_URL=dsn)
    try:
        await up.ready()
        # at once: an event from before the first report of the worker counts too
        db.execute(
            "select tocsin.notify('approval.requested', array['alice', 'bob'],"
            " 'Bob asks', 'For paint.', '/approvals/1')"
        )
        url = f"http://127.0.0.1:{up.settings.port}"
        assert f"{url}/dev/phones/" in up.text
        await _assert_pushes(db, url)
        assert "route=/dev/phones" not in up.text

        _assert_connected(up, tmp_path)
        children = [int(child) for child in children_of(up.process.pid)]
        assert len(children) >= 2
        up.process.send_signal(signal.SIGINT)
        assert await up.ended() == 0, up.text
        assert all(gone(pid) for pid in children)
        assert "Traceback" not in up.text
        after = with_running_instance(up.settings)
        assert after.apns is None
        assert after.fcm_service_account is None
        assert find_running_instance(tmp_path / "data") is None
    finally:
        up.kill()


async def _assert_pushes(db: Db, url: str) -> None:
    async with httpx.AsyncClient(base_url=url, headers=JSON, timeout=LONGEST) as page:

        async def both() -> Any:
            shown = (await page.get("/dev/phones")).json()
            return shown if len(shown) == 2 else None

        shown = {each["recipient"]: each for each in await until(both)}
        assert {who: each["provider"] for who, each in shown.items()} == {
            "alice": "apns",
            "bob": "fcm",
        }
        for who, push in shown.items():
            unread = db.execute("select tocsin.unread_count(%s)", (who,)).fetchone()
            assert (push["badge"],) == unread
            assert (push["title"], push["body"]) == ("Bob asks", "For paint.")
            assert push["data"]["action_url"] == "/approvals/1"


def _assert_connected(up: RunningUp, folder: Path) -> None:
    """Asserts that other commands find the local servers, and that the lock file has no key."""
    taken = with_running_instance(up.settings)
    assert taken.apns is not None
    assert taken.apns_url is not None
    assert taken.apns_url.startswith("https://127.0.0.1:")
    assert taken.fcm_url.startswith("http://127.0.0.1:")
    assert taken.fcm_service_account is not None
    assert taken.fcm_service_account["token_uri"] == f"{taken.fcm_url}/token"
    assert "PRIVATE KEY" not in (folder / "data/up.lock").read_text()


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
