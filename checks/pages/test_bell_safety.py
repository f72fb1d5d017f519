"""Texts of apps and people stay text: nothing of them runs, loads, or leads to a script."""

from __future__ import annotations

from bell_page import Bell, open_bell
from host_site import *  # noqa: F403 - fixtures
from host_site import HostSite, take_picture
from playwright.sync_api import BrowserContext, Route, expect

CORPUS = [
    "<script>window.pwned = 1</script>",
    "<img src=x onerror=window.pwned=1>",
    "<img src='https://evil.example/track.gif'>",
    "<svg onload=window.pwned=1><animate onbegin=window.pwned=1 attributeName=x dur=1s>",
    "<a href='javascript:window.pwned=1'>click</a>",
    '<a href="javascript&colon;window.pwned=1">click</a>',
    '<a href="&#106;avascript:window.pwned=1">click</a>',
    '<a href="java\tscript:window.pwned=1">click</a>',
    '<a href="data:text/html,<script>window.pwned=1</script>">click</a>',
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<style>*{background:url(https://evil.example/x)}</style>",
    '<p style="background:url(https://evil.example/x)" onclick="window.pwned=1">styled</p>',
    "<form action=https://evil.example><input name=q><button>go</button></form>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=x onerror=pwned=1&gt;'>",
    "<noscript><p title='</noscript><img src=x onerror=window.pwned=1>'>",
    "<template><script>window.pwned=1</script></template>",
    "{{constructor.constructor('window.pwned=1')()}}",
    "\u202ethgir ot tfel <b>bold</b> &lt;script&gt;",
]
URLS = [
    "javascript:window.pwned=1",
    "JaVaScRiPt:window.pwned=1",
    "\x01javascript:window.pwned=1",
    "java\nscript:window.pwned=1",
    "data:text/html,<script>window.pwned=1</script>",
    "vbscript:x",
    "blob:https://evil.example/1",
    "file:///etc/passwd",
]
SAFE = ("http://", "https://", "mailto:")
INSIDE = frozenset(
    {"a", "b", "blockquote", "br", "code", "em", "h4", "i", "li", "ol", "p", "pre", "strong", "ul"}
)


def test_nothing_that_is_written_comes_to_life(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    for text in CORPUS:
        title = text.replace("\t", " ")
        site.notify(person, title, body=text, body_html=text)
        site.notify(person, title, body=text)
    site.sign_in(context, person)
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    bell = open_bell(site, context)
    bell.open()
    expect(bell.items.nth(19)).to_be_attached()  # a page, at least
    bell.scroll_to_the_end(2 * len(CORPUS))
    for link in bell.items.locator(".rich a").all():
        assert (link.get_attribute("href") or "https://").startswith(SAFE)
    assert bell.page.evaluate("window.pwned") is None
    found = bell.items.locator("*").evaluate_all("(all) => all.map((each) => each.localName)")
    assert set(found) <= INSIDE | {"div", "span", "button", "svg", "path", "time"}
    assert [url for url in asked if not url.startswith(site.front.origin)] == []
    take_picture(bell.page, "bell-corpus")


def test_the_list_of_what_is_allowed_holds_by_itself(
    site: HostSite, context: BrowserContext
) -> None:
    """Safe even if the service sanitised nothing."""
    bell = _showing(site, context, [{"body_html": text} for text in CORPUS])
    expect(bell.items.locator(".rich")).to_have_count(len(CORPUS))
    inside = bell.items.locator(".rich *")
    found = inside.evaluate_all("(all) => all.map((e) => [e.localName, ...e.getAttributeNames()])")
    assert {name for name, *_ in found} <= INSIDE
    assert {attribute for _, *attributes in found for attribute in attributes} <= {
        "href",
        "rel",
        "tabindex",
    }
    for link in bell.items.locator(".rich a").all():
        assert (link.get_attribute("href") or "https://").startswith(SAFE)
    assert bell.page.evaluate("window.pwned") is None


def test_an_action_url_that_is_no_page_is_no_link(site: HostSite, context: BrowserContext) -> None:
    bell = _showing(site, context, [{"action_url": url} for url in URLS])
    expect(bell.items.locator("a")).to_have_count(0)
    bell.items.first.get_by_role("button", name="Unread: Placeholder").click()
    assert bell.page.evaluate("window.pwned") is None


def _showing(site: HostSite, context: BrowserContext, changes: list[dict[str, str]]) -> Bell:
    """Returns the bell of a person whose list was changed in transit."""
    person = site.person()
    site.notify(person, "Placeholder")
    site.sign_in(context, person)

    def change(route: Route) -> None:
        response = route.fetch()
        found = response.json()
        group = found["results"][0]
        one = group["latest"]
        found["results"] = [
            {
                **group,
                "group_key": str(number),
                "latest": {**one, "id": one["id"] + number, **change},
            }
            for number, change in enumerate(changes)
        ]
        route.fulfill(response=response, json=found)

    context.route("**/api/notifications/?*", change)
    bell = open_bell(site, context)
    bell.open()
    expect(bell.items).to_have_count(len(changes))
    return bell
