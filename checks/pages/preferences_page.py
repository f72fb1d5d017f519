"""The settings page as a person sees it: `from preferences_page import *`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from host_site import *  # noqa: F403 - fixtures
from host_site import HostSite
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tocsin.client import notify_topic


class Settings:
    """The page as one person sees it."""

    def __init__(self, site: HostSite, page: Page, who: str) -> None:
        self.site = site
        self.page = page
        self.who = who
        self.blocked: list[str] = []
        page.on("console", lambda message: self._note(message.text))
        page.on("pageerror", lambda error: self.blocked.append(str(error)))

    def open(self, colours: str = "light") -> None:
        self.page.emulate_media(color_scheme="dark" if colours == "dark" else "light")
        self.page.goto(f"{self.site.url}/settings/")
        expect(self.page.locator("#channels")).to_be_visible()

    def switch(self, channel: str, what: str) -> Locator:
        return self.page.get_by_role("checkbox", name=f"{channel}, {what}", exact=True)

    def cell(self, channel: str, what: str) -> Locator:
        return self.page.locator("td").filter(has=self.switch(channel, what))

    def unfold(self, category: str) -> None:
        self.page.get_by_role("button", name=category, exact=True).click()

    def notice(self) -> Locator:
        return self.page.locator(".notice .line p")

    def request(self, method: str, path: str, body: object = None) -> Any:
        return self.site.request(self.who, method, path, body)

    def overrides(self) -> Any:
        return self.request("GET", "notification-preferences/")["overrides"]

    def _note(self, text: str) -> None:
        if "Content Security Policy" in text or "TrustedHTML" in text:
            self.blocked.append(text)


@pytest.fixture
def settings(site: HostSite, context: BrowserContext) -> Iterator[Settings]:
    """A new person, signed in by the cookie. Violations of the page's policy fail the test."""
    who = site.person()
    with psycopg.connect(site.dsn, autocommit=True) as connection:
        connection.execute("select tocsin.upsert_recipient(%s, locale => 'en-GB')", (who,))
    site.sign_in(context, who)
    opened = Settings(site, context.new_page(), who)
    yield opened
    assert opened.blocked == []


def fill(settings: Settings) -> None:
    """Stores a person with all kinds of data."""
    with psycopg.connect(settings.site.dsn, autocommit=True) as connection:
        for topic, level in (("forum.thread:7", "all"), ("forum.thread:12", "mentions")):
            settings.request("POST", "subscriptions/", {"topic": topic, "level": level})
            title = f"New reply in “Spring Formal”, part {topic[-1]}"
            notify_topic(connection, topic=topic, event_type="forum.mention", title=title)
    settings.request("POST", "subscriptions/", {"topic": "election:3", "level": "muted"})
    for number, label in enumerate(("Ada's iPhone", None)):
        body = {"token": f"{number}a5c3e1d9f" * 7, "platform": "ios", "label": label}
        settings.request("POST", "push-tokens/", body)
    digest = {"frequency": "weekly", "weekday": "tuesday", "timezone": "Europe/Rome"}
    settings.request("PATCH", "digest-preferences/", digest)
    hours = {"starts": "22:00", "ends": "07:00", "timezone": "Europe/Rome"}
    settings.request("PUT", "quiet-hours/", hours)
    overrides = {"forum.*": {"email": False}, "forum.mention": {"email": True}}
    settings.request("PATCH", "notification-preferences/", {"overrides": overrides})
