"""`why` and the list of devices name the reason why a phone was not reached."""

from __future__ import annotations

import re
from typing import Any

import httpx

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db, NewNotification

IPHONE = "f" * 58 + "a1b2c3"
REMOVED = "apns_Unregistered"
BY_APPLE = "Apple reports that the app was removed from it (unregistered)"


async def push(person: httpx.AsyncClient, notification_id: int) -> dict[str, Any]:
    channels = (await person.get(f"/api/notifications/{notification_id}/why/")).json()["channels"]
    return next(dict(each) for each in channels if each["channel"] == "push")


def disable(db: Db, token: str, reason: str) -> None:
    db.execute(
        "update tocsin.device set disabled_at = now(), disabled_reason = %s where token = %s",
        (reason, token),
    )


async def test_a_disabled_token_has_its_reason_in_the_list_and_in_why(
    db: Db, alice: httpx.AsyncClient, bob: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    db.execute("update tocsin.channel set available = true where channel = 'push'")
    await alice.post("/api/push-tokens/", json={"token": IPHONE, "platform": "ios"})
    created = new_notification()
    db.execute(
        "update tocsin.delivery set state = 'failed', reason = %s, address = %s where channel = 'push'",
        (REMOVED, IPHONE),
    )
    disable(db, IPHONE, REMOVED)
    found = await push(alice, created)
    assert found["sentence"] == (
        "Push is on for New reply by default. Your iPhone …a1b2c3 was not reached:"
        f" {BY_APPLE}; it gets no more."
    )
    assert found["deliveries"][0]["address"] == "***a1b2c3"
    (listed,) = (await alice.get("/api/push-tokens/")).json()["results"]
    assert listed["disabled_reason"] == REMOVED
    assert re.fullmatch(r"20\d\d-.*Z", listed["disabled_at"])
    # the device is somebody else's since: nothing of it is shown
    await bob.post("/api/push-tokens/", json={"token": IPHONE, "platform": "android"})
    assert "Your device was not reached" in (await push(alice, created))["sentence"]
    (listed,) = (await bob.get("/api/push-tokens/")).json()["results"]
    assert (listed["disabled_at"], listed["disabled_reason"]) == (None, None)


async def test_who_has_only_disabled_devices_reads_why_those_are(
    db: Db, alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    db.execute("update tocsin.channel set available = true where channel = 'push'")
    assert (await push(alice, new_notification()))[
        "sentence"
    ] == "Push is on, but no device of yours is registered."
    pixel = "a long token of a pixel f00baa".replace(" ", "-")
    for token, platform in ((IPHONE, "ios"), (pixel, "android")):
        await alice.post("/api/push-tokens/", json={"token": token, "platform": platform})
    disable(db, IPHONE, REMOVED)
    disable(db, pixel, "stale")
    created = new_notification()
    found = await push(alice, created)
    assert (found["reason"], found["deliveries"]) == ("no_device", [])
    assert found["sentence"] == (
        "Push is on, but no device of yours gets any more (your iPhone …a1b2c3: Apple reports that the app was removed"
        " from it (unregistered); your Android phone …f00baa: its app has not registered it again for 270 days"
        " (stale))."
    )
