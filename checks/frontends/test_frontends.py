"""The guides for frameworks, built and run with the npm package as it is published, against the running service."""

from __future__ import annotations

import shutil
import sys

import pytest
from frontend_project import Project, expect_badge, read
from host_site import *  # noqa: F403 - fixtures
from host_site import HostSite
from playwright.sync_api import BrowserContext, Page, expect


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
