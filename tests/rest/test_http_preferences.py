"""Preferences over HTTP: precedence, and what is refused."""

from __future__ import annotations

import random
from typing import Any

import httpx
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import NewNotification

PREFERENCES = "/api/notification-preferences/"
Overrides = dict[str, dict[str, bool]]


def expected(
    name: str, channel: str, overrides: Overrides, defaults: list[str], mandatory: list[str]
) -> tuple[bool, str]:
    """The rules of SPEC section 4, naively."""
    if channel in mandatory:
        return True, "mandatory"
    category = name.split(".", 1)[0] + ".*"
    for scope, source in ((name, "type"), (category, category), ("*", "*")):
        if channel in overrides.get(scope, {}):
            return overrides[scope][channel], source
    return channel in defaults, "default"


async def test_precedence_agrees_with_a_naive_model(alice: httpx.AsyncClient) -> None:
    catalogue = {
        each["event_type"]: each
        for category in (await alice.get("/api/event-types/")).json()["results"]
        for each in category["event_types"]
    }
    scopes = ["*", *{f"{name.split('.')[0]}.*" for name in catalogue}, *catalogue]
    draw = random.Random(7)
    overrides: Overrides = {}
    found: dict[str, Any] = {}
    for _ in range(25):
        change: dict[str, dict[str, Any]] = {}
        for scope in draw.sample(scopes, 4):
            channel = draw.choice(["in_app", "email", "push"])
            choice = draw.choice([True, False, None])
            change[scope] = {channel: choice}
            overrides.setdefault(scope, {}).pop(channel, None)
            if choice is not None:
                overrides[scope][channel] = choice
            if not overrides[scope]:
                del overrides[scope]
        response = await alice.patch(PREFERENCES, json={"overrides": change})
        assert response.status_code == 200, response.text
        found = response.json()
        assert found["overrides"] == overrides
        for name, each in catalogue.items():
            for channel in ("in_app", "email", "push"):
                values = found["event_types"][name][channel], found["sources"][name][channel]
                rules = each["default_channels"], each["mandatory_channels"]
                assert values == expected(name, channel, overrides, *rules)
    assert (await alice.get(PREFERENCES)).json() == found
    assert found["mandatory"] == {"compliance.overdue": ["email"]}


async def test_preferences_decide_the_channels(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    await alice.patch(PREFERENCES, json={"overrides": {"forum.*": {"email": False}}})
    why = (await alice.get(f"/api/notifications/{new_notification()}/why/")).json()["channels"]
    email = next(each for each in why if each["channel"] == "email")
    assert email["sentence"] == "You turned email off for everything in Forum."
    assert (email["decision"], email["reason"], email["deliveries"]) == ("off", "preference", [])


async def test_a_mandatory_channel_stays_on(alice: httpx.AsyncClient) -> None:
    found = (await alice.patch(PREFERENCES, json={"overrides": {"*": {"email": False}}})).json()
    assert found["event_types"]["compliance.overdue"]["email"] is True
    assert found["sources"]["compliance.overdue"]["email"] == "mandatory"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"overrides": {"forum.new_repyl": {"email": False}}}, "overrides.forum.new_repyl"),
        (
            {"overrides": {"compliance.overdue": {"email": False}}},
            "overrides.compliance.overdue.email",
        ),
        ({"overrides": {"*": {"mail": False}}}, "overrides.*.mail"),
        ({"overrides": {"*": {"email": "no"}}}, "overrides.*.email"),
        ({"overrides": []}, "overrides"),
        ({}, "overrides"),
        ({"overides": {}}, "overides"),
    ],
)
async def test_a_wrong_change_is_refused_whole(
    alice: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    response = await alice.patch(PREFERENCES, json=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field
    assert (await alice.get(PREFERENCES)).json()["overrides"] == {}


async def test_a_first_write_creates_the_person(
    alice: httpx.AsyncClient, machine: httpx.AsyncClient
) -> None:
    assert (await machine.get("/api/recipients/alice/")).status_code == 404
    await alice.patch(PREFERENCES, json={"overrides": {"*": {"push": False}}})
    assert (await machine.get("/api/recipients/alice/")).status_code == 200


async def test_the_catalogue_speaks_the_readers_language(alice: httpx.AsyncClient) -> None:
    async def label(locale: str) -> tuple[str, str]:
        response = await alice.get("/api/event-types/", params={"locale": locale})
        forum = next(each for each in response.json()["results"] if each["category"] == "forum")
        return forum["label"], forum["event_types"][0]["label"]

    assert await label("de-AT") == ("Forum", "Neues Thema")
    assert await label("ar") != await label("en")
    assert await label("en") == await label("") == await label("tlh") == ("Forum", "New thread")
    for wrong in ("../de", "x" * 36):
        response = await alice.get("/api/event-types/", params={"locale": wrong})
        assert response.status_code == 422
