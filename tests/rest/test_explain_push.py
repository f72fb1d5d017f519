"""Why a phone was not reached: every reason of Apple's and Google's has its words, and they are in `why`."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db, Tell
from tocsin.engine.actors.apns.reply import REFUSALS
from tocsin.engine.explain.reasons import in_words, unreached
from tocsin.engine.store.notification import DeliveryRecord, DeviceRecord

IPHONE = "f" * 58 + "a1b2c3"
REMOVED = "apns_Unregistered"
BY_APPLE = "Apple says that the app was removed from it (unregistered)"

WORDS = [
    (REMOVED, BY_APPLE),
    ("apns_ExpiredToken", "Apple says that its token has expired (expired token)"),
    (
        "apns_BadDeviceToken",
        "Apple does not know its token, which may be one of the other environment (bad device token)",
    ),
    (
        "apns_DeviceTokenNotForTopic",
        "Apple says that its token is another app's (device token not for topic)",
    ),
    (
        "apns_invalid_token",
        "what was registered for it is no token of Apple's (invalid token)",
    ),
    ("apns_PayloadTooLarge", "it is larger than Apple takes (payload too large)"),
    ("apns_Forbidden", "Apple refuses how it was sent (forbidden)"),
    ("apns_BadPriority", "Apple refuses how it was sent (bad priority)"),
    ("apns_MissingDeviceToken", "Apple refuses how it was sent (missing device token)"),
    (
        "apns_TopicDisallowed",
        "Apple refuses the app's id that this service has (topic disallowed)",
    ),
    ("apns_MissingTopic", "Apple refuses the app's id that this service has (missing topic)"),
    (
        "apns_ExpiredProviderToken",
        "Apple refuses the key of this service (expired provider token)",
    ),
    (
        "apns_InvalidProviderToken",
        "Apple refuses the key of this service (invalid provider token)",
    ),
    (
        "apns_TooManyProviderTokenUpdates",
        "Apple wants no new token of this service yet (too many provider token updates)",
    ),
    ("apns_TooManyRequests", "Apple says that it got too many (too many requests)"),
    ("apns_InternalServerError", "Apple could not take it (internal server error)"),
    ("apns_ServiceUnavailable", "Apple could not take it (service unavailable)"),
    ("apns_Shutdown", "Apple could not take it (shutdown)"),
    ("apns_IdleTimeout", "Apple closed the connection (idle timeout)"),
    ("apns_503", "Apple could not take it (503)"),
    ("apns_403", "Apple refuses the key of this service (403)"),
    ("apns_410", "Apple did not take it (410)"),
    ("apns_timeout", "Apple did not take it (timeout)"),
    ("apns_SomethingNew", "Apple did not take it (something new)"),
    (
        "apns_BadDeviceToken_storm",
        "every device was refused just then, so that none is believed to be bad (bad device token storm)",
    ),
    ("fcm_404_unregistered", "Google says that the app was removed from it (unregistered)"),
    (
        "fcm_403_sender_id_mismatch",
        "Google says that its token is another project's (sender id mismatch)",
    ),
    (
        "fcm_400_invalid_argument_token",
        "Google does not know its token (invalid argument token)",
    ),
    ("fcm_400_invalid_argument", "Google refuses how it was sent (invalid argument)"),
    ("fcm_413", "Google refuses how it was sent (413)"),
    (
        "fcm_401_third_party_auth_error",
        "Google refuses the account of this service (third party auth error)",
    ),
    ("fcm_403_permission_denied", "Google refuses the account of this service (permission denied)"),
    ("fcm_404", "Google refuses the account of this service (404)"),
    ("fcm_token_refused", "Google refuses the account of this service (token refused)"),
    (
        "fcm_429_quota_exceeded",
        "Google takes no more of this service for the moment (quota exceeded)",
    ),
    (
        "fcm_429_quota_exceeded_device",
        "Google says that it got too many (quota exceeded device)",
    ),
    ("fcm_500_internal", "Google could not take it (internal)"),
    ("fcm_503_unavailable", "Google could not take it (unavailable)"),
    ("fcm_timeout", "Google did not take it (timeout)"),
    ("stale", "its app has not registered it anew for 270 days (stale)"),
    ("payload_too_large", "it is larger than a push may be (payload too large)"),
    ("smtp_550_5.1.1", None),
    ("opted_out_since", None),
    ("", None),
]


@pytest.mark.parametrize(("reason", "words"), WORDS)
def test_a_reason_in_words(reason: str, words: str | None) -> None:
    assert in_words(reason) == words


@pytest.mark.parametrize("said", REFUSALS)
def test_every_documented_reason_of_apple_is_known(said: str) -> None:
    assert not str(in_words(f"apns_{said}")).startswith("Apple did not")


@pytest.mark.parametrize(
    ("state", "reason", "device", "sentence"),
    [
        (
            "failed",
            REMOVED,
            DeviceRecord("ios", "a1b2c3", REMOVED),
            f"Your iPhone …a1b2c3 was not reached: {BY_APPLE}; it gets no more.",
        ),
        (
            "failed",
            REMOVED,
            DeviceRecord("ios", "a1b2c3", None),  # registered anew since
            f"Your iPhone …a1b2c3 was not reached: {BY_APPLE}.",
        ),
        (
            "failed",
            "fcm_404_unregistered",
            None,
            "Your device was not reached: Google says that the app was removed from it (unregistered).",
        ),
        (
            "failed",
            "payload_too_large",
            DeviceRecord("android", None, None),
            "Your Android phone was not reached: it is larger than a push may be (payload too large).",
        ),
        (
            "deferred",
            "apns_503",
            DeviceRecord("ios", "a1b2c3", None),
            "Your iPhone …a1b2c3 was not reached yet: Apple could not take it (503); it is tried again.",
        ),
        (
            "skipped",
            "no_device",
            DeviceRecord("android", "f00baa", "stale"),
            "Your Android phone …f00baa gets no more: its app has not registered it anew for 270 days (stale).",
        ),
        ("skipped", "no_device", None, None),
        ("skipped", "device_moved", None, None),
        ("sent", None, DeviceRecord("ios", "a1b2c3", REMOVED), None),
        ("failed", "attempts_exhausted", DeviceRecord("ios", "a1b2c3", None), None),
    ],
)
def test_a_push_that_did_not_arrive_says_which_phone_and_why(
    state: str, reason: str | None, device: DeviceRecord | None, sentence: str | None
) -> None:
    assert unreached(DeliveryRecord("push", state, reason, None, [], device=device)) == sentence


async def push(person: httpx.AsyncClient, notification_id: int) -> dict[str, Any]:
    channels = (await person.get(f"/api/notifications/{notification_id}/why/")).json()["channels"]
    return next(dict(each) for each in channels if each["channel"] == "push")


def disable(db: Db, token: str, reason: str) -> None:
    db.execute(
        "update tocsin.device set disabled_at = now(), disabled_reason = %s where token = %s",
        (reason, token),
    )


async def test_a_disabled_token_says_why_in_the_list_and_in_why(
    db: Db, alice: httpx.AsyncClient, bob: httpx.AsyncClient, tell: Tell
) -> None:
    db.execute("update tocsin.channel set available = true where channel = 'push'")
    await alice.post("/api/push-tokens/", json={"token": IPHONE, "platform": "ios"})
    told = tell()
    db.execute(
        "update tocsin.delivery set state = 'failed', reason = %s, address = %s where channel = 'push'",
        (REMOVED, IPHONE),
    )
    disable(db, IPHONE, REMOVED)
    found = await push(alice, told)
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
    assert "Your device was not reached" in (await push(alice, told))["sentence"]
    (listed,) = (await bob.get("/api/push-tokens/")).json()["results"]
    assert (listed["disabled_at"], listed["disabled_reason"]) == (None, None)


async def test_who_has_only_disabled_devices_reads_why_those_are(
    db: Db, alice: httpx.AsyncClient, tell: Tell
) -> None:
    db.execute("update tocsin.channel set available = true where channel = 'push'")
    assert (await push(alice, tell()))[
        "sentence"
    ] == "Push is on, but no device of yours is registered."
    pixel = "a long token of a pixel f00baa".replace(" ", "-")
    for token, platform in ((IPHONE, "ios"), (pixel, "android")):
        await alice.post("/api/push-tokens/", json={"token": token, "platform": platform})
    disable(db, IPHONE, REMOVED)
    disable(db, pixel, "stale")
    told = tell()
    found = await push(alice, told)
    assert (found["reason"], found["deliveries"]) == ("no_device", [])
    assert found["sentence"] == (
        "Push is on, but no device of yours gets any more (your iPhone …a1b2c3: Apple says that the app was removed"
        " from it (unregistered); your Android phone …f00baa: its app has not registered it anew for 270 days (stale))."
    )
