"""A notification reaches a browser: from its subscription over notify() to the decrypted message, and what ends it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support.house import House, house
from tests.support.services import LONGEST, running, until
from tocsin.settings.keys import VapidKey, new_vapid_key
from tocsin.testing.far_end import Reply
from tocsin.testing.web_push import BrowserSubscription, PushService

Db = psycopg.Connection[Any]

SENT = "select state::text, reason from tocsin.delivery where channel = 'web_push' order by delivery_id"


class Browsers:
    """The push service of Alice's browsers, with serve and a worker."""

    def __init__(self, house: House, service: PushService) -> None:
        self.house = house
        self.service = service

    async def subscribe(self, alice: httpx.AsyncClient, **more: Any) -> BrowserSubscription:
        subscription = self.service.subscribe()
        posted = {"platform": "web", "subscription": subscription.json} | more
        response = await alice.post("/api/push-tokens/", json=posted)
        assert response.status_code == 201, response.text
        return subscription


@pytest.fixture
async def browsers(dsn: str, db: Db, tmp_path: Path) -> AsyncIterator[Browsers]:
    db.execute("select tocsin.upsert_recipient('alice')")
    key = VapidKey(new_vapid_key(), "mailto:push@example.test")
    web_push = {
        "vapid_key": key.private,
        "vapid_subject": key.subject,
        "allow_private_endpoints": "1",
    }
    async with (
        PushService(vapid=key.public) as service,
        house(dsn, tmp_path, **web_push) as serve,
        running("worker", log=tmp_path / "worker.log", settings=serve.settings) as worker,
    ):
        await worker.wait_for_log("working")
        yield Browsers(serve, service)


def notify(db: Db, *more: str) -> None:
    arguments = "'messages.new_dm', array['alice'], 'Bob: hello', 'How are you?', '/messages/7'"
    db.execute(f"select tocsin.notify({', '.join([arguments, *more])})")


async def settled(db: Db, count: int) -> list[tuple[Any, ...]]:
    def ended() -> bool:
        query = "select count(*) from tocsin.delivery where channel = 'web_push' and settled_at is not null"
        return db.execute(query).fetchone() == (count,)

    await until(ended)
    return db.execute(SENT).fetchall()


async def test_a_push_is_read_by_the_browser_and_its_link_marks_it_read(
    db: Db, browsers: Browsers
) -> None:
    async with browsers.house.person("alice") as alice:
        key = (await alice.get("/api/web-push-key/")).json()["key"]
        await browsers.subscribe(alice, label="Firefox on Linux")
        notify(db)
        assert await settled(db, 1) == [("sent", None)]
        (received,) = browsers.service.received
        assert f"k={key}" in received.headers["authorization"]
        assert received.headers["urgency"] == "normal"
        message = json.loads(received.message or b"")
        shown = message["notification"]
        assert (shown["title"], shown["body"]) == ("Bob: hello", "How are you?")
        assert message["app_badge"] == 1
        notification_id = shown["data"]["notification_id"]

        async with httpx.AsyncClient(timeout=LONGEST) as browser:
            opened = await browser.get(shown["navigate"])
        assert opened.status_code == 303
        assert opened.headers["location"] == f"{browsers.house.url}/messages/7"
        notification = (await alice.get(f"/api/notifications/{notification_id}/")).json()
        assert notification["read"] is True
        channels = (await alice.get(f"/api/notifications/{notification_id}/why/")).json()[
            "channels"
        ]
        (why,) = [each for each in channels if each["channel"] == "web_push"]
        assert (why["decision"], why["deliveries"][0]["state"]) == ("on", "sent")
        assert why["deliveries"][0]["address"] == f"***{received.endpoint[-6:]}"


async def test_an_ended_subscription_is_disabled_and_the_person_sees_why(
    db: Db, browsers: Browsers
) -> None:
    async with browsers.house.person("alice") as alice:
        browsers.service.unsubscribe(await browsers.subscribe(alice))
        notify(db)
        assert await settled(db, 1) == [("failed", "web_push_410")]
        (device,) = (await alice.get("/api/push-tokens/")).json()["results"]
        assert device["disabled_reason"] == "web_push_410"
        notify(db)
        (latest, earlier) = (await alice.get("/api/notifications/")).json()["results"]
        assert "no longer takes pushes" in await _sentence(alice, earlier["id"])
        assert await _sentence(alice, latest["id"]) == "No browser of yours gets pushes."


async def _sentence(alice: httpx.AsyncClient, notification_id: int) -> str:
    channels = (await alice.get(f"/api/notifications/{notification_id}/why/")).json()["channels"]
    return next(str(each["sentence"]) for each in channels if each["channel"] == "web_push")


async def test_a_refused_key_disables_no_browser_and_is_logged(db: Db, browsers: Browsers) -> None:
    async with browsers.house.person("alice") as alice:
        subscription = await browsers.subscribe(alice)
        browsers.service.script.always(subscription.endpoint, Reply(403))
        notify(db)
        await until(lambda: db.execute(SENT).fetchall() == [("deferred", "web_push_403")])
        (device,) = (await alice.get("/api/push-tokens/")).json()["results"]
        assert device["disabled_at"] is None


async def test_a_browser_has_a_preference_of_its_own(db: Db, browsers: Browsers) -> None:
    async with browsers.house.person("alice") as alice:
        await browsers.subscribe(alice)
        overrides = {"messages.new_dm": {"web_push": False}}
        response = await alice.patch(
            "/api/notification-preferences/", json={"overrides": overrides}
        )
        assert response.status_code == 200, response.text
        notify(db)
        decisions = "select decisions -> 'web_push' ->> 1 from tocsin.notification"
        assert db.execute(decisions).fetchall() == [("preference",)]
        assert db.execute(SENT).fetchall() == []


async def test_an_app_registers_a_browser_by_sql(db: Db, browsers: Browsers) -> None:
    subscription = browsers.service.subscribe()
    db.execute("select tocsin.register_web_push('alice', %s)", (Jsonb(subscription.json),))
    notify(db)
    assert await settled(db, 1) == [("sent", None)]
