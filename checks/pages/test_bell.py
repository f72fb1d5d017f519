"""<tocsin-bell> in a host app's page."""

from __future__ import annotations

from house import *  # noqa: F403 - fixtures
from house import HostPage, House
from playwright.sync_api import BrowserContext

HTML = """<!doctype html><html lang="en"><title>Host</title>
<script type="module" src="/notify/assets/tocsin-bell.js"></script>
<header><tocsin-bell></tocsin-bell></header><main><h1>Host</h1></main>"""


def test_one_script_tag_is_enough(house: House, context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(house.front.origin + house.front.show("one-tag", HostPage(HTML)))
    assert page.evaluate("document.querySelector('tocsin-bell').api") == house.url + "/"
