"""/settings/ and <tocsin-preferences>: accessible, on phones, in any language, and on a host's own page."""

from __future__ import annotations

import re

import pytest
from host_site import *  # noqa: F403 - fixtures
from host_site import PHONE, HostPage, HostSite, take_picture, violations
from playwright.sync_api import Browser, BrowserContext, expect
from preferences_page import *  # noqa: F403 - fixtures
from preferences_page import Settings, fill


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_has_nothing_against_it(settings: Settings, colours: str) -> None:
    fill(settings)
    settings.open(colours)
    settings.page.get_by_role("button", name="Show every kind").click()
    settings.switch("Inbox", "Bulletins").click()
    settings.page.get_by_role("button", name="Remove Ada's iPhone").click()
    expect(settings.notice()).to_have_text("Inbox is off for Bulletins.")
    assert violations(settings.page) == []
    settings.page.get_by_role("button", name="Dismiss").click()
    settings.page.get_by_role("button", name="Cancel").click()
    settings.page.set_viewport_size({"width": 1280, "height": 2900})
    take_picture(settings.page, f"settings-desktop-{colours}")


@pytest.mark.parametrize("locale", ["en-GB", "de-DE", "ar-EG"])
def test_a_phone_shows_all_of_it_without_scrolling_sideways(
    site: HostSite, browser: Browser, locale: str
) -> None:
    who = site.person()
    context = browser.new_context(locale=locale, has_touch=True, color_scheme="dark")
    site.sign_in(context, who)
    settings = Settings(site, context.new_page(), who)
    fill(settings)
    for width in (320, PHONE[0]):
        settings.page.set_viewport_size({"width": width, "height": PHONE[1]})
        settings.open("dark")
        for button in settings.page.locator(".disclosure").all():
            button.tap()
        settings.page.locator(".type .switch").first.tap()
        expect(settings.notice()).not_to_be_empty()
        wide = settings.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0
    assert violations(settings.page) == []
    settings.page.set_viewport_size({"width": PHONE[0], "height": 5200})
    take_picture(settings.page, f"settings-phone-{locale[:2]}")
    assert settings.blocked == []
    context.close()


@pytest.mark.parametrize("locale", ["de_AT", "de-DE-u-co-phonebk-x-host", "no locale at all"])
def test_any_locale_of_a_host_is_taken_as_well_as_it_goes(
    site: HostSite, context: BrowserContext, locale: str
) -> None:
    who = site.person()
    html = HOST.format(name="host-locale", base="/notify").replace(
        "theme", f'locale="{locale}" theme'
    )
    script = SCRIPT.format(token=site.token(who))
    page = context.new_page()
    page.goto(site.front.origin + site.front.show("host-locale", HostPage(html, script)))
    title = "Was Sie erhalten" if locale.startswith("de") else "What you receive"
    expect(page.get_by_role("heading", name=title)).to_be_visible()


HOST = """<!doctype html><html lang="de"><title>Host</title><link rel="stylesheet" href="{name}.css">
<script type="module" src="{base}/assets/tocsin-preferences.js"></script>
<script type="module" src="{name}.js"></script>
<main><h1>Host</h1><tocsin-preferences theme="dark"></tocsin-preferences></main>"""
SCRIPT = """const element = document.querySelector('tocsin-preferences');
element.describeTopic = (topic) => ({{label: `Thema ${{topic.split(':')[1]}}`, href: '/landed'}});
element.getToken = () => '{token}';"""


@pytest.mark.parametrize("neighbour", [True, False], ids=["same origin", "another one"])
def test_a_host_has_it_on_its_own_page(
    site: HostSite, context: BrowserContext, neighbour: bool
) -> None:
    origin = site.front.origin if neighbour else site.front.other_origin
    base = "/notify" if neighbour else site.url
    who = site.person()
    site.request(who, "POST", "subscriptions/", {"topic": "forum.thread:42"})
    style = (
        ":root { background: #111; color: #eee } tocsin-preferences { --tocsin-accent: #7dd3fc }"
    )
    html = HOST.format(name="host-settings", base=base)
    script = SCRIPT.format(token=site.token(who))
    page = context.new_page()
    page.goto(origin + site.front.show("host-settings", HostPage(html, script, style)))
    expect(page.get_by_role("link", name="Thema 42")).to_have_attribute(
        "href", re.compile("landed")
    )
    page.get_by_role("checkbox", name="E-Mail, Forum", exact=True).click()
    expect(page.get_by_text("E-Mail ist an für Forum.")).to_be_visible()
    assert site.request(who, "GET", "notification-preferences/")["overrides"] == {
        "forum.*": {"email": True}
    }
    assert violations(page) == []
