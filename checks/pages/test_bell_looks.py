"""The look of the bell: pictures for reviews in build/pages, and axe-core's result for each."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from bell_page import Bell, open_bell
from host_site import *  # noqa: F403 - fixtures
from host_site import DESKTOP, PHONE, HostSite, take_picture, violations
from playwright.sync_api import Browser, BrowserContext, expect

STORY: list[dict[str, Any]] = [
    {
        "event_type": "bulletin.new_chapter",
        "title": "The autumn bulletin is out",
        "body": "Dates, people, and a call for helpers.",
        "ago": "30 hours",
        "read": True,
    },
    {
        "event_type": "event.invited",
        "title": "You are invited: harvest supper",
        "body": "Saturday at seven, in the hall.",
        "ago": "27 hours",
        "read": True,
    },
    {
        "event_type": "election.opened",
        "title": "The election of the board is open",
        "body": "Vote until Sunday evening.",
        "ago": "26 hours",
    },
    {
        "event_type": "learning.certificate_ready",
        "title": "Your certificate is ready",
        "body_html": "<p>Well done! You finished <strong>First aid at events</strong>.</p>"
        '<ul><li>valid for two years</li><li><a href="/certificates/12">look at it</a></li></ul>',
        "ago": "3 hours",
        "read": True,
    },
    {
        "event_type": "approval.requested",
        "title": "Bob asks for your approval",
        "body": "Reimbursement of 84.50 for paint, brushes and a ladder that nobody could find any more.",
        "ago": "48 minutes",
    },
    {
        "event_type": "forum.mention",
        "title": "Carol mentioned you in 'Spring Formal Planning'",
        "body": "What does @alice think of the old mill? It has a garden, and we could dance outside.",
        "ago": "9 minutes",
    },
    {
        "event_type": "forum.new_reply",
        "title": "New reply in 'Spring Formal Planning'",
        "body": "Bob replied to your post.",
        "ago": "20 seconds",
    },
]


def notify_story(site: HostSite) -> str:
    """Returns a person with a few days of notifications."""
    person = site.person()
    with psycopg.connect(site.dsn, autocommit=True) as connection:
        for each in STORY:
            named = {name: each[name] for name in each if name not in ("ago", "read")}
            id_ = site.notify(person, action_url="/somewhere", **named)
            if each.get("read"):
                site.request(person, "PATCH", f"notifications/{id_}/read/")
            connection.execute(
                "update tocsin.notification set created_at = now() - %s::interval"
                " where notification_id = %s",
                (each["ago"], id_),
            )
    return person


LOOKS = [
    (f"{size}-{scheme}-{lang}", size, scheme, lang)
    for size in ("desktop", "phone")
    for scheme in ("light", "dark")
    for lang in ("en", "ar")
] + [("desktop-light-de", "desktop", "light", "de")]


@pytest.mark.parametrize(("name", "size", "scheme", "lang"), LOOKS, ids=[look[0] for look in LOOKS])
def test_it_looks_well_and_axe_finds_nothing(
    site: HostSite, browser: Browser, name: str, size: str, scheme: str, lang: str
) -> None:
    width, height = PHONE if size == "phone" else DESKTOP
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        has_touch=size == "phone",
        is_mobile=size == "phone",
        device_scale_factor=2,
        reduced_motion="reduce",
    )
    site.sign_in(context, notify_story(site))
    direction = "rtl" if lang == "ar" else "ltr"
    bell = open_bell(site, context, lang=lang, direction=direction, attributes='settings="/s"')
    expect(bell.badge).to_be_visible()
    bell.open()
    expect(bell.items).to_have_count(len(STORY))
    expect(bell.panel.locator("select")).to_be_visible()
    take_picture(bell.page, f"bell-{name}")
    assert violations(bell.page) == []
    context.close()


def test_it_fits_the_narrowest_window_and_forced_colours(site: HostSite, browser: Browser) -> None:
    """320 pixels wide, like 1280 at four times the size (WCAG 1.4.10)."""
    context = browser.new_context(
        viewport={"width": 320, "height": 568}, forced_colors="active", reduced_motion="reduce"
    )
    site.sign_in(context, notify_story(site))
    bell = open_bell(site, context, attributes='settings="/s"')
    bell.open()
    expect(bell.items).to_have_count(len(STORY))
    for place in (bell.panel, bell.panel.locator(".scroller")):
        assert place.evaluate("(each) => each.scrollWidth - each.clientWidth") == 0
    assert bell.page.evaluate("document.getAnimations().length") == 0
    take_picture(bell.page, "bell-narrow-forced-colours")
    assert violations(bell.page) == []
    context.close()


def states(bell: Bell, context: BrowserContext, site: HostSite, person: str) -> None:
    """The bell without notifications, with a few that are read at once, and without a network."""
    bell.open()
    expect(bell.panel.locator(".first")).to_be_visible()
    take_picture(bell.page, "bell-empty")
    assert violations(bell.page) == []
    site.notify(person, "One")
    site.notify(person, "Two")
    expect(bell.items).to_have_count(2)
    bell.panel.get_by_role("button", name="Mark all as read").click()
    expect(bell.panel.locator(".toast")).to_contain_text("2 marked as read")
    take_picture(bell.page, "bell-undo")
    assert violations(bell.page) == []
    context.set_offline(True)
    expect(bell.panel.locator(".banner")).to_be_visible()
    take_picture(bell.page, "bell-offline")
    assert violations(bell.page) == []
    context.set_offline(False)


def test_each_state_is_designed(site: HostSite, browser: Browser) -> None:
    context = browser.new_context(
        viewport={"width": DESKTOP[0], "height": DESKTOP[1]}, reduced_motion="reduce"
    )
    person = site.person()
    site.sign_in(context, person)
    states(open_bell(site, context), context, site, person)
    context.clear_cookies()
    context.route("**/api/notifications/?*", lambda route: route.abort())
    site.sign_in(context, person)
    failing = open_bell(site, context)
    failing.open()
    expect(failing.panel.get_by_role("button", name="Try again")).to_be_visible()
    take_picture(failing.page, "bell-failed")
    assert violations(failing.page) == []
    context.clear_cookies()
    out = open_bell(site, context)
    out.open()
    expect(out.panel).to_contain_text("You are signed out")
    take_picture(out.page, "bell-signed-out")
    assert violations(out.page) == []
    context.close()


def test_a_hosts_own_names_reach_the_bells_looks(site: HostSite, context: BrowserContext) -> None:
    site.sign_in(context, site.person())
    bell = open_bell(site, context)
    bell.open()
    bell.page.evaluate("""() => {
        const sheet = new CSSStyleSheet();
        sheet.replaceSync(
          ':root { --accent: rgb(1, 2, 3) } tocsin-bell { --tocsin-accent: var(--accent) }'
        );
        document.adoptedStyleSheets = [sheet];
    }""")
    chosen = "(each) => getComputedStyle(each).getPropertyValue('--accent')"
    assert bell.panel.evaluate(chosen) == "rgb(1, 2, 3)"
