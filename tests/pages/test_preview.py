"""/dev/templates/: each mail rendered from the current templates, without scripts, and again when one changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import DEVELOPMENT_URL, SECRET, URL, development_app, transport_to
from tests.support.png import png
from tocsin.engine.store.database import Database
from tocsin.settings import Settings

JSON = {"Accept": "application/json"}
REPLY = "/dev/templates/forum.new_reply/"
XSS = "<script>alert(1)</script>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "templates"
    (made / "notifications/forum").mkdir(parents=True)
    return made


@pytest_asyncio.fixture
async def page(folder: Path, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(
        jwt_secret=SECRET, jwt_algorithms=("HS256",), public_url=URL, templates_dir=folder
    )
    transport = transport_to(development_app(settings, database))
    async with httpx.AsyncClient(transport=transport, base_url=DEVELOPMENT_URL) as client:
        yield client


async def test_the_list_has_every_kind_of_mail(page: httpx.AsyncClient, folder: Path) -> None:
    response = await page.get("/dev/templates/")
    for kind in ("forum.new_reply", "compliance.overdue", "burst", "digest", "invitation"):
        assert f'href="{kind}/"' in response.text
        assert (await page.get(f"/dev/templates/{kind}/")).status_code == 200
    assert str(folder) in response.text
    assert "unsafe" not in response.headers["content-security-policy"]


async def test_a_mail_is_shown_from_all_sides(page: httpx.AsyncClient) -> None:
    shown = (await page.get(REPLY, headers=JSON)).json()
    assert shown["subject"] == "Bob replied to “Garden plans”"
    assert shown["text"].startswith(shown["subject"])
    assert ["Auto-Submitted", "auto-generated"] in shown["headers"]
    assert "Content-Type: multipart/alternative" in shown["source"]
    html = (await page.get(REPLY)).text
    assert shown["subject"] in html
    assert "List-Unsubscribe-Post" in html


async def test_either_colour_scheme_can_be_looked_at(page: httpx.AsyncClient) -> None:
    light, dark = [
        (await page.get(f"{REPLY}html/?scheme={scheme}")).text for scheme in ("light", "dark")
    ]
    for each in (light, dark):
        assert "prefers-color-scheme" not in each
    assert '<meta name="color-scheme" content="dark">' in dark
    assert "@media (min-width: 0px)" in dark
    assert "@media (min-width: 99999px)" in light
    assert (await page.get(f"{REPLY}html/?scheme=red")).status_code in {400, 422}


async def test_the_mail_in_its_frame_is_inert(page: httpx.AsyncClient, folder: Path) -> None:
    (folder / "logo.png").write_bytes(png())
    (folder / "brand.toml").write_text('[logo]\nsrc = "logo.png"\nalt = "Acme"')
    response = await page.get(f"{REPLY}html/")
    policy = response.headers["content-security-policy"]
    assert policy.startswith(
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
    )
    assert "allow-scripts" not in policy
    assert 'src="data:image/png;base64,' in response.text


async def test_no_text_of_a_template_comes_to_life(page: httpx.AsyncClient, folder: Path) -> None:
    (folder / "notifications/forum/new_reply.txt").write_text(XSS)
    (folder / "samples.toml").write_text(f'["forum.new_reply"]\ntitle = "{XSS}"')
    response = await page.get(REPLY)
    assert XSS not in response.text
    assert response.text.count("&lt;script&gt;") >= 2
    script = (await page.get("/dev/assets/preview.js")).text
    assert "innerHTML" not in script


async def test_a_change_is_seen_at_once(page: httpx.AsyncClient, folder: Path) -> None:
    before = (await page.get("/dev/templates/version/")).json()
    assert before == (await page.get("/dev/templates/version/")).json()
    template = folder / "notifications/forum/new_reply.txt"
    template.write_text("{{ title }}, changed")
    assert before != (await page.get("/dev/templates/version/")).json()
    assert "changed" in (await page.get(REPLY, headers=JSON)).json()["text"]


async def test_a_mistake_is_a_line_on_the_page(page: httpx.AsyncClient, folder: Path) -> None:
    (folder / "notifications/forum/new_reply.html").write_text("<p>\n{{ tilte }}</p>")
    line = "notifications/forum/new_reply.html:2: "
    assert (await page.get(REPLY, headers=JSON)).json()["problem"] == f"{line}'tilte' is undefined"
    assert f"{line}&#39;tilte&#39; is undefined" in (await page.get(REPLY)).text
    assert (await page.get(f"{REPLY}html/")).text == ""
    found = (await page.get("/dev/templates/problems/")).json()["problems"]
    assert found == [f"{line}unknown variable 'tilte' (did you mean 'title'?)"]


async def test_what_is_no_mail_is_not_there(page: httpx.AsyncClient) -> None:
    for kind in ("forum.new_replly", "..%2f..%2fetc", "version2"):
        assert (await page.get(f"/dev/templates/{kind}/")).status_code == 404
