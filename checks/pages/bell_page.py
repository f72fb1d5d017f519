"""A host app's page with a bell in its navbar, as a person uses it."""

from __future__ import annotations

import json
from typing import Any

from front import POLICY
from host_site import HostPage, HostSite, until
from playwright.sync_api import BrowserContext, Locator, Page, expect

_HTML = """<!doctype html>
<html lang="{lang}" dir="{dir}">
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Chapter</title>
<link rel="stylesheet" href="/{name}.css">
<script type="module" src="{module}"></script>
<script type="module" src="/{name}.js"></script>
<body>
<header><strong>Chapter</strong><nav aria-label="Site"><a href="/forums">Forums</a> <a href="/events">Events</a></nav>
<tocsin-bell{attributes}></tocsin-bell></header>
<main><h1>Spring Formal Planning</h1><p>Where shall it be this year? Carol thinks of the old mill, Bob of the boat
house. Write below what you think, and vote until Sunday evening.</p>
<p><a id="after" href="/next">Next page</a></p></main>
"""

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { margin: 0; background: light-dark(#f4f5f8, #101216); color: light-dark(#1c1f26, #e8eaef) }
header { display: flex; align-items: center; gap: 24px; padding: 10px 24px; background: light-dark(#fff, #181a1f);
  border-bottom: 1px solid light-dark(#e4e6eb, #2a2d35) }
nav { flex: 1; display: flex; gap: 16px } a { color: light-dark(#3553d6, #9db1ff) }
main { max-width: 40rem; padding: 24px }
"""

# The host's own script: records the events of the bell.
_SCRIPT = """
const bell = (window.bell = document.querySelector("tocsin-bell"));
window.received = [];
const names = ["tocsin:action", "tocsin:count", "tocsin:open", "tocsin:signed-out"];
for (const name of names) {
  addEventListener(name, (event) => window.received.push([name, event.detail]));
}
"""

_FOCUSED = """() => {
  let at = document.activeElement;
  while (at?.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
  return at?.getAttribute("aria-label") ?? at?.textContent.trim() ?? "";
}"""


class Bell:
    """One tab."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.button = page.locator("tocsin-bell").locator(".bell")
        self.badge = page.locator("tocsin-bell").locator(".badge")
        self.panel = page.locator("tocsin-bell").locator("dialog")
        self.items = self.panel.locator(".item")

    def open(self) -> None:
        self.button.click()
        expect(self.panel).to_be_visible()

    def item(self, title: str) -> Locator:
        return self.items.filter(has_text=title)

    def scroll_to_the_end(self, count: int) -> None:
        """Scrolls down, and up again where nothing is loaded yet, until so many are in the list."""

        def is_loaded() -> bool:
            self.items.first.scroll_into_view_if_needed()
            self.items.last.scroll_into_view_if_needed()
            return self.items.count() >= count

        until(is_loaded, lambda: f"{self.items.count()} of {count} are loaded")

    def expect_count(self, count: int) -> None:
        """Expects the count in the badge, and the exact number in its accessible name."""
        expect(self.button).to_have_attribute("aria-label", f"Notifications, {count:,} unread")
        if count:
            expect(self.badge).to_have_text(str(count) if count < 100 else "99+")
        else:
            expect(self.badge).to_be_hidden()

    def expect_focus(self, name: str) -> None:
        """Expects the focus on the element with this name, also inside shadow roots."""
        until(lambda: self.focused() == name, lambda: f"the focus is on {self.focused()!r}")

    def focused(self) -> str:
        text: str = self.page.evaluate(_FOCUSED)
        return text

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def events(self, name: str) -> list[object]:
        """Returns the details of the events that the host received."""
        found: list[object] = self.page.evaluate(
            "(name) => window.received.filter(([each]) => each === name).map(([, detail]) => detail)",
            name,
        )
        return found

    def event(self, name: str) -> Any:
        """Waits for the event's first arrival at the host, and returns its details."""
        until(lambda: self.events(name), lambda: f"the host received no {name}")
        [found] = self.events(name)
        return found

    def expect_event(self, name: str, detail: object) -> None:
        """Waits until the host has received an event with these details."""
        until(
            lambda: detail in self.events(name),
            lambda: f"the host received {self.events(name)}",
        )


def open_bell(
    site: HostSite,
    context: BrowserContext,
    *,
    script: str = "",
    attributes: str = "",
    elsewhere: bool = False,
    lang: str = "en",
    direction: str = "ltr",
    policy: str = POLICY,
    loads: bool = True,
) -> Bell:
    """Returns a page at the host's own origin, or at another one (`elsewhere`), where only a token counts.

    It is loaded, or still loads: then nothing waits for its scripts.
    """
    module = f"{site.url}/assets/tocsin-bell.js" if elsewhere else "/notify/assets/tocsin-bell.js"
    name = f"page-{len(site.front.pages)}"
    html = _HTML.format(
        lang=lang, dir=direction, name=name, module=module, attributes=f" {attributes}"
    )
    path = site.front.show(name, HostPage(html, _SCRIPT + script, _STYLE, policy))
    page = context.new_page()
    origin = site.front.other_origin if elsewhere else site.front.origin
    page.goto(origin + path, wait_until="load" if loads else "commit")
    return Bell(page)


def with_token(token: str) -> str:
    """Returns the host's script that gives the bell a token."""
    return f"bell.getToken = async () => {json.dumps(token)};"
