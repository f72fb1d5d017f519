"""Pages that mails link to: a GET changes nothing, and no text of an app becomes HTML."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute
from litestar.typing import FieldDefinition

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import (
    KEY,
    LINKS,
    METRICS_TOKEN,
    SECRET,
    URL,
    Db,
    NewNotification,
    bearer,
    transport_to,
)
from tests.support.services import LONGEST, free_port
from tocsin.engine.badge.hub import BadgeHub
from tocsin.engine.mail.links import Links
from tocsin.engine.store.database import Database
from tocsin.http.app import create_app, metrics_listener
from tocsin.http.openapi import examples
from tocsin.http.pages.assets import AssetAddress
from tocsin.settings import Settings, SettingsError

NOW = datetime.now(UTC)
PREFERENCES = "/api/notification-preferences/"
XSS = "<script>alert(1)</script><img src=x onerror=alert(1)>"
CLICK = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-User": "?1"}


async def overrides(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(PREFERENCES)).json()["overrides"]
    return found


async def test_looking_at_unsubscribe_changes_nothing_and_one_click_does(
    anyone: httpx.AsyncClient, alice: httpx.AsyncClient, people: None
) -> None:
    link = LINKS.unsubscribe("alice", "forum.new_reply", NOW)
    for method in ("GET", "HEAD"):
        response = await anyone.request(method, link)
        assert (response.status_code, await overrides(alice)) == (200, {})
    for _ in range(2):
        response = await anyone.post(link, data={"List-Unsubscribe": "One-Click"})
        assert response.status_code == 200
        assert await overrides(alice) == {"forum.new_reply": {"email": False}}
    await anyone.post(link, data={"undo": "1"})
    assert await overrides(alice) == {}
    assert (await anyone.post(link)).status_code == 200
    assert await overrides(alice) == {"forum.new_reply": {"email": False}}


async def test_a_multipart_one_click_works_too(
    anyone: httpx.AsyncClient, alice: httpx.AsyncClient, people: None
) -> None:
    link = LINKS.unsubscribe("alice", "forum.new_reply", NOW)
    response = await anyone.post(link, files={"List-Unsubscribe": (None, "One-Click")})
    assert response.status_code == 200
    assert await overrides(alice) == {"forum.new_reply": {"email": False}}


async def test_a_wider_opt_out_ends_what_was_turned_on_inside_it(
    anyone: httpx.AsyncClient, alice: httpx.AsyncClient, people: None
) -> None:
    chosen = {"forum.mention": {"email": True, "push": True}, "billing.*": {"email": True}}
    await alice.patch(PREFERENCES, json={"overrides": chosen})
    link = LINKS.unsubscribe("alice", "forum.new_reply", NOW)
    await anyone.post(link, data={"scope": "category"})
    assert await overrides(alice) == {
        "forum.*": {"email": False},
        "forum.mention": {"push": True},
        "billing.*": {"email": True},
    }
    await anyone.post(link, data={"scope": "all"})
    found = (await alice.get(PREFERENCES)).json()
    on = [name for name, channels in found["event_types"].items() if channels["email"]]
    assert on == ["compliance.overdue"]
    assert (await anyone.post(link, data={"scope": "some"})).status_code == 422


async def test_a_mandatory_type_is_explained(anyone: httpx.AsyncClient, people: None) -> None:
    link = LINKS.unsubscribe("alice", "compliance.overdue", NOW)
    assert "required" in (await anyone.get(link)).text
    assert "still come" in (await anyone.post(link)).text


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_bad_link_is_a_calm_page(
    anyone: httpx.AsyncClient, people: None, method: str
) -> None:
    old = Links(URL, KEY).unsubscribe("alice", "forum.new_reply", NOW - timedelta(days=366))
    forged = Links(URL, b"x" * 32).unsubscribe("alice", "forum.new_reply", NOW)
    erased = LINKS.unsubscribe("nobody", "forum.new_reply", NOW)
    other = LINKS.open(1, "alice", NOW).replace("/c/", "/unsubscribe/")
    for link in (old, forged, erased, other, f"{URL}/unsubscribe/nonsense/"):
        response = await anyone.request(method, link)
        assert response.status_code == 404
        assert "does not work any more" in response.text


async def test_only_a_person_following_a_mails_link_marks_it_read(
    anyone: httpx.AsyncClient, alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    id_ = new_notification(action_url="/forums/7")
    link = LINKS.open(id_, "alice", NOW)
    for method, headers in (("GET", {}), ("HEAD", CLICK), ("GET", {"Sec-Fetch-Mode": "navigate"})):
        response = await anyone.request(method, link, headers=headers)
        assert (response.status_code, response.headers["location"]) == (303, f"{URL}/forums/7")
        assert (await alice.get("/api/notifications/unread-count/")).json() == {
            "count": 1,
            "unseen": 1,
        }
    await anyone.get(link, headers=CLICK)
    assert (await alice.get("/api/notifications/unread-count/")).json() == {"count": 0, "unseen": 0}
    assert (await anyone.get(f"{URL}/c/nonsense/")).status_code == 404
    assert (await anyone.get(LINKS.open(id_, "bob", NOW))).status_code == 404


async def test_pages_are_inert_and_ask_nobody_else(
    anyone: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    link = LINKS.open(new_notification(title=XSS, body=f"one\n{XSS}"), "alice", NOW)
    for url in (link, LINKS.unsubscribe("alice", "forum.new_reply", NOW), f"{URL}/schema/"):
        response = await anyone.get(url)
        assert response.status_code == 200
        assert "<script" not in response.text
        assert "<img" not in response.text
        assert 'src="' not in response.text
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-frame-options"] == "DENY"


async def test_the_description_names_every_route(anyone: httpx.AsyncClient, app: Litestar) -> None:
    response = await anyone.get("/schema/openapi.json")
    doc = response.json()
    assert doc["openapi"] == "3.1.0"
    described = {(path, method) for path, each in doc["paths"].items() for method in each}
    for route in app.routes:
        path = f"{route.path_format}/"
        if isinstance(route, HTTPRoute):
            for method in route.methods - {"OPTIONS", "HEAD"}:
                assert (path, method.lower()) in described
    page = (await anyone.get("/schema")).text
    assert all(f"<code>{path}</code>" in page for path in doc["paths"])


async def test_the_descriptions_references_and_examples_hold(
    anyone: httpx.AsyncClient, app: Litestar
) -> None:
    text = (await anyone.get("/schema/openapi.json")).text
    names = set(msgspec.json.decode(text)["components"]["schemas"])
    references = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert {"Notification", "Accepted"} <= references <= names
    assert len(list(each_example(app))) > 45
    kinds = set()
    for kind, example in each_example(app):
        msgspec.convert(example, kind)
        kinds.add(getattr(kind, "__name__", ""))
    unused = examples().keys() - kinds - {"list_assets", "stream"}
    assert not unused


def each_example(app: Litestar) -> Iterator[tuple[Any, Any]]:
    """Of what handlers take and return, with its type."""
    for route in app.routes:
        assert isinstance(route, HTTPRoute)
        for handler in route.route_handlers:
            found = handler.parsed_fn_signature.return_type
            kinds = [found, *found.inner_types]
            kinds += [
                FieldDefinition.from_annotation(each.data_container)
                for each in (handler.responses or {}).values()
            ]
            taken = handler.resolve_dependencies().get("read_by_handler", handler)
            if data := taken.parsed_fn_signature.parameters.get("data"):
                kinds += data.inner_types if data.is_optional else [data]
            for kind in kinds:
                example = examples().get(getattr(kind.annotation, "__name__", ""))
                if example is not None:
                    yield kind.annotation, example
    yield dict[str, AssetAddress], examples()["list_assets"]
    yield str, examples()["stream"]


@pytest.mark.parametrize("path", ["/api/notifications", "/api/event-types", "/schema", "/healthz"])
async def test_paths_work_with_and_without_their_last_slash(
    alice: httpx.AsyncClient, path: str
) -> None:
    for each in (path, f"{path}/"):
        assert (await alice.get(each)).status_code == 200


async def test_unknown_paths_and_methods_are_problems(alice: httpx.AsyncClient) -> None:
    for method, path, status in (
        ("GET", "/nowhere", 404),
        ("PUT", "/api/notifications/", 405),
        ("POST", "/api/notifications/unread-count/", 405),
        ("POST", "/api/notifications/stream/", 405),
    ):
        response = await alice.request(method, path)
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"
        assert set(response.json()) == {"title", "status", "detail"}
        assert bool(response.headers.get("allow")) is (status == 405)


async def test_a_content_type_has_its_charset_once(anyone: httpx.AsyncClient) -> None:
    for path in ("/schema", "/metrics/", "/unsubscribe/x/"):
        response = await anyone.get(path, headers=bearer(METRICS_TOKEN))
        assert response.headers["content-type"].count("charset") == 1


@pytest.mark.own_app
async def test_metrics_count_what_waits(anyone: httpx.AsyncClient, people: None, db: Db) -> None:
    db.execute("select tocsin.notify('forum.new_reply', array['alice'], 'x')")
    db.execute("select tocsin.notify('forum.new_reply', array['alice'], 'y')")
    db.execute(
        "update tocsin.delivery set state = 'deferred', due_at = now() - interval '1 min'"
        " where delivery_id = (select min(delivery_id) from tocsin.delivery)"
    )
    text = (await anyone.get("/metrics/", headers=bearer(METRICS_TOKEN))).text
    assert 'tocsin_deliveries{channel="email",state="deferred"} 1.0' in text
    assert 'tocsin_deliveries{channel="email",state="queued"} 1.0' in text
    (late,) = [line for line in text.splitlines() if line.startswith("tocsin_delivery_late")]
    assert float(late.split()[-1]) >= 60


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": METRICS_TOKEN}, 401),
        (bearer(METRICS_TOKEN[:-1]), 401),
        (bearer(METRICS_TOKEN + "x"), 401),
        (bearer("ä"), 401),
        ({"Authorization": f"Basic {METRICS_TOKEN}"}, 401),
        (bearer(METRICS_TOKEN), 200),
        ({"Authorization": f"bearer  {METRICS_TOKEN}"}, 200),
    ],
)
async def test_metrics_are_for_the_bearer_of_their_token(
    anyone: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    raw = {name.encode(): value.encode() for name, value in headers.items()}
    response = await anyone.get("/metrics/", headers=raw)
    assert response.status_code == status
    assert ("www-authenticate" in response.headers) == (status == 401)


async def test_without_a_token_metrics_are_on_a_listener_of_their_own_alone(
    database: Database,
) -> None:
    settings = Settings(jwt_secret=SECRET, jwt_algorithms=("HS256",), public_url=URL)
    app = create_app(settings, database, BadgeHub(database), link_key=KEY)
    port = free_port()
    local = f"http://127.0.0.1:{port}"
    async with metrics_listener(port, app), httpx.AsyncClient(timeout=LONGEST) as client:
        for path in ("/metrics", "/metrics/"):
            assert "tocsin_http_requests" in (await client.get(local + path)).text
        for path in ("/", "/api/events/", "/schema", "/healthz"):
            assert (await client.get(local + path)).status_code == 404
        for host, status in ((f"localhost:{port}", 200), ("evil.test", 421)):
            response = await client.get(f"{local}/metrics", headers={"Host": host})
            assert response.status_code == status
        with pytest.raises(httpx.TransportError):  # as any other address of this machine
            await client.get(f"http://127.0.0.2:{port}/metrics")
        with pytest.raises(SettingsError, match=r"TOCSIN_METRICS_PORT \d+ is in use"):
            async with metrics_listener(port, app):
                pass
    for peer in ("127.0.0.1", "10.1.2.3"):
        async with httpx.AsyncClient(transport=transport_to(app, peer), base_url=URL) as client:
            response = await client.get("/metrics/")
            assert response.status_code == 404
            assert "TOCSIN_METRICS_TOKEN" in response.json()["detail"]
