"""/dev/webhooks/: what the demo's webhook receives under `make up`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
from msgspec.structs import replace

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db, development_app, transport_to
from tests.support.services import running, until
from tocsin.dev.far_ends import FarEnds, read_messages
from tocsin.engine.store.database import Database
from tocsin.settings import Settings


async def test_what_happens_is_sent_to_the_demos_webhook_and_shown(
    db: Db, dsn: str, database: Database, settings: Settings, tmp_path: Path
) -> None:
    app = development_app(replace(settings, data_dir=tmp_path), database)
    far_ends = FarEnds(tmp_path, apns=False, fcm=False, report=lambda _: None)
    worker = {"database_url": dsn, "data_dir": str(tmp_path), "allow_private_endpoints": "1"}
    await far_ends.start()
    try:
        async with (
            httpx.AsyncClient(transport=transport_to(app), base_url="http://localhost") as client,
            running("worker", log=tmp_path / "worker.log", settings=worker) as service,
        ):
            await service.wait_for_log("leading")
            assert "Nothing was received yet" in (await client.get("/dev/webhooks/")).text
            for _ in range(2):  # as at each start
                await asyncio.to_thread(far_ends.put_demo_targets, dsn)
            db.execute("select tocsin.upsert_recipient('alice')")
            db.execute("select tocsin.notify('recognition.received', array['alice'], '<b>Thanks')")
            await until(lambda: read_messages(tmp_path))
            page = (await client.get("/dev/webhooks/")).text
            assert "notification.created" in page
            assert "signature verified" in page
            assert "&lt;b&gt;Thanks" in page
            as_json = await client.get("/dev/webhooks/", headers={"Accept": "application/json"})
            assert [each["data"]["recipient"] for each in as_json.json()] == ["alice"]
    finally:
        await far_ends.stop()
    (tmp_path / "webhooks.json").write_bytes(b"[{")
    assert read_messages(tmp_path) == []
