"""The buttons of notifications, undo, and what is shown where something can't be."""

from __future__ import annotations

from typing import Any

import psycopg
from bell_page import Bell, open_bell
from host_site import *  # noqa: F403 - fixtures
from host_site import HostSite, first_held, until
from playwright.sync_api import BrowserContext, Route, expect

BUTTONS: list[dict[str, Any]] = [
    {"key": "accept", "label": "Accept", "style": "primary"},
    {"key": "decline", "label": "Decline", "style": "danger"},
]


def invite(site: HostSite, person: str, **named: Any) -> int:
    return site.notify(
        person, "You are invited", event_type="event.invited", actions=BUTTONS, **named
    )


def press(bell: Bell, label: str) -> None:
    bell.panel.get_by_role("button", name=f"{label}: You are invited").click()


def test_a_button_shows_that_it_works_and_then_what_was_chosen(
    site: HostSite, context: BrowserContext
) -> None:
    person = site.person()
    id_ = invite(site, person)
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.open()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    context.route("**/actions/*/", hold)
    press(bell, "Accept")
    accept = bell.panel.get_by_role("button", name="Accept: You are invited")
    expect(accept).to_have_attribute("aria-busy", "true")
    assert accept.evaluate("(each) => getComputedStyle(each, '::before').animationName") == "turn"
    decline = bell.panel.get_by_role("button", name="Decline: You are invited")
    decline.click(force=True)  # which does nothing now
    first_held(bell.page, held).continue_()
    expect(bell.panel.get_by_text("You chose: Accept")).to_be_visible()
    assert len(held) == 1
    expect(accept).to_be_hidden()
    bell.expect_focus("You are invited")  # the row, since the button is gone
    bell.expect_count(0)
    assert site.request(person, "GET", f"notifications/{id_}/")["acted"]["key"] == "accept"
    assert bell.event("tocsin:action")["key"] == "accept"


def test_what_was_chosen_on_another_device_is_shown(
    site: HostSite, context: BrowserContext
) -> None:
    person = site.person()
    id_ = invite(site, person)
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.open()
    expect(bell.items).to_have_count(1)
    context.route("**/actions/accept/", lambda route: other(site, person, id_, route))
    press(bell, "Accept")
    expect(bell.panel.get_by_text("You chose: Decline")).to_be_visible()
    second = invite(site, person)
    expect(bell.items).to_have_count(2)
    site.request(person, "POST", f"notifications/{second}/actions/accept/")
    expect(bell.panel.get_by_text("You chose: Accept")).to_be_visible()


def other(site: HostSite, person: str, id_: int, route: Route) -> None:
    """The other device comes first."""
    site.request(person, "POST", f"notifications/{id_}/actions/decline/")
    route.continue_()


def test_a_button_that_counts_no_more_shows_why(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    id_ = invite(site, person)
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.open()
    expect(bell.items).to_have_count(1)
    with psycopg.connect(site.dsn, autocommit=True) as connection:
        connection.execute(
            "update tocsin.event set expires_at = now() from tocsin.notification n"
            " where n.event_id = event.event_id and n.notification_id = %s",
            (id_,),
        )
    press(bell, "Accept")
    expect(bell.panel.get_by_text("The time for this is over")).to_be_visible()
    expect(bell.panel.get_by_role("button", name="Accept: You are invited")).to_be_hidden()


def test_a_button_with_a_url_leads_there(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    site.notify(
        person, "Vote", actions=[{"key": "vote", "label": "Vote now", "url": "/elections/3"}]
    )
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.open()
    bell.panel.get_by_role("button", name="Vote now: Vote").click()
    expect(bell.page).to_have_url(f"{site.front.origin}/elections/3")


def test_read_and_unread_have_an_undo(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    site.notify(person, "One")
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.open()
    bell.item("One").hover()
    bell.panel.get_by_role("button", name="Mark as read: One").click()
    bell.expect_count(0)
    expect(bell.panel.locator(".toast")).to_contain_text("1 marked as read")
    bell.panel.get_by_role("button", name="Undo").click()
    bell.expect_count(1)
    expect(bell.panel.locator(".toast")).to_be_hidden()
    bell.press("ArrowDown", "ArrowRight", "Enter")
    bell.expect_count(0)
    bell.press("Control+z")
    bell.expect_count(1)
    until(
        lambda: site.request(person, "GET", "notifications/unread-count/")["count"] == 1,
        lambda: "it stays read",
    )


def test_long_titles_have_two_lines_and_each_text_its_own_direction(
    site: HostSite, context: BrowserContext
) -> None:
    person = site.person()
    site.notify(person, "A long title that goes on and on " * 5, body="مرحبا بك")
    site.sign_in(context, person)
    bell = open_bell(site, context, lang="ar", direction="rtl")
    bell.open()
    title = bell.items.locator(".title")
    line = float(title.evaluate("(each) => parseFloat(getComputedStyle(each).lineHeight)"))
    box = title.bounding_box()
    assert box is not None
    assert round(box["height"] / line) == 2
    assert title.evaluate("(each) => getComputedStyle(each).direction") == "ltr"
    assert (
        bell.items.locator(".body").evaluate("(each) => getComputedStyle(each).direction") == "rtl"
    )


def test_a_large_count_is_inside_the_button(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    for number in range(100):
        site.notify(person, f"Reply {number}")
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.expect_count(100)
    outer, inner = bell.button.bounding_box(), bell.badge.bounding_box()
    assert outer is not None
    assert inner is not None
    assert outer["x"] <= inner["x"]
    assert inner["x"] + inner["width"] <= outer["x"] + outer["width"]
    assert outer["y"] <= inner["y"]


def test_categories_are_in_the_bells_own_language(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    site.notify(person, "Eine Wahl", event_type="election.opened")
    site.sign_in(context, person)
    bell = open_bell(site, context, lang="de")
    bell.open()
    expect(bell.panel.get_by_label("Kategorie")).to_contain_text("Wahlen")
    expect(bell.items).to_contain_text("Wahlen")
    bell.page.evaluate("bell.locale = 'ar'")
    expect(bell.panel.locator("select")).to_contain_text("المنتدى")


def test_what_can_not_be_loaded_is_one_message(site: HostSite, context: BrowserContext) -> None:
    site.sign_in(context, site.person())
    bell = open_bell(site, context)
    bell.expect_count(0)
    context.set_offline(True)
    bell.open()
    expect(bell.panel.get_by_role("alert")).to_have_text(
        "Your notifications can’t be loaded right now."
    )
    expect(bell.panel.locator(".banner")).to_be_hidden()
    context.set_offline(False)
    expect(bell.panel.get_by_text("Nothing here yet")).to_be_visible()


def test_one_signs_in_again_from_the_panel(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    site.notify(person, "Here")
    bell = open_bell(site, context)
    bell.open()
    again = bell.panel.get_by_role("button", name="Sign in again")
    expect(again).to_be_visible()
    site.sign_in(context, person)
    again.click()
    bell.expect_count(1)
    expect(bell.items).to_have_count(1)
    bell.event("tocsin:signed-out")
    context.clear_cookies()
    linked = open_bell(site, context, attributes='sign-in="/login?next=/"')
    linked.open()
    expect(linked.panel.get_by_role("link", name="Sign in again")).to_have_attribute(
        "href", f"{site.front.origin}/login?next=/"
    )
