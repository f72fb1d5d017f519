"""The headers of each response, and HEAD for each GET."""

from __future__ import annotations

import httpx
import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute
from msgspec import structs

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import KEY, URL, Db, NewNotification, bearer, token, transport_to
from tocsin.dev.pages.demo import dev_routes
from tocsin.engine.badge.hub import BadgeHub
from tocsin.engine.store.database import Database
from tocsin.http.app import create_app
from tocsin.settings import Settings

INBOX = "/api/notifications/"
HSTS = "strict-transport-security"


async def test_every_path_that_takes_get_takes_head(settings: Settings, database: Database) -> None:
    app = create_app(
        settings, database, BadgeHub(database), link_key=KEY, extra_routes=dev_routes()
    )
    routes = [route for route in app.routes if isinstance(route, HTTPRoute)]
    with_get = [route for route in routes if "GET" in route.methods]
    assert len(with_get) > 30
    assert [route.path for route in with_get if "HEAD" not in route.methods] == []


@pytest.mark.parametrize(
    "path",
    [
        INBOX,
        f"{INBOX}unread-count/",
        f"{INBOX}?limit=nonsense",
        f"{INBOX}1/",
        "/api/notification-preferences/",
        "/healthz",
        "/assets/tocsin-bell.js",
        "/nothing",
    ],
)
async def test_head_has_the_headers_of_get(alice: httpx.AsyncClient, path: str) -> None:
    got, head = await alice.get(path), await alice.head(path)
    assert head.status_code == got.status_code
    assert head.headers == got.headers


@pytest.mark.own_app
async def test_head_changes_nothing(
    app: Litestar,
    alice: httpx.AsyncClient,
    anyone: httpx.AsyncClient,
    new_notification: NewNotification,
    db: Db,
) -> None:
    id_ = new_notification(action_url="/there")
    response = await alice.head(f"{INBOX}{id_}/open/")
    assert response.status_code == 303
    assert (await alice.get(f"{INBOX}{id_}/")).json()["read"] is False
    ticket = (await alice.post("/api/stream-ticket/")).json()["ticket"]
    for stream in (
        await alice.head(f"{INBOX}stream/"),
        await anyone.head(f"{INBOX}stream/?ticket={ticket}"),
    ):
        assert stream.status_code == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
    assert app.state.services.hub.open_streams == 0
    taken = db.execute("select 1 from tocsin.stream_ticket where in_use_until is not null")
    assert taken.fetchone() is None


@pytest.mark.own_app
async def test_every_response_forbids_sniffing_and_caches_and_asks_for_https(
    alice: httpx.AsyncClient, anyone: httpx.AsyncClient, people: None
) -> None:
    await alice.get(f"{INBOX}unread-count/")  # so that the next one is from before Litestar
    for response in (
        await alice.get(f"{INBOX}unread-count/"),
        await alice.get(INBOX),
        await alice.patch("/api/notification-preferences/", json={"overrides": {"*": {}}}),
        await alice.delete("/api/push-tokens/1/"),
        await alice.put(INBOX),
        await alice.post(f"{INBOX}mark-all-read/", content=b"{"),
        await anyone.get(INBOX),
        await anyone.get("/nothing"),
        await anyone.get("/readyz"),
        await anyone.get("/schema/openapi.json"),
        await anyone.get("/unsubscribe/nonsense"),
        await anyone.options(INBOX),
    ):
        assert response.headers.get_list("x-content-type-options") == ["nosniff"], (
            response.request.url
        )
        assert response.headers.get_list("cache-control") == ["no-store"], response.request.url
        assert response.headers.get_list(HSTS) == ["max-age=31536000"], response.request.url
    asset = await anyone.get("/assets/tocsin-bell.js")
    assert asset.headers.get_list("cache-control") == ["no-cache"]
    assert asset.headers[HSTS]


async def test_by_plain_http_nobody_is_asked_for_https(
    settings: Settings, database: Database
) -> None:
    plain = structs.replace(settings, public_url=URL.replace("https", "http"))
    app = create_app(plain, database, BadgeHub(database), link_key=KEY)
    headers = bearer(token())
    async with httpx.AsyncClient(
        transport=transport_to(app), base_url=URL, headers=headers
    ) as client:
        for _ in range(2):
            response = await client.get(f"{INBOX}unread-count/")
            assert response.headers["x-content-type-options"] == "nosniff"
            assert HSTS not in response.headers
