"""Devices: registered, moved, listed, removed; and which of them notify() uses."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db

TOKENS = "/api/push-tokens/"
HEX = "0123456789abcdef" * 4
IPHONE = {"token": "a" * 58 + "123456", "platform": "ios"}
PIXEL = {"token": "fcm-token-of-a-pixel", "platform": "android"}


@pytest.fixture(autouse=True)
def everybody(people: None) -> None:
    """Alice and Bob are there."""


async def register(person: httpx.AsyncClient, device: dict[str, Any]) -> dict[str, Any]:
    response = await person.post(TOKENS, json=device)
    assert response.status_code in (200, 201), response.text
    return dict(response.json())


async def listed(person: httpx.AsyncClient) -> list[dict[str, Any]]:
    return list((await person.get(TOKENS)).json()["results"])


async def test_a_device_is_registered_once_and_shows_six_characters(
    alice: httpx.AsyncClient,
) -> None:
    first = await alice.post(TOKENS, json=IPHONE)
    again = await alice.post(TOKENS, json=IPHONE)
    assert (first.status_code, again.status_code) == (201, 200)
    device = first.json()
    assert device["id"] == again.json()["id"]
    assert device["token"] == "123456"
    assert (device["platform"], device["provider"], device["environment"]) == (
        "ios",
        "apns",
        "production",
    )
    assert await listed(alice) == [again.json()]
    assert again.json() == device | {"registered_at": again.json()["registered_at"]}
    assert again.json()["registered_at"] > device["registered_at"]


async def test_a_device_bears_the_name_that_its_person_gave_it(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    assert (await register(alice, IPHONE))["label"] is None
    assert (await register(alice, IPHONE | {"label": "Alice's iPhone"}))[
        "label"
    ] == "Alice's iPhone"
    assert (await register(alice, IPHONE))["label"] == "Alice's iPhone"
    assert (await register(bob, IPHONE))["label"] is None
    for wrong in ("", "x" * 101, "two\nlines"):
        response = await alice.post(TOKENS, json=IPHONE | {"label": wrong})
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "label"


async def test_the_provider_and_environment_may_be_given(alice: httpx.AsyncClient) -> None:
    device = await register(alice, {**IPHONE, "provider": "fcm", "environment": "sandbox"})
    assert (device["provider"], device["environment"]) == ("fcm", "sandbox")


async def test_a_token_moves_to_whoever_registered_it_last(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    await register(alice, IPHONE)
    assert (await bob.post(TOKENS, json=IPHONE)).status_code == 201
    assert await listed(alice) == []
    assert len(await listed(bob)) == 1


async def test_a_device_is_forgotten_by_id_or_token_but_only_ones_own(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    iphone = await register(alice, IPHONE)
    await register(alice, PIXEL)
    path = f"{TOKENS}{iphone['id']}/"
    by_token = {"token": PIXEL["token"]}
    assert (await bob.delete(path)).status_code == 404
    assert (await bob.post(f"{TOKENS}unregister/", json=by_token)).status_code == 404
    assert (await alice.delete(path)).status_code == 204
    assert (await alice.post(f"{TOKENS}unregister/", json=by_token)).status_code == 204
    assert (await alice.delete(path)).status_code == 404
    assert await listed(alice) == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"token": ""}, "token"),
        ({"token": "two words"}, "token"),
        ({"token": "x" * 5000}, "token"),
        ({"platform": "windows"}, "platform"),
        ({"provider": "pigeon"}, "provider"),
        ({"environment": "staging"}, "environment"),
        ({"tokn": "x"}, "tokn"),
    ],
)
async def test_a_wrong_device_is_refused(
    alice: httpx.AsyncClient, change: dict[str, str], field: str
) -> None:
    response = await alice.post(TOKENS, json=IPHONE | change)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field


async def test_an_app_registers_devices_with_the_person(
    machine: httpx.AsyncClient, alice: httpx.AsyncClient
) -> None:
    response = await machine.put("/api/recipients/alice/", json={"push_tokens": [IPHONE, PIXEL]})
    assert response.status_code == 200
    assert len(await listed(alice)) == 2
    held = (await machine.get("/api/recipients/alice/export/")).json()
    assert {device["platform"] for device in held["devices"]} == {"android", "ios"}


async def test_push_is_decided_by_providers_and_devices(db: Db, alice: httpx.AsyncClient) -> None:
    def decision(recipient: str) -> Any:
        row = db.execute(
            "select decisions -> 'push' from tocsin.notification where recipient_id = %s"
            " order by notification_id desc limit 1",
            (recipient,),
        ).fetchone()
        assert row is not None
        return row[0]

    await register(alice, IPHONE)
    await register(alice, PIXEL)
    call = "select tocsin.notify('messages.new_dm', array['alice', 'bob'], 'x')"
    db.execute(call)
    assert decision("alice") == decision("bob") == ["off", "no_provider"]
    db.execute("update tocsin.channel set available = true where channel = 'push'")
    db.execute(call)
    assert decision("alice") == ["on", "default"]
    assert decision("bob") == ["off", "no_device"]
    deliveries = "select count(*) from tocsin.delivery where channel = 'push'"
    assert db.execute(deliveries).fetchone() == (2,)
    db.execute("update tocsin.device set disabled_at = now() where platform = 'ios'")
    db.execute(call)
    assert db.execute(deliveries).fetchone() == (3,)


SPELLINGS = [
    HEX,
    HEX.upper(),
    f"<{' '.join(HEX[at : at + 8] for at in range(0, 64, 8))}>",
    f" {HEX}\n",
    f"{HEX[:32]}\u0020{HEX[32:].upper()}",
]


@pytest.mark.parametrize("again", SPELLINGS)
async def test_a_phone_is_one_device_however_its_token_is_spelt(
    db: Db, alice: httpx.AsyncClient, bob: httpx.AsyncClient, again: str
) -> None:
    first = await register(alice, {"token": again, "platform": "ios"})
    moved = await register(bob, {"token": HEX, "platform": "ios"})
    assert moved["id"] == first["id"]
    assert db.execute("select token, recipient_id from tocsin.device").fetchall() == [(HEX, "bob")]
    back = await alice.post(TOKENS, json={"token": again, "platform": "ios"})
    assert back.status_code == 201
    assert await listed(bob) == []
    assert (await alice.post(f"{TOKENS}unregister/", json={"token": again})).status_code == 204
    assert await listed(alice) == []


async def test_a_token_of_firebase_keeps_its_case(db: Db, alice: httpx.AsyncClient) -> None:
    await register(alice, {"token": " dXk:APA91b-_X\n", "platform": "android"})
    await register(alice, {"token": "dxk:apa91b-_x", "platform": "ios", "provider": "fcm"})
    tokens = db.execute("select token from tocsin.device order by device_id").fetchall()
    assert tokens == [("dXk:APA91b-_X",), ("dxk:apa91b-_x",)]
    response = await alice.post(f"{TOKENS}unregister/", json={"token": "dXk:APA91b-_X "})
    assert response.status_code == 204


@pytest.mark.parametrize(
    ("provider", "token"),
    [
        ("apns", "a" * 62),
        ("apns", "a" * 65),
        ("apns", "a" * 202),
        ("apns", "g" * 64),
        ("apns", f"0x{HEX[:62]}"),
        ("apns", "dXk:APA91b-_X"),
        ("apns", "<>"),
        ("apns", "ａ" * 64),
        ("fcm", "two words"),
        ("fcm", " \t"),
        ("fcm", "tökén"),
        ("fcm", "a\u200bb"),
        ("fcm", "a\u00a0"),
    ],
)
async def test_a_token_that_its_provider_cannot_accept_is_refused_with_the_cure(
    db: Db, alice: httpx.AsyncClient, machine: httpx.AsyncClient, provider: str, token: str
) -> None:
    device = {"token": token, "platform": "ios", "provider": provider}
    response = await alice.post(TOKENS, json=device)
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["field"] == "token"
    assert ("hexadecimal" if provider == "apns" else "Firebase") in error["message"]
    good = {"token": HEX, "platform": "ios"}
    response = await machine.put("/api/recipients/zoe/", json={"push_tokens": [good, device]})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "push_tokens[1].token"
    assert db.execute("select count(*) from tocsin.device").fetchone() == (0,)
    assert db.execute("select from tocsin.recipient where recipient_id = 'zoe'").fetchone() is None


async def test_without_a_key_there_is_no_web_push(alice: httpx.AsyncClient) -> None:
    response = await alice.get("/api/web-push-key/")
    assert response.status_code == 404
    assert "TOCSIN_VAPID_KEY" in response.json()["detail"]


KEYS = {
    "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
    "auth": "BTBZMqHH6r4Tts7J_aSIgg",
}
BROWSER: dict[str, Any] = {
    "platform": "web",
    # an address, since a name would be resolved
    "subscription": {
        "endpoint": "https://1.1.1.1/send/abcdef",
        "expirationTime": None,
        "keys": KEYS,
    },
}


async def test_a_browser_is_registered_by_its_subscription(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, db: Db
) -> None:
    first = await alice.post(TOKENS, json=BROWSER | {"label": "Firefox on Linux"})
    again = await alice.post(TOKENS, json=BROWSER | {"provider": "web_push"})
    assert (first.status_code, again.status_code) == (201, 200)
    device = again.json()
    assert (device["platform"], device["provider"], device["token"], device["label"]) == (
        "web",
        "web_push",
        "abcdef",
        "Firefox on Linux",
    )
    assert db.execute("select token, keys from tocsin.device").fetchall() == [
        (BROWSER["subscription"]["endpoint"], KEYS)
    ]
    assert (await bob.post(TOKENS, json=BROWSER)).status_code == 201
    assert await listed(alice) == []
    endpoint = {"token": BROWSER["subscription"]["endpoint"]}
    assert (await bob.post(f"{TOKENS}unregister/", json=endpoint)).status_code == 204
    assert await listed(bob) == []


def changed(**subscription: Any) -> dict[str, Any]:
    return BROWSER | {"subscription": BROWSER["subscription"] | subscription}


@pytest.mark.parametrize(
    ("device", "field"),
    [
        ({"platform": "web"}, "subscription"),
        ({"platform": "web", "token": "x"}, "subscription"),
        (BROWSER | {"token": "x"}, "token"),
        (BROWSER | {"platform": "ios", "token": "a" * 64}, "subscription"),
        ({"platform": "ios"}, "token"),
        (BROWSER | {"provider": "fcm"}, "provider"),
        (IPHONE | {"provider": "web_push"}, "provider"),
        (changed(endpoint="http://1.1.1.1/send/abcdef"), "subscription.endpoint"),
        (changed(endpoint="https://u:p@1.1.1.1/send/abcdef"), "subscription.endpoint"),
        (changed(endpoint="https://127.0.0.1/send/abcdef"), "subscription.endpoint"),
        (changed(endpoint="https://[::ffff:10.0.0.1]/x"), "subscription.endpoint"),
        (changed(endpoint="https://169.254.169.254/latest/"), "subscription.endpoint"),
        (changed(endpoint="https://localhost/x"), "subscription.endpoint"),  # by its name
        (changed(endpoint="https://1.1.1.1/ö"), "subscription.endpoint"),
        (changed(endpoint="nonsense"), "subscription.endpoint"),
        (changed(keys=KEYS | {"auth": "short"}), "subscription.keys"),
        (changed(keys=KEYS | {"p256dh": "B" * 87}), "subscription.keys"),
        (changed(keys={"auth": KEYS["auth"]}), "subscription.keys.p256dh"),
    ],
)
async def test_a_wrong_browser_is_refused_and_nothing_is_stored(
    alice: httpx.AsyncClient, machine: httpx.AsyncClient, device: dict[str, Any], field: str
) -> None:
    response = await alice.post(TOKENS, json=device)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field
    response = await machine.put("/api/recipients/alice/", json={"push_tokens": [IPHONE, device]})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == f"push_tokens[1].{field}"
    assert await listed(alice) == []
