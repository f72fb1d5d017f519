"""/settings/ and <tocsin-preferences>: a person's choices are saved at once, and can be undone."""

from __future__ import annotations

import random
import re

import psycopg
from host_site import *  # noqa: F403 - fixtures
from host_site import HostSite, first_held, take_picture, until
from playwright.sync_api import BrowserContext, Route, expect
from preferences_page import *  # noqa: F403 - fixtures
from preferences_page import Settings

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


def test_a_category_is_turned_off_and_its_types_follow(settings: Settings) -> None:
    settings.open()
    settings.unfold("Forum")
    expect(
        settings.cell("Email", "New reply").locator(".source")
    ).to_be_hidden()  # as it was set up

    settings.switch("Email", "Forum").click()  # two of three are on: turns all on
    settings.switch("Email", "Forum").click()

    expect(settings.switch("Email", "New reply")).not_to_be_checked()
    expect(settings.cell("Email", "New reply")).to_contain_text("Same as Forum")
    expect(settings.notice()).to_have_text("Email is off for Forum.")
    assert settings.overrides() == {"forum.*": {"email": False}}

    settings.page.reload()
    settings.unfold("Forum")
    expect(settings.switch("Email", "Forum")).not_to_be_checked()
    expect(settings.cell("Email", "New reply")).to_contain_text("Same as Forum")


def test_a_chat_is_a_column_for_those_who_have_one_and_on_until_they_turn_it_off(
    settings: Settings,
) -> None:
    settings.open()
    expect(settings.page.get_by_role("columnheader", name="Push")).to_be_visible()
    expect(settings.page.get_by_role("columnheader", name="Chat")).to_have_count(0)
    with psycopg.connect(settings.site.dsn, autocommit=True) as connection:
        connection.execute(
            "insert into tocsin.target (channel, name, kind, url, recipient_id)"
            " values ('chat', %s, 'slack', 'https://hooks.example.com/x', %s)",
            (settings.who, settings.who),
        )
    settings.page.reload()
    expect(settings.page.get_by_role("columnheader", name="Chat")).to_be_visible()
    expect(settings.page.get_by_role("columnheader", name="Webhook")).to_have_count(0)
    expect(settings.switch("Chat", "Everything")).to_be_checked()
    settings.unfold("Recognition")
    settings.switch("Chat", "Recognition").click()
    expect(settings.notice()).to_have_text("Chat is off for Recognition.")
    assert settings.overrides() == {"recognition.*": {"chat": False}}


def test_a_choice_is_stronger_than_what_is_above_it_and_can_be_taken_back(
    settings: Settings,
) -> None:
    settings.open()
    settings.unfold("Forum")
    settings.switch("Push", "Everything").click()
    settings.switch("Push", "Everything").click()
    expect(settings.cell("Push", "Forum")).to_contain_text("Same as Everything")

    settings.switch("Push", "New reply").click()
    expect(settings.cell("Push", "New reply")).to_contain_text("Changed")
    expect(settings.cell("Push", "Forum")).to_contain_text("1 of 3")

    back = settings.page.get_by_role("button", name="Push, New reply")
    back.click()
    expect(settings.switch("Push", "New reply")).not_to_be_checked()
    expect(settings.switch("Push", "New reply")).to_be_focused()
    expect(settings.cell("Push", "New reply")).to_contain_text("Same as Everything")
    expect(settings.notice()).to_contain_text("follows the setting above again")
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
            "default": "",
            "*": "Same as Everything",
            f"{category['category']}.*": f"Same as {category['label']}",
            "type": "Changed",
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
    expect(settings.notice()).to_contain_text("except for what is always on")
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
    why = "This can’t be saved right now. Try again in a moment."
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
    first_held(settings.page, held).continue_()
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
    expect(settings.page.get_by_label("Daily")).to_be_checked()
    expect(settings.page.get_by_label("Daily")).to_be_focused()
    until(
        lambda: settings.request("GET", "digest-preferences/")["frequency"] == "daily",
        lambda: "the choice is not saved",
    )


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

    until(looked, lambda: "the page does not show it")
    expect(settings.page.locator("#topics li")).to_have_count(1)
    expect(settings.page.locator(".next")).to_contain_text("The next one:")


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

    until(looked, lambda: "the page shows no topic of the other person")
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


def test_what_a_complaint_turned_off_is_shown_until_the_person_chooses_again(
    settings: Settings,
) -> None:
    with psycopg.connect(settings.site.dsn, autocommit=True) as connection:
        connection.execute(
            "insert into tocsin.preference (recipient_id, scope, channel, enabled, because)"
            " values (%s, 'forum.*', 'email', false, 'complaint')",
            (settings.who,),
        )
    settings.open()
    note = settings.page.get_by_text("You marked an email as spam")
    expect(note).to_be_visible()
    expect(settings.switch("Email", "Forum")).not_to_be_checked()
    settings.switch("Email", "Forum").click()
    expect(note).to_have_count(0)
    expect(settings.notice()).to_contain_text("Email is on for Forum")
    assert settings.request("GET", "notification-preferences/")["complaints"] == []
