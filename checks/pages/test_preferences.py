"""/settings/ and <tocsin-preferences>: a person's choices are saved at once, and can be undone."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from host_site import *  # noqa: F403 - fixtures
from host_site import PHONE, HostPage, HostSite, take_picture, violations
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, expect

from tocsin.client import notify_topic

CHANNELS = {"in_app": "Inbox", "email": "Email", "push": "Push"}
XSS = (
    "<script>document.title='hacked'</script>",
    "<img src=x onerror=\"document.title='hacked'\">",
    "\"><svg onload=document.title='hacked'>",
    "javascript:document.title='hacked'",
    "</textarea></style></script><script>document.title='hacked'</script>",
    "{{7*7}}${document.title='hacked'}",
)


class Settings:
    """The page as one person sees it."""

    def __init__(self, site: HostSite, page: Page, who: str) -> None:
        self.site = site
        self.page = page
        self.who = who
        self.blocked: list[str] = []
        page.on("console", lambda said: self._heard(said.text))
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

    def _heard(self, text: str) -> None:
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
    """A person with all kinds of data."""
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


def test_a_category_is_turned_off_and_its_types_follow(settings: Settings) -> None:
    settings.open()
    settings.unfold("Forum")
    expect(settings.cell("Email", "New reply")).to_contain_text("Default")

    settings.switch("Email", "Forum").click()  # two of three are on: turns all on
    settings.switch("Email", "Forum").click()

    expect(settings.switch("Email", "New reply")).not_to_be_checked()
    expect(settings.cell("Email", "New reply")).to_contain_text("As Forum")
    expect(settings.notice()).to_have_text("Email is off for Forum.")
    assert settings.overrides() == {"forum.*": {"email": False}}

    settings.page.reload()
    settings.unfold("Forum")
    expect(settings.switch("Email", "Forum")).not_to_be_checked()
    expect(settings.cell("Email", "New reply")).to_contain_text("As Forum")


def test_a_choice_is_stronger_than_what_is_above_it_and_can_be_taken_back(
    settings: Settings,
) -> None:
    settings.open()
    settings.unfold("Forum")
    settings.switch("Push", "Everything").click()
    settings.switch("Push", "Everything").click()
    expect(settings.cell("Push", "Forum")).to_contain_text("As everything")

    settings.switch("Push", "New reply").click()
    expect(settings.cell("Push", "New reply")).to_contain_text("Your choice")
    expect(settings.cell("Push", "Forum")).to_contain_text("1 of 3")

    back = settings.page.get_by_role("button", name="Push, New reply")
    back.click()
    expect(settings.switch("Push", "New reply")).not_to_be_checked()
    expect(settings.switch("Push", "New reply")).to_be_focused()
    expect(settings.cell("Push", "New reply")).to_contain_text("As everything")
    expect(settings.notice()).to_contain_text("follows what is chosen above again")
    assert settings.overrides() == {"*": {"push": False}}


def test_the_pages_rules_are_the_services(settings: Settings) -> None:
    catalogue = settings.request("GET", "event-types/")["results"]
    types = [each["event_type"] for category in catalogue for each in category["event_types"]]
    scopes = ["*", *(f"{category['category']}.*" for category in catalogue), *types]
    draw = random.Random(11)
    overrides: dict[str, dict[str, bool]] = {}
    for scope in draw.sample(scopes, 20):
        overrides.setdefault(scope, {})[draw.choice(list(CHANNELS))] = draw.random() < 0.5
    overrides.get("compliance.overdue", {}).pop("email", None)
    found = settings.request("PATCH", "notification-preferences/", {"overrides": overrides})

    settings.open()
    settings.page.get_by_role("button", name="Show every kind").click()

    for category in catalogue:
        sources = {
            "default": "Default",
            "*": "As everything",
            f"{category['category']}.*": f"As {category['label']}",
            "type": "Your choice",
            "mandatory": "Always on",
        }
        for each in category["event_types"]:
            for channel, name in CHANNELS.items():
                cell = settings.cell(name, each["label"])
                on = found["event_types"][each["event_type"]][channel]
                source = found["sources"][each["event_type"]][channel]
                shown = (cell.get_by_role("checkbox").is_checked(), cell.inner_text())
                assert shown[0] == on, each
                assert sources[source] in shown[1], each


def test_what_is_mandatory_is_explained(settings: Settings) -> None:
    settings.open()
    settings.unfold("Compliance")
    locked = settings.switch("Email", "Requirement overdue")
    why = "Email can’t be turned off for “Requirement overdue”"
    expect(locked).to_have_accessible_description(re.compile(why))
    expect(settings.page.get_by_text(why)).to_be_visible()
    locked.click(force=True)  # it is not enabled, and shows the reason
    expect(locked).to_be_checked()
    expect(settings.notice()).to_contain_text(why)

    settings.switch("Email", "Compliance").click()
    expect(settings.cell("Email", "Compliance")).to_contain_text("1 of 2")
    expect(settings.notice()).to_contain_text("but for what is always on")
    expect(locked).to_be_checked()


def test_a_change_can_be_undone(settings: Settings) -> None:
    settings.request(
        "PATCH", "notification-preferences/", {"overrides": {"billing.*": {"push": True}}}
    )
    settings.open()
    settings.switch("Push", "Billing").click()
    expect(settings.notice()).to_have_text("Push is off for Billing.")
    settings.page.get_by_role("button", name="Undo").click()
    expect(settings.switch("Push", "Billing")).to_be_checked()
    expect(settings.switch("Push", "Billing")).to_be_focused()
    expect(settings.notice()).to_have_text("Push is on for Billing.")
    assert settings.overrides() == {"billing.*": {"push": True}}


def test_what_can_not_be_saved_is_as_it_was_with_an_error_beside_it(settings: Settings) -> None:
    settings.open()
    settings.page.route("**/api/notification-preferences/", refuse)
    settings.switch("Inbox", "Bulletins").click()
    row = settings.page.get_by_role("row").filter(has=settings.switch("Inbox", "Bulletins"))
    why = "The service can’t save this just now. Try again in a moment."
    expect(row).to_contain_text(why)
    expect(settings.page.get_by_role("status").filter(has_text=why)).to_have_count(1)
    expect(settings.switch("Inbox", "Bulletins")).to_be_checked()
    expect(settings.switch("Inbox", "Bulletins")).to_be_focused()
    settings.page.unroute("**/api/notification-preferences/")
    settings.page.context.set_offline(True)
    settings.switch("Inbox", "Bulletins").click()
    expect(row).to_contain_text("no connection")
    settings.page.context.set_offline(False)
    settings.switch("Inbox", "Bulletins").click()
    expect(settings.notice()).to_have_text("Inbox is off for Bulletins.")
    expect(row.locator(".failure")).to_be_hidden()


def refuse(route: Route) -> None:
    if route.request.method == "GET":
        route.continue_()
    else:
        route.fulfill(status=503, json={"title": "Service Unavailable", "status": 503})


def test_a_slow_one_shows_that_it_is_being_saved(settings: Settings) -> None:
    settings.open()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    settings.page.route("**/api/notification-preferences/", hold)
    settings.switch("Inbox", "Messages").click()
    expect(settings.switch("Inbox", "Messages")).not_to_be_checked()
    expect(settings.page.get_by_text("Saving …")).to_be_visible()
    expect(settings.notice()).to_be_empty()
    held[0].continue_()
    expect(settings.notice()).to_have_text("Inbox is off for Messages.")
    expect(settings.page.get_by_text("Saving …")).to_be_hidden()


def test_what_has_the_focus_is_not_below_the_line_of_the_last_change(settings: Settings) -> None:
    settings.page.set_viewport_size({"width": 900, "height": 400})
    settings.open()
    settings.switch("Inbox", "Everything").press("Space")
    expect(settings.notice()).not_to_be_empty()
    line = settings.page.locator(".notice .line").bounding_box()
    assert line is not None
    for _ in range(25):
        settings.page.keyboard.press("Tab")
        focused = settings.page.locator("tocsin-preferences :focus").bounding_box()
        assert focused is not None
        assert focused["y"] + focused["height"] <= line["y"]


def test_quick_changes_are_all_saved_in_their_order(settings: Settings) -> None:
    settings.open()
    for _ in range(3):
        settings.switch("Email", "Elections").click()
        settings.switch("Push", "Approvals").click()
    expect(settings.page.locator(".frame")).not_to_have_attribute("data-saving", "")
    assert settings.overrides() == {"election.*": {"email": False}, "approval.*": {"push": False}}
    expect(settings.switch("Email", "Elections")).not_to_be_checked()


def test_the_digest_shows_when_the_next_one_comes(site: HostSite, browser: Browser) -> None:
    who = site.person()
    context = browser.new_context(timezone_id="America/New_York", locale="en-GB")
    site.sign_in(context, who)
    settings = Settings(site, context.new_page(), who)
    settings.open()
    settings.page.get_by_label("Once a week").check()
    digest = settings.page.locator("#digest")
    expect(digest.get_by_label("Time zone")).to_have_value("America/New_York")
    digest.get_by_role("combobox", name="Day").select_option(label="Tuesday")
    digest.get_by_label("Time", exact=True).fill("06:30")
    expect(settings.page.locator(".next")).to_have_text(re.compile(r"^Next one: Tuesday.* 06:30$"))

    def saved() -> Any:
        found = site.request(who, "GET", "digest-preferences/")
        return found if found["send_at"] == "06:30" else None

    expect(settings.notice()).to_contain_text("06:30")
    found = saved()
    at = datetime.fromisoformat(found["next_at"]).astimezone(ZoneInfo("America/New_York"))
    assert (f"{at:%A %H:%M}", found["frequency"]) == ("Tuesday 06:30", "weekly")

    settings.page.locator("#digest").get_by_label("Billing").uncheck()
    expect(settings.page.locator("#digest")).not_to_contain_text("Payment due")
    assert "billing" not in until_changed(settings, "categories", found["categories"])
    settings.page.get_by_role("button", name="Undo").click()
    expect(settings.page.get_by_label("Everything, later")).to_be_checked()
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
    settings.page.locator("#digest").get_by_label("Forum").uncheck()
    expect(settings.page.locator(".next")).to_have_text(
        "No category is chosen, so no digest is sent."
    )


def test_quiet_hours_are_kept_and_ended(settings: Settings) -> None:
    settings.open()
    settings.page.get_by_label("Keep quiet hours").click()
    expect(settings.page.get_by_text("Urgent ones come through: Payment due")).to_be_visible()
    expect(settings.notice()).to_have_text("Quiet hours are from 22:00 to 07:00.")
    settings.page.get_by_label("To", exact=True).fill("22:00")
    expect(settings.page.locator("#quiet .failure")).to_contain_text("at another time")
    settings.page.get_by_label("To", exact=True).fill("06:15")
    expect(settings.notice()).to_have_text("Quiet hours are from 22:00 to 06:15.")
    assert settings.request("GET", "quiet-hours/")["ends"] == "06:15"
    settings.page.get_by_label("Keep quiet hours").click()
    expect(settings.notice()).to_have_text("There are no quiet hours.")
    assert settings.request("GET", "quiet-hours/")["starts"] is None


def test_a_topic_is_muted_and_unfollowed_and_followed_again(settings: Settings) -> None:
    fill(settings)
    settings.open()
    name = "New reply in “Spring Formal”, part 7"
    level = settings.page.get_by_label(f"How much you hear of {name}")
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
    expect(settings.page.get_by_text("Remove Ada's iPhone? It gets no more pushes")).to_be_visible()
    settings.page.keyboard.press("Escape")
    expect(remove).to_be_focused()
    remove.click()
    settings.page.get_by_role("group", name="Remove Ada's").get_by_role(
        "button", name="Remove"
    ).click()
    expect(settings.page.get_by_text("Ada's iPhone is removed.")).to_be_visible()
    expect(settings.page.locator("#devices li")).to_have_count(1)
    expect(settings.page.locator("#devices button:focus")).to_have_count(1)
    (left,) = settings.request("GET", "push-tokens/")["results"]
    assert left["label"] is None


def test_it_is_used_by_keyboard_alone(settings: Settings) -> None:
    settings.open()
    press = settings.page.keyboard.press
    press("Tab")
    expect(settings.switch("Inbox", "Everything")).to_be_focused()
    for _ in range(3):
        press("Tab")
    press("Enter")  # Bulletins, which unfolds
    expect(settings.page.get_by_role("button", name="Bulletins")).to_have_attribute(
        "aria-expanded", "true"
    )
    press("Tab")
    press("Space")
    expect(settings.switch("Inbox", "Bulletins")).to_be_focused()
    expect(settings.switch("Inbox", "Bulletins")).not_to_be_checked()
    expect(settings.notice()).to_have_text("Inbox is off for Bulletins.")
    press("Tab")
    press("Enter")  # the undo button beside it
    expect(settings.switch("Inbox", "Bulletins")).to_be_checked()
    expect(settings.switch("Inbox", "Bulletins")).to_be_focused()
    settings.page.get_by_label("Off", exact=True).focus()
    press("ArrowRight")
    expect(settings.page.get_by_label("Every day")).to_be_checked()
    expect(settings.page.get_by_label("Every day")).to_be_focused()
    assert settings.request("GET", "digest-preferences/")["frequency"] == "daily"


def test_what_another_tab_changed_is_there_when_this_one_is_looked_at(settings: Settings) -> None:
    settings.open()
    settings.request(
        "PATCH", "notification-preferences/", {"overrides": {"billing.*": {"email": False}}}
    )
    settings.request("POST", "subscriptions/", {"topic": "forum.thread:1"})
    settings.request("PATCH", "digest-preferences/", {"frequency": "daily"})

    def looked() -> bool:
        settings.page.evaluate("dispatchEvent(new Event('focus'))")
        settings.page.wait_for_timeout(100)
        return not settings.switch("Email", "Billing").is_checked()

    assert any(looked() for _ in range(100))
    expect(settings.page.locator("#topics li")).to_have_count(1)
    expect(settings.page.locator(".next")).to_contain_text("Next one:")


def test_nobody_changes_anothers_settings(
    settings: Settings, site: HostSite, context: BrowserContext
) -> None:
    settings.open()
    other = site.person()
    site.request(other, "POST", "subscriptions/", {"topic": "theirs:1"})
    site.sign_in(context, other)

    def looked() -> bool:
        settings.page.evaluate("dispatchEvent(new Event('focus'))")
        settings.page.wait_for_timeout(100)
        return settings.page.locator("#topics li").count() == 1

    assert any(looked() for _ in range(100))
    context.clear_cookies()
    settings.page.reload()
    expect(settings.page.get_by_text("You are signed out")).to_be_visible()
    expect(settings.page.get_by_text("Sign in to the app")).to_be_visible()
    take_picture(settings.page, "settings-signed-out")
    site.sign_in(context, other)
    settings.page.get_by_role("button", name="Try again").click()
    expect(settings.page.locator("#topics li")).to_have_count(1)


def test_no_text_of_others_comes_to_life(settings: Settings) -> None:
    with psycopg.connect(settings.site.dsn, autocommit=True) as connection:
        for number, text in enumerate(XSS):
            topic = f"forum.thread:{number}"
            body = {"token": f"{number}" * 20, "platform": "android", "label": text}
            settings.request("POST", "push-tokens/", body)
            settings.request("POST", "subscriptions/", {"topic": topic})
            notify_topic(connection, topic=topic, event_type="forum.new_reply", title=text)
    settings.open()
    for text in XSS:
        expect(settings.page.locator("#topics").get_by_text(text, exact=True)).to_be_visible()
        expect(settings.page.locator("#devices").get_by_text(text, exact=True)).to_be_visible()
        settings.page.get_by_role("button", name=f"Remove {text}", exact=True).click()
    assert settings.page.locator("script").count() == 1
    assert settings.page.title() == "Notifications"


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_has_nothing_against_it(settings: Settings, colours: str) -> None:
    fill(settings)
    settings.open(colours)
    settings.page.get_by_role("button", name="Show every kind").click()
    settings.switch("Inbox", "Bulletins").click()
    settings.page.get_by_role("button", name="Remove Ada's iPhone").click()
    expect(settings.notice()).to_have_text("Inbox is off for Bulletins.")
    settings.page.wait_for_timeout(300)  # until all colour transitions have ended
    assert violations(settings.page) == []
    settings.page.get_by_role("button", name="Dismiss").click()
    settings.page.get_by_role("button", name="Keep it").click()
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
    title = "Was Sie erreicht" if locale.startswith("de") else "What reaches you"
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
