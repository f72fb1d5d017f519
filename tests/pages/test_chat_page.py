"""/dev/chat/: what is posted to the chats that `make up` plays."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
from msgspec.structs import replace

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db, development_app, transport_to
from tocsin.dev.far_ends import FarEnds, read_posts
from tocsin.engine.store.database import Database
from tocsin.settings import Settings


async def test_the_demos_target_is_made_and_what_is_posted_there_is_shown(
    db: Db, dsn: str, database: Database, settings: Settings, tmp_path: Path
) -> None:
    app = development_app(replace(settings, data_dir=tmp_path), database)
    far_ends = FarEnds(tmp_path, apns=False, fcm=False, report=lambda _: None)
    await far_ends.start()
    try:
        async with httpx.AsyncClient(
            transport=transport_to(app), base_url="http://localhost"
        ) as client:
            assert "Nothing was posted yet" in (await client.get("/dev/chat/")).text
            for _ in range(2):  # as at each start
                await asyncio.to_thread(far_ends.put_demo_targets, dsn)
            row = db.execute("select name, kind, topic, url from tocsin.target").fetchone()
            assert row is not None
            assert row[:3] == ("demo", "discord", "forum.thread:7")
            async with httpx.AsyncClient() as outside:
                made = await outside.post(f"{row[3]}?wait=true", json={"content": "<b>First</b>"})
                changed = {"content": "Second"}
                await outside.patch(f"{row[3]}/messages/{made.json()['id']}", json=changed)
            page = (await client.get("/dev/chat/")).text
            assert "Second" in page
            assert "changed 1×" in page
            as_json = await client.get("/dev/chat/", headers={"Accept": "application/json"})
            assert [each["text"] for each in as_json.json()] == ["Second"]
            assert 'id="chat"' not in (await client.get("/dev/")).text  # nobody is there yet
    finally:
        await far_ends.stop()
    assert [each.edits for each in read_posts(tmp_path)] == [1]
    (tmp_path / "chats.json").write_bytes(b"[{")
    assert read_posts(tmp_path) == []
