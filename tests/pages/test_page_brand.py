"""The pages of mail links and of settings have the host's name, logo and accent, and a way to sign in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import KEY, SECRET, URL, transport_to
from tests.support.png import png
from tocsin.engine.badge.hub import BadgeHub
from tocsin.engine.store.database import Database
from tocsin.http.app import create_app
from tocsin.settings import Settings

BRAND = """name = "Acme <b>"
accent = "#7a2f8f"
accent_dark = "#e2a6f2"
[logo]
src = "logo.png"
alt = "Acme"
"""


@pytest.fixture
def brand() -> str:
    return BRAND


@pytest_asyncio.fixture
async def anybody(
    tmp_path: Path, brand: str, database: Database
) -> AsyncIterator[httpx.AsyncClient]:
    (tmp_path / "brand.toml").write_text(brand)
    (tmp_path / "logo.png").write_bytes(png(8, 8))
    settings = Settings(
        jwt_secret=SECRET,
        jwt_algorithms=("HS256",),
        public_url=URL,
        templates_dir=tmp_path,
        sign_in_url="/login?next=/settings/",
    )
    app = create_app(settings, database, BadgeHub(database), link_key=KEY)
    async with httpx.AsyncClient(transport=transport_to(app), base_url=URL) as client:
        yield client
    await app.state.offload.stop()


@pytest.mark.parametrize("path", ["/settings/", "/unsubscribe/x/", "/c/x/"])
async def test_pages_have_the_brand_of_the_mails(anybody: httpx.AsyncClient, path: str) -> None:
    page = await anybody.get(path)
    policy = page.headers["content-security-policy"]
    assert "Acme &lt;b&gt;</title>" in page.text
    assert 'alt="Acme"' in page.text
    assert "--accent: #7a2f8f; --on-accent: #ffffff" in page.text
    assert "--accent: #e2a6f2; --on-accent: #000000" in page.text
    assert 'src="data:image/png;base64,' in page.text
    assert "img-src data:" in policy
    assert policy.count("sha256-") == page.text.count("<style>") == 2


@pytest.mark.parametrize("brand", ['accent = "no colour"', ""], ids=["wrong", "empty"])
async def test_without_a_valid_brand_the_pages_are_plain(
    anybody: httpx.AsyncClient, brand: str
) -> None:
    page = await anybody.get("/settings/")
    assert page.status_code == 401
    assert page.text.count("<style>") == 1
    assert "<header" not in page.text


async def test_the_settings_page_names_where_one_signs_in(anybody: httpx.AsyncClient) -> None:
    page = await anybody.get("/settings/")
    assert 'sign-in="/login?next=/settings/"' in page.text
