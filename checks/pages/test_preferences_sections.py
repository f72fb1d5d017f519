"""/settings/ and <tocsin-preferences>: digest, quiet hours, topics and devices."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from host_site import *  # noqa: F403 - fixtures
from host_site import HostSite, first_held
from playwright.sync_api import Browser, Route, expect
from preferences_page import *  # noqa: F403 - fixtures
from preferences_page import Settings, fill

from tocsin.testing.web_push import PushService


def test_the_digest_shows_when_the_next_one_comes(site: HostSite, browser: Browser) -> None:
    who = site.person()
    context = browser.new_context(timezone_id="America/New_York", locale="en-GB")
    site.sign_in(context, who)
    settings = Settings(site, context.new_page(), who)
    settings.open()
    settings.page.get_by_label("Weekly").check()
    digest = settings.page.locator("#digest")
    expect(digest.get_by_label("Time zone")).to_have_value("America/New_York")
    digest.get_by_role("combobox", name="Day").select_option(label="Tuesday")
    digest.get_by_label("Time", exact=True).fill("06:30")
    expect(settings.page.locator(".next")).to_have_text(
        re.compile(r"^The next one: Tuesday.* 06:30$")
    )

    def saved() -> Any:
        found = site.request(who, "GET", "digest-preferences/")
        return found if found["send_at"] == "06:30" else None

    expect(settings.notice()).to_contain_text("06:30")
    found = saved()
    at = datetime.fromisoformat(found["next_at"]).astimezone(ZoneInfo("America/New_York"))
    assert (f"{at:%A %H:%M}", found["frequency"]) == ("Tuesday 06:30", "weekly")

    settings.page.get_by_text("Includes: Everything").click()
    settings.page.locator("#digest").get_by_label("Billing").uncheck()
    expect(settings.page.locator("#digest")).not_to_contain_text("Payment due")
    assert "billing" not in until_changed(settings, "categories", found["categories"])
    settings.page.get_by_role("button", name="Undo").click()
    expect(settings.page.get_by_label("Everything, also")).to_be_checked()
    context.close()


def until_changed(settings: Settings, name: str, before: object) -> Any:
    expect(settings.page.locator(".frame")).not_to_have_attribute("data-saving", "")
    found = settings.request("GET", "digest-preferences/")[name]
    assert found != before
    return found


def test_a_digest_of_nothing_is_explained(settings: Settings) -> None:
    body: dict[str, object] = {"frequency": "daily", "categories": ["forum"]}
    settings.request("PATCH", "digest-preferences/", body)
    settings.open()
    settings.page.get_by_text("Includes: Forum").click()
    settings.page.locator("#digest").get_by_label("Forum").uncheck()
    expect(settings.page.locator(".next")).to_have_text(
        "No category is chosen, so no summary is sent."
    )


def test_quiet_hours_are_kept_and_ended(settings: Settings) -> None:
    settings.open()
    settings.page.get_by_label("Use quiet hours").click()
    expect(
        settings.page.get_by_text("Urgent notifications still arrive: Payment due")
    ).to_be_visible()
    expect(settings.notice()).to_have_text("Quiet hours are from 22:00 to 07:00.")
    settings.page.get_by_label("To", exact=True).fill("22:00")
    expect(settings.page.locator("#quiet .failure")).to_contain_text("can’t be the same")
    settings.page.get_by_label("To", exact=True).fill("06:15")
    expect(settings.notice()).to_have_text("Quiet hours are from 22:00 to 06:15.")
    assert settings.request("GET", "quiet-hours/")["ends"] == "06:15"
    settings.page.get_by_label("Use quiet hours").click()
    expect(settings.notice()).to_have_text("There are no quiet hours.")
    assert settings.request("GET", "quiet-hours/")["starts"] is None


def test_a_topic_is_muted_and_unfollowed_and_followed_again(settings: Settings) -> None:
    fill(settings)
    settings.open()
    name = "New reply in “Spring Formal”, part 7"
    level = settings.page.get_by_label(f"Notifications about {name}")
    level.select_option("muted")
    expect(settings.notice()).to_contain_text("is muted")
    assert levels(settings)["forum.thread:7"] == "muted"
    settings.page.get_by_role("button", name="Undo").click()
    expect(level).to_have_value("all")

    settings.page.get_by_role("button", name=f"Unfollow {name}").click()
    expect(level).to_have_count(0)
    expect(settings.page.locator("#topics select:focus")).to_have_count(1)
    assert "forum.thread:7" not in levels(settings)
    settings.page.get_by_role("button", name="Undo").click()
    expect(level).to_have_value("all")
    assert levels(settings)["forum.thread:7"] == "all"


def test_changes_of_a_topic_are_saved_in_their_order(settings: Settings) -> None:
    fill(settings)
    settings.open()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    settings.page.route("**/api/subscriptions/", hold)
    name = "New reply in “Spring Formal”, part 7"
    level = settings.page.get_by_label(f"Notifications about {name}")
    level.select_option("mentions")
    settings.page.get_by_role("button", name=f"Unfollow {name}").click()
    first_held(settings.page, held).continue_()
    expect(level).to_have_count(0)
    expect(settings.notice()).to_contain_text(name)
    expect(settings.page.locator(".frame")).not_to_have_attribute("data-saving", "")
    assert "forum.thread:7" not in levels(settings)


def test_a_browser_is_a_device_and_a_channel_where_it_is_subscribed(settings: Settings) -> None:
    settings.open()
    expect(settings.page.get_by_role("columnheader", name="Browser")).to_have_count(0)
    subscription = PushService().subscribe().json
    subscription["endpoint"] = "http://127.0.0.1:9/push/abcdef"
    body = {"platform": "web", "subscription": subscription}
    settings.request("POST", "push-tokens/", body)
    settings.page.reload()
    expect(settings.page.locator("#devices").get_by_text("Browser, ends in abcdef")).to_be_visible()
    expect(settings.page.get_by_role("columnheader", name="Browser")).to_have_count(1)


def levels(settings: Settings) -> dict[str, str]:
    found = settings.request("GET", "subscriptions/")["results"]
    return {each["topic"]: each["level"] for each in found}


def test_more_topics_than_a_page_are_all_there(settings: Settings) -> None:
    for number in range(23):
        settings.request("POST", "subscriptions/", {"topic": f"forum.thread:{number}"})
    settings.open()
    expect(settings.page.locator("#topics li")).to_have_count(20)
    settings.page.get_by_role("button", name="Show more").click()
    expect(settings.page.locator("#topics li")).to_have_count(23)
    expect(settings.page.get_by_role("button", name="Show more")).to_be_hidden()


def test_a_device_is_removed_once_that_is_meant(settings: Settings) -> None:
    fill(settings)
    settings.open()
    remove = settings.page.get_by_role("button", name="Remove Ada's iPhone")
    remove.click()
    expect(
        settings.page.get_by_text("Remove Ada's iPhone? It receives no notifications")
    ).to_be_visible()
    settings.page.keyboard.press("Escape")
    expect(remove).to_be_focused()
    remove.click()
    settings.page.get_by_role("group", name="Remove Ada's").get_by_role(
        "button", name="Remove"
    ).click()
    expect(settings.page.get_by_text("Ada's iPhone was removed.")).to_be_visible()
    expect(settings.page.locator("#devices li")).to_have_count(1)
    expect(settings.page.locator("#devices button:focus")).to_have_count(1)
    (left,) = settings.request("GET", "push-tokens/")["results"]
    assert left["label"] is None
