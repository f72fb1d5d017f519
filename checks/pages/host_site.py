"""The running service behind a host app's site, and a browser: `from host_site import *`."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import URLError
from urllib.request import Request, urlopen

import jwt
import psycopg
import pytest
from front import PREFIX, Front, HostPage
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

from tests.support.mail_screenshots import chromium
from tests.support.run_folder import run_folder
from tests.support.services import LONGEST, SECRET, free_port
from tocsin.client import notify
from tocsin.dev import embedded_postgres
from tocsin.dev.supervisor import VARIABLE, ParentPipe
from tocsin.migrate import migrate
from tocsin.settings.keys import new_vapid_key

ROOT = Path(__file__).parent.parent.parent
PICTURES = ROOT / "build" / "pages"
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
DESKTOP, PHONE = (1280, 800), (390, 844)
# No background network traffic, and no need for a GPU or a kernel sandbox.
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
METRICS_TOKEN = "the-token-of-the-metrics"
TIMEOUT = 60.0  # seconds; for hangs, not for slowness
_numbers = itertools.count(1)


class HostSite:
    """The service, its database, and the site around it."""

    def __init__(self, dsn: str, direct: str, front: Front, settings: dict[str, str]) -> None:
        self.dsn = dsn
        self.settings = settings  # of the service, for a worker beside it
        self.direct = direct  # the service itself, without the site
        self.front = front
        self.url = front.origin + PREFIX

    def is_ready(self) -> bool:
        """Returns whether the service reaches its database."""
        try:
            with urlopen(f"{self.direct}/readyz/", timeout=5):
                return True
        except (URLError, OSError):
            return False

    def person(self) -> str:
        """Creates a new person, so that no test sees another's notifications."""
        name = f"person-{next(_numbers)}"
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(
                "select tocsin.upsert_recipient(%s, %s)", (name, f"{name}@example.com")
            )
        return name

    def token(self, recipient: str, ttl: float = 3600) -> str:
        """Returns a token as the host app makes it."""
        return jwt.encode({"sub": recipient, "exp": time.time() + ttl}, SECRET, "HS256")

    def notify(self, recipient: str, title: str = "New reply", **named: Any) -> int:
        """Commits an event like an app, on a separate connection; returns the notification's id."""
        with psycopg.connect(self.dsn) as connection:
            event_id = notify(
                connection,
                recipient=recipient,
                title=title,
                **{"event_type": "forum.new_reply", **named},
            )
            row = connection.execute(
                "select notification_id from tocsin.notification where event_id = %s", (event_id,)
            ).fetchone()
        assert row is not None
        return int(row[0])

    def request(self, recipient: str, method: str, path: str, body: object = None) -> Any:
        """Calls the API as this person on another device."""
        headers = {"Authorization": f"Bearer {self.token(recipient)}"}
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.direct}/api/{path}", data, headers, method=method)
        with urlopen(request, timeout=TIMEOUT) as response:
            text = response.read()
        return json.loads(text) if text else None

    def open_streams(self) -> int:
        headers = {"Authorization": f"Bearer {METRICS_TOKEN}"}
        with urlopen(
            Request(f"{self.direct}/metrics/", headers=headers), timeout=TIMEOUT
        ) as response:
            found = re.search(
                r"^tocsin_http_open_streams (\S+)$", response.read().decode(), re.MULTILINE
            )
        assert found is not None
        return int(float(found[1]))

    def expect_streams(self, count: int) -> None:
        until(
            lambda: self.open_streams() == count,
            lambda: f"{self.open_streams()} streams are open, not {count}",
        )

    def sign_in(self, context: BrowserContext, recipient: str) -> None:
        """Signs in with the cookie of the site's own origin."""
        context.add_cookies(
            [
                {
                    "name": "tocsin_token",
                    "value": self.token(recipient),
                    "url": self.front.origin,
                    "httpOnly": True,
                    "sameSite": "Strict",
                }
            ]
        )


T = TypeVar("T")


def _once(config: pytest.Config, key: pytest.StashKey[T], start: Callable[[ExitStack], T]) -> T:
    """Started once for all modules that import its fixture, and stopped at pytest's end."""
    if key not in config.stash:
        stack = ExitStack()
        config.add_cleanup(stack.close)
        config.stash[key] = start(stack)
    return config.stash[key]


_SITE = pytest.StashKey[HostSite]()
_BROWSER = pytest.StashKey[Browser]()


@pytest.fixture(scope="session")
def site(pytestconfig: pytest.Config) -> HostSite:
    """The running service behind its site."""
    return _once(pytestconfig, _SITE, _start_site)


@pytest.fixture(scope="session")
def browser(pytestconfig: pytest.Config) -> Browser:
    """Debian's Chromium, without a window."""
    return _once(pytestconfig, _BROWSER, _start_browser)


