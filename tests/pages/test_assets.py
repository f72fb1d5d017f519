"""The modules that pages load: from any origin, and cached for a year where their address has a hash."""

from __future__ import annotations

import base64
import gzip
import hashlib

import httpx
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import SECRET, URL, transport_to
from tocsin.engine.badge.hub import BadgeHub
from tocsin.engine.store.database import Database
from tocsin.http.app import create_app
from tocsin.http.pages.assets import asset_path
from tocsin.settings import Settings

BELL = "/assets/tocsin-bell.js"


async def test_a_module_is_revalidated_each_time(anyone: httpx.AsyncClient) -> None:
    response = await anyone.get(BELL)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/javascript; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    again = await anyone.get(BELL, headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == response.headers["etag"]


async def test_any_page_may_load_it_and_none_may_guess_its_kind(anyone: httpx.AsyncClient) -> None:
    for path in (BELL, asset_path("tocsin-bell.js"), "/assets/tocsin-bell.d.ts"):
        headers = (await anyone.get(path)).headers
        assert headers["access-control-allow-origin"] == "*"
        assert headers["cross-origin-resource-policy"] == "cross-origin"
        assert headers["x-content-type-options"] == "nosniff"


async def test_an_address_by_content_is_kept_for_a_year(anyone: httpx.AsyncClient) -> None:
    response = await anyone.get(asset_path("tocsin-bell.js"))
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
    other = await anyone.get("/assets/0000000000000000/tocsin-bell.js")
    assert (other.status_code, other.headers["cache-control"]) == (200, "no-cache")
    assert (await anyone.get("/assets/nothing.js")).status_code == 404


async def test_it_is_compressed_for_clients_that_accept_it(anyone: httpx.AsyncClient) -> None:
    plain = await anyone.get(BELL, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    async with anyone.stream("GET", BELL, headers={"Accept-Encoding": "gzip, br"}) as zipped:
        raw = b"".join([chunk async for chunk in zipped.aiter_raw()])
    assert gzip.decompress(raw) == plain.content
    assert zipped.headers["vary"] == "Accept-Encoding"


async def test_the_list_pins_each(anyone: httpx.AsyncClient) -> None:
    found = (await anyone.get("/assets/")).json()
    assert {"tocsin-bell.js", "tocsin-bell.d.ts"} <= set(found)
    for each in found.values():
        body = (await anyone.get(each["url"])).content
        hashed = base64.b64encode(hashlib.sha256(body).digest()).decode()
        assert each["integrity"] == f"sha256-{hashed}"


@pytest.mark.parametrize("stripped", [True, False], ids=["stripped", "passed on"])
async def test_it_is_served_behind_a_prefix(dsn: str, stripped: bool) -> None:
    database = Database(dsn)  # not opened: nothing is asked
    settings = Settings(
        jwt_secret=SECRET, jwt_algorithms=("HS256",), public_url=f"{URL}/deep/notify"
    )
    app = create_app(settings, database, BadgeHub(database), link_key=b"k" * 32)
    prefix = "" if stripped else "/deep/notify"
    async with httpx.AsyncClient(transport=transport_to(app), base_url=URL) as client:
        assert (await client.get(f"{prefix}{BELL}")).status_code == 200
        url = (await client.get(f"{prefix}/assets/")).json()["tocsin-bell.js"]["url"]
    assert url.startswith(f"{URL}/deep/notify/assets/")


async def test_a_service_worker_may_be_imported_by_one_of_another_origin(
    anyone: httpx.AsyncClient,
) -> None:
    """It is a classic script, which `importScripts()` loads from anywhere."""
    response = await anyone.get("/assets/tocsin-sw.js")
    assert response.headers["content-type"] == "text/javascript; charset=utf-8"
    assert response.headers["cross-origin-resource-policy"] == "cross-origin"
    assert response.headers["cache-control"] == "no-cache"
    assert "import" not in response.text
    assert "export" not in response.text
