"""The operations page with an operator who is signed in: `from ops_page import *`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from host_site import DESKTOP, HostSite
from playwright.sync_api import Browser, BrowserContext, Page, expect

TOCSIN = (sys.executable, "-m", "tocsin")
SOON = 180_000  # milliseconds; for hangs, not for slowness
# Violations of the page's policy, and its requests.
WATCH = """
window.stopped = [];
addEventListener('securitypolicyviolation', (event) => stopped.push(event.violatedDirective + ' ' + event.blockedURI));
"""


@pytest.fixture
def clean(site: HostSite) -> None:
    """Removes other tests' rows from the ledger."""
    with psycopg.connect(site.dsn, autocommit=True) as connection:
        connection.execute(
            "truncate tocsin.delivery, tocsin.attempt, tocsin.event_queue, tocsin.delivery_minute, tocsin.process,"
            " tocsin.suppression, tocsin.ops_session"
        )
        connection.execute(
            "update tocsin.delivery_minute_progress set upto = date_trunc('minute', now())"
        )


@pytest.fixture(scope="session")
def key(site: HostSite) -> str:
    """A key as an operator creates it."""
    environ = {**os.environ, "TOCSIN_DATABASE_URL": site.dsn}
    made = subprocess.run(
        [*TOCSIN, "api-key", "create", "night shift", "--scope", "ops"],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return made.stdout.split()[-1]


OpenOpsPage = Callable[..., Page]


@pytest.fixture
def open_ops_page(browser: Browser, site: HostSite, key: str, clean: None) -> Iterator[OpenOpsPage]:
    """An operator's browser, signed in; violations of its policy and requests to other hosts fail the test."""
    opened: list[tuple[BrowserContext, Page]] = []
    foreign: list[str] = []

    def watch(url: str) -> None:
        if not url.startswith(site.url + "/"):
            foreign.append(url)

    def open_page(
        *, signed_in: bool = True, size: tuple[int, int] = DESKTOP, **options: Any
    ) -> Page:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        context.set_default_timeout(SOON)
        context.add_init_script(WATCH)
        context.on("request", lambda request: watch(request.url))
        page = context.new_page()
        page.on("pageerror", lambda error: foreign.append(str(error)))
        opened.append((context, page))
        page.goto(f"{site.url}/ops/")
        if signed_in:
            page.get_by_label("API key").fill(key)
            page.get_by_role("button", name="Sign in").click()
            expect(page.locator("#live")).to_have_attribute("data-state", "live", timeout=SOON)
        return page

    yield open_page
    for context, page in opened:
        assert page.evaluate("stopped") == []
        context.close()
    assert foreign == []