def _start_site(stack: ExitStack) -> HostSite:
    folder = stack.enter_context(run_folder())
    database = embedded_postgres.start(folder / "data", report=lambda _: None, durable=False)
    stack.callback(embedded_postgres.stop, database)
    migrate(database.dsn)
    front = Front(free_port())
    front.start(free_port())
    stack.callback(front.stop)
    parent_pipe = ParentPipe()
    stack.callback(parent_pipe.close)
    settings = _settings(database.dsn, front, folder)
    process = start_process("serve", settings, folder / "http.log", parent_pipe)
    stack.callback(process.wait, LONGEST)
    stack.callback(process.terminate)
    direct = f"http://127.0.0.1:{front.backend}"
    until_ready(direct, process, folder / "http.log")
    return HostSite(database.dsn, direct, front, settings)


def _start_browser(stack: ExitStack) -> Browser:
    expect.set_options(timeout=TIMEOUT * 1000)
    playwright = stack.enter_context(sync_playwright())
    browser = playwright.chromium.launch(
        executable_path=chromium(), args=list(QUIET), timeout=LONGEST * 1000
    )
    stack.callback(browser.close)
    return browser


def _settings(dsn: str, front: Front, folder: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": dsn,
        "DATA_DIR": str(folder / "tocsin"),
        "PORT": str(front.backend),
        "PUBLIC_URL": front.origin + PREFIX,
        "JWT_SECRET": SECRET,
        "METRICS_TOKEN": METRICS_TOKEN,
        "ALLOWED_ORIGINS": f"{front.other_origin},http://localhost:{front.app_port}",
        "VAPID_KEY": new_vapid_key(),
        "VAPID_SUBJECT": "mailto:push@example.test",
        "ALLOW_PRIVATE_ENDPOINTS": "1",
    }


def start_process(
    command: str, settings: dict[str, str], log_file: Path, parent_pipe: ParentPipe
) -> subprocess.Popen[bytes]:
    """Starts a command of `tocsin` with these settings and no others; it ends with this process."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")}
    environ |= {f"TOCSIN_{name}": value for name, value in settings.items()}
    environ[VARIABLE] = str(parent_pipe.reading)
    with log_file.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tocsin", command],
            env=environ,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            pass_fds=[parent_pipe.reading],
        )


def until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + LONGEST
    while True:
        try:
            with urlopen(f"{url}/readyz/", timeout=5):
                return
        except (URLError, OSError):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


@pytest.fixture
def context(browser: Browser, site: HostSite) -> Iterator[BrowserContext]:
    """A browser profile for this test, on a desktop. Violations of the page's policy fail the test."""
    site.front.reports.clear()
    context = browser.new_context(viewport={"width": DESKTOP[0], "height": DESKTOP[1]})
    context.set_default_timeout(TIMEOUT * 1000)
    yield context
    context.close()
    assert site.front.reports == []


def until(
    condition: Callable[[], object],
    complaint: Callable[[], str],
    *,
    seconds: float = TIMEOUT,
    page: Page | None = None,
) -> None:
    """Waits like Playwright, but without code that a page's policy would block.

    With a `page`, Playwright passes on the browser's events meanwhile.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, complaint()
        if page is None:
            time.sleep(0.02)
        else:
            page.wait_for_timeout(20)


def first_held(page: Page, held: list[Route]) -> Route:
    """Waits for the first request that the handler of a route keeps; Playwright calls handlers only while it waits."""
    until(lambda: held, lambda: "the page sent no such request", page=page)
    return held[0]


# Axe would see the colours of a moment in the middle of an animation.
_END_ANIMATIONS = """() => {
  const roots = [document];
  for (const root of roots) {
    for (const { shadowRoot } of root.querySelectorAll('*')) if (shadowRoot) roots.push(shadowRoot);
    for (const each of root.getAnimations()) {
      if (Number.isFinite(each.effect.getComputedTiming().endTime)) each.finish();
    }
  }
}"""


def violations(page: Page) -> list[str]:
    """Returns the violations that axe-core finds, up to WCAG 2.2 AA and its best practices, with open shadow roots."""
    page.evaluate(_END_ANIMATIONS)
    if not page.evaluate("'axe' in window"):
        # by the debugger, which no policy of the page blocks
        page.evaluate(AXE.read_text())
    found = page.evaluate(f"axe.run(document, {{resultTypes: ['violations'], runOnly: {RULES}}})")
    return [
        f"{each['id']}: {node['target']} {node['failureSummary']}"
        for each in found["violations"]
        for node in each["nodes"]
    ]


def take_picture(page: Page, name: str) -> None:
    """`build/pages/<name>.png`, for reviews."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", animations="disabled")


__all__ = ["HostPage", "HostSite", "browser", "context", "site"]
