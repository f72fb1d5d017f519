"""The guides for frameworks, built and run with the npm package as it is published, against the running service."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from host_site import *  # noqa: F403 - fixtures
from host_site import ROOT, HostSite, until
from npm_package import install
from playwright.sync_api import BrowserContext, Page, expect

from tests.support.guides import write
from tests.support.services import SECRET

HERE = Path(__file__).parent
BUILD = ROOT / "build" / "frontends"
# no framework reports its use, and none repairs its lock from a registry
QUIET = {
    "ASTRO_TELEMETRY_DISABLED": "1",
    "CI": "1",
    "NEXT_IGNORE_INCORRECT_LOCKFILE": "1",
    "NEXT_TELEMETRY_DISABLED": "1",
    "NUXT_TELEMETRY_DISABLED": "1",
}
LONGEST = 600  # seconds of an installation or build, on a machine that is busy


class Project:
    """An app of a framework: its locked packages, the files of its guide, and our package."""

    def __init__(self, name: str, guide: str, site: HostSite) -> None:
        self.folder = BUILD / name
        self.person = site.person()
        self.environ = {
            **os.environ,
            **QUIET,
            "CHECK_PERSON": self.person,
            "NEXT_PUBLIC_NOTIFY_URL": f"{site.url}/",
            "NUXT_JWT_SECRET": SECRET,
            "NUXT_PUBLIC_NOTIFY_URL": f"{site.url}/",
            "PUBLIC_NOTIFY_URL": f"{site.url}/",
            "TOCSIN_JWT_SECRET": SECRET,
        }
        shutil.copytree(HERE / name, self.folder, dirs_exist_ok=True)
        self._install_packages()
        self.files = {
            path.relative_to(self.folder).as_posix() for path in write(guide, self.folder)
        }
        shutil.rmtree(self.folder / "node_modules" / "tocsin", ignore_errors=True)
        install(self.folder)

    def _install_packages(self) -> None:
        """Installs them once for each lock."""
        lock = self.folder / "package-lock.json"
        installed = self.folder / "node_modules" / ".installed-lock"
        if not installed.exists() or installed.read_bytes() != lock.read_bytes():
            self.run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
            installed.write_bytes(lock.read_bytes())

    def run(self, *command: str) -> str:
        """The output of a command, which has to succeed."""
        ran = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONGEST,
        )
        assert ran.returncode == 0, ran.stdout[-5000:]
        return ran.stdout

    def tool(self, name: str, *options: str) -> str:
        return self.run(f"node_modules/.bin/{name}", *options)

    @contextmanager
    def serving(self, site: HostSite, *command: str, folder: str = ".") -> Iterator[str]:
        """The address of the app, once it responds."""
        port = str(site.front.app_port)
        environ = {**self.environ, "PORT": port, "HOST": "127.0.0.1", "NODE_ENV": "production"}
        log = self.folder / "served.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                command, cwd=self.folder / folder, env=environ, stdout=output, stderr=output
            )
        address = f"http://localhost:{port}"
        try:
            until(lambda: process.poll() is not None or responds(address), log.read_text)
            assert process.poll() is None, log.read_text()
            yield address
        finally:
            process.terminate()
            process.wait(20)


def responds(address: str) -> bool:
    try:
        with urlopen(address, timeout=20):
            return True
    except (URLError, OSError):
        return False


def read(address: str) -> str:
    """The page as the server renders it."""
    with urlopen(address, timeout=30) as response:
        text: str = response.read().decode()
        return text


def expect_badge(page: Page, count: int) -> None:
    expect(page.get_by_role("button", name=f"Notifications, {count} unread")).to_be_visible()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


def test_next_builds_renders_and_follows(site: HostSite, page: Page) -> None:
    app = Project("next", "react-next.md", site)
    home = "export default function Home() {\n  return <p>Home</p>;\n}\n"
    (app.folder / "app" / "page.tsx").write_text(home)
    app.tool("next", "build")
    site.notify(app.person, "Look here", action_url="/latest")
    with app.serving(
        site, "node_modules/.bin/next", "start", "--port", str(site.front.app_port)
    ) as address:
        assert "<tocsin-bell" in read(f"{address}/inbox")
        assert "<li>Look here</li>" in read(f"{address}/latest")
        page.goto(f"{address}/inbox")
        expect_badge(page, 1)
        expect(page.get_by_role("heading", name="Notifications (1)")).to_be_visible()
        site.notify(app.person, "Fresh")
        expect_badge(page, 2)
        expect(page.get_by_role("listitem").filter(has_text="Fresh")).to_be_visible()
        page.get_by_role("button", name="Notifications, 2 unread").click()
        page.evaluate("window.stayed = true")
        page.get_by_role("dialog").get_by_role("link", name="Unread: Look here").click()
        expect(page).to_have_url(f"{address}/latest")
        assert page.evaluate("window.stayed")  # by the router, not by loading a page
        expect_badge(page, 1)


def test_nuxt_builds_renders_and_follows(site: HostSite, page: Page) -> None:
    app = Project("nuxt", "vue-nuxt.md", site)
    app.tool("nuxt", "build")
    site.notify(app.person, "Look here")
    with app.serving(site, "node", ".output/server/index.mjs") as address:
        rendered = read(address)
        assert "<tocsin-bell" in rendered
        assert "? unread" in rendered
        page.goto(address)
        expect_badge(page, 1)
        expect(page.get_by_role("heading", name="1 unread")).to_be_visible()
        site.notify(app.person, "Fresh")
        expect(page.get_by_role("listitem").filter(has_text="Fresh")).to_be_visible()
        expect_badge(page, 2)
        page.get_by_role("button", name="Mark as read").first.click()
        expect_badge(page, 1)


def test_astro_builds_and_follows(site: HostSite, page: Page) -> None:
    app = Project("astro", "vue-nuxt.md", site)
    app.tool("astro", "build")
    (app.folder / "dist" / "notification-token").write_text(site.token(app.person))
    site.notify(app.person, "Look here")
    server = (sys.executable, "-m", "http.server", str(site.front.app_port), "--bind", "127.0.0.1")
    with app.serving(site, *server, folder="dist") as address:
        assert "<tocsin-bell" in read(address)
        page.goto(address)
        expect_badge(page, 1)
        site.notify(app.person, "Fresh")
        expect_badge(page, 2)


WRONG_VUE = '<template><tocsin-bell theme="blue" @tocsin:count="(event) => event.detail.nothing" /></template>'
WRONG_SVELTE = (
    '<tocsin-bell theme="blue" ontocsin:count={(event) => event.detail.nothing}></tocsin-bell>'
)


def test_templates_of_vue_and_svelte_are_checked_by_the_types(site: HostSite) -> None:
    app = Project("types", "vue-nuxt.md", site)
    shutil.rmtree(app.folder / "src" / "pages")
    app.tool("vue-tsc", "--project", ".")
    app.tool("svelte-check", "--tsconfig", "tsconfig.json", "--output", "human")
    (app.folder / "src" / "Wrong.vue").write_text(
        f'<script setup lang="ts"></script>\n{WRONG_VUE}\n'
    )
    (app.folder / "src" / "Wrong.svelte").write_text(
        f'<script lang="ts"></script>\n{WRONG_SVELTE}\n'
    )
    try:
        for tool, option in (("vue-tsc", "--project"), ("svelte-check", "--tsconfig")):
            target = "." if tool == "vue-tsc" else "tsconfig.json"
            with pytest.raises(AssertionError) as refused:
                app.tool(tool, option, target)
            assert "blue" in str(refused.value)
            assert "nothing" in str(refused.value)
    finally:
        for name in ("Wrong.vue", "Wrong.svelte"):
            (app.folder / "src" / name).unlink()
