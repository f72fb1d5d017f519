"""Pages of other origins: the configured ones may make calls of people, by token; no others, and not those of apps."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest_asyncio
from msgspec.structs import replace

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import KEY, URL, NewNotification, bearer, token, transport_to
from tocsin.engine.badge.hub import BadgeHub
from tocsin.engine.store.credential import create_api_key
from tocsin.engine.store.database import Database
from tocsin.http.app import create_app
from tocsin.settings import Settings

HOME, FOREIGN = "https://app.example.com", "https://evil.example"
ALLOW = "access-control-allow-origin"
INBOX = "/api/notifications/"


ALICE = bearer(token("alice"))


@pytest_asyncio.fixture
async def client(settings: Settings, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """Of a service that allows one origin."""
    own = replace(settings, allowed_origins=(HOME,))
    app = create_app(own, database, BadgeHub(database), link_key=KEY)
    async with httpx.AsyncClient(transport=transport_to(app), base_url=URL) as client:
        yield client


def preflight(origin: str, method: str = "PATCH") -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type",
    }


async def test_a_preflight_needs_no_token(client: httpx.AsyncClient) -> None:
    for path in (f"{INBOX}1/read/", f"{INBOX}stream/", "/api/quiet-hours", "/api/event-types/"):
        response = await client.options(path, headers=preflight(HOME))
        assert (response.status_code, response.headers[ALLOW]) == (204, HOME)
        assert "Authorization" in response.headers["access-control-allow-headers"]
        assert "PATCH" in response.headers["access-control-allow-methods"]
        assert response.headers["access-control-max-age"] == "7200"
        assert "access-control-allow-credentials" not in response.headers


async def test_responses_and_errors_can_be_read_there(
    client: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    new_notification()
    from_home = {"Origin": HOME}
    for path in (INBOX, f"{INBOX}unread-count/", f"{INBOX}9/"):
        assert (await client.get(path, headers=from_home | ALICE)).headers[ALLOW] == HOME
    refused = await client.get(INBOX, headers=from_home)
    assert (refused.status_code, refused.headers[ALLOW]) == (401, HOME)
    marked = await client.post(f"{INBOX}mark-all-read/", headers=from_home | ALICE)
    assert "Tocsin-Undo" in marked.headers["access-control-expose-headers"]
    assert marked.headers["vary"] == "Origin"


async def test_no_other_origin_and_no_other_call(
    client: httpx.AsyncClient, database: Database
) -> None:
    for origin in (FOREIGN, "null", f"{HOME}.evil.example", HOME.replace("https", "http")):
        assert ALLOW not in (await client.get(INBOX, headers=ALICE | {"Origin": origin})).headers
        assert ALLOW not in (await client.options(INBOX, headers=preflight(origin))).headers
    key = bearer((await create_api_key(database, "tests"))[1])
    for path in ("/api/events/", "/api/recipients/alice/", "/metrics/", "/schema/"):
        assert ALLOW not in (await client.get(path, headers=key | {"Origin": HOME})).headers
        assert ALLOW not in (await client.options(path, headers=preflight(HOME))).headers


async def test_a_cookie_from_there_changes_nothing(client: httpx.AsyncClient, people: None) -> None:
    headers = {"Origin": HOME, "Cookie": f"tocsin_token={token()}", "Sec-Fetch-Site": "cross-site"}
    assert (await client.post(f"{INBOX}mark-all-read/", headers=headers)).status_code == 403


async def test_me_is_the_person_of_the_token(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    assert (await alice.get("/api/me/")).json()["recipient"] == "alice"
    found = (await bob.get("/api/me/")).json()
    assert found["recipient"] == "bob"
    assert found["expires_at"].endswith("Z")
