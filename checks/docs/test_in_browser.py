"""The site in Chromium: search, looks and versions, under the policy of ADR 0071, and from files without a server."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from docs_site import build
from docs_site.contents import ROOT
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.mail_screenshots import chromium

ADR = ROOT / "docs" / "adr" / "0071-documentation-site.md"


class Handler(SimpleHTTPRequestHandler):
    """Files with the policy of the ADR."""

    def end_headers(self) -> None:
        found = re.search(r"`(default-src 'none';[^`]+)`", ADR.read_text("utf-8"))
        assert found
        self.send_header("Content-Security-Policy", found[1])
        super().end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def versions(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site with a released version, which lacks the page of the tables."""
    folder = tmp_path_factory.mktemp("versions")
    shutil.copytree(site, folder / build.DEVELOPMENT)
    released = folder / "0.9.0"
    shutil.copytree(site, released)
    (released / "schema.html").unlink()
    for path in released.rglob("*.html"):
        path.write_text(
            path.read_text("utf-8").replace('data-version="dev"', 'data-version="0.9.0"')
        )
    build.write_index(folder)
    return folder


@pytest.fixture(scope="module")
def address(versions: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(versions))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=60_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page whose console has neither errors nor violations of the policy."""
    context = browser.new_context(color_scheme="light")
    page = context.new_page()
    wrong: list[str] = []
    page.on(
        "console", lambda message: wrong.append(message.text) if message.type == "error" else None
    )
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    context.close()
    assert wrong == []


def test_the_search_finds_a_function_and_shows_where(page: Page, address: str) -> None:
    page.goto(f"{address}/dev/guides/django.html")
    page.get_by_placeholder("Search").fill("unread_count")
    page.get_by_placeholder("Search").press("Enter")
    results = page.locator("#search-results")
    results.get_by_role("link", name="tocsin.client.unread_count").click()
    expect(page).to_have_url(re.compile(r"/dev/reference/python\.html"))


def test_a_reader_chooses_the_dark_look_and_keeps_it(page: Page, address: str) -> None:
    page.goto(f"{address}/dev/index.html")
    page.locator(".theme-toggle-content .theme-toggle").click()
    chosen = page.locator("body").get_attribute("data-theme")
    page.goto(f"{address}/dev/sql.html")
    assert chosen in {"light", "dark"}
    expect(page.locator("body")).to_have_attribute("data-theme", chosen)


def test_the_dark_look_follows_the_system(browser: Browser, address: str) -> None:
    for scheme, shown in (("light", "demo-light"), ("dark", "demo-dark")):
        context = browser.new_context(color_scheme="dark" if scheme == "dark" else "light")
        page = context.new_page()
        page.goto(f"{address}/dev/index.html")
        expect(page.locator(f"img[src*='{shown}']")).to_be_visible()
        context.close()


def test_the_switcher_leads_to_the_same_page_of_another_version(page: Page, address: str) -> None:
    page.goto(f"{address}/dev/guides/django.html")
    page.get_by_label("Version", exact=True).select_option("0.9.0")
    expect(page).to_have_url(f"{address}/0.9.0/guides/django.html")


def test_the_switcher_leads_to_the_start_where_the_page_is_not_there(
    page: Page, address: str
) -> None:
    page.goto(f"{address}/dev/schema.html")
    page.get_by_label("Version", exact=True).select_option("0.9.0")
    expect(page).to_have_url(f"{address}/0.9.0/index.html")


def test_the_start_leads_to_the_newest_version(page: Page, address: str) -> None:
    page.goto(f"{address}/")
    expect(page).to_have_url(f"{address}/0.9.0/index.html")


def test_files_without_a_server_can_be_searched_and_switched(
    browser: Browser, versions: Path
) -> None:
    """Without a server there are no excerpts: a page may not read other files."""
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto((versions / "dev" / "search.html").as_uri() + "?q=digest")
    expect(page.locator("#search-results li").first).to_be_visible()
    page.get_by_label("Version", exact=True).select_option("0.9.0")
    expect(page).to_have_url((versions / "0.9.0" / "search.html").as_uri())
    context.close()
