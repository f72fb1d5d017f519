"""The bell without a mouse: all parts can be reached, and the focus is never lost."""

from __future__ import annotations

from bell_page import open_bell
from host_site import *  # noqa: F403 - fixtures
from host_site import PHONE, HostSite
from playwright.sync_api import Browser, BrowserContext, expect


def test_all_of_it_by_keys_alone(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    for title in ("Third", "Second", "First"):
        site.notify(person, title)
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.expect_count(3)
    bell.page.locator("nav a").last.focus()
    bell.press("Tab")
    bell.expect_focus("Notifications, 3 unread")
    bell.press("Enter")
    expect(bell.items).to_have_count(3)
    expect(bell.panel.get_by_label("Category")).to_be_visible()
    bell.expect_focus("Notifications")  # the panel's heading
    bell.press("Tab")
    bell.expect_focus("Mark all as read")
    bell.press("Tab")
    bell.expect_focus("Close")
    bell.press("Tab")
    bell.expect_focus("All")
    bell.press("Tab")
    bell.expect_focus("Unread")
    bell.press("Tab")
    bell.expect_focus("Archive")
    bell.press("Tab")
    bell.expect_focus("Category")
    bell.press("Tab")
    bell.expect_focus("Unread: First")
    bell.press("ArrowRight")
    bell.expect_focus("Mark as read: First")
    bell.press("Enter")
    bell.expect_focus("Mark as unread: First")
    bell.expect_count(2)
    bell.press("ArrowRight")
    bell.expect_focus("Archive: First")
    bell.press("ArrowDown")
    bell.expect_focus("Unread: Second")
    bell.press("End")
    bell.expect_focus("Unread: Third")
    bell.press("ArrowUp", "Delete")
    bell.expect_focus("Unread: Third")
    expect(bell.items).to_have_count(2)
    bell.press("Delete")
    bell.expect_focus("First")
    expect(bell.items).to_have_count(1)
    bell.expect_count(0)
    bell.press("Escape")
    bell.expect_focus("Notifications, 0 unread")
    expect(bell.panel).to_be_hidden()


def test_the_list_is_one_tab_stop_that_arrows_move_from_anywhere(
    site: HostSite, context: BrowserContext
) -> None:
    person = site.person()
    for title in ("Third", "Second", "First"):
        site.notify(person, title)
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.expect_count(3)
    bell.button.press("Enter")
    expect(bell.items).to_have_count(3)
    bell.expect_focus("Notifications")
    bell.press("ArrowDown")
    bell.expect_focus("Unread: First")
    bell.press("ArrowDown")
    bell.expect_focus("Unread: Second")
    bell.press("Shift+Tab", "Shift+Tab")
    bell.expect_focus("Archive")  # the filter: one step over the category, none over the list
    bell.press("ArrowUp")
    bell.expect_focus("Unread: Second")  # where the focus was
    bell.press("ArrowRight", "ArrowRight", "Enter")
    bell.expect_focus("Unread: Third")
    expect(bell.items).to_have_count(2)
    stops = bell.panel.locator(".days [tabindex='0']")
    expect(stops).to_have_count(1)


def test_the_heading_has_no_ring(site: HostSite, context: BrowserContext) -> None:
    site.sign_in(context, site.person())
    bell = open_bell(site, context)
    heading = bell.panel.locator("h2")
    ring = "(each) => getComputedStyle(each).outlineStyle"
    bell.open()
    bell.expect_focus("Notifications")
    assert heading.evaluate(ring) == "none"


def test_focus_stays_where_it_was_as_things_arrive(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    site.notify(person, "Here")
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.open()
    bell.item("Here").get_by_role("button", name="Unread: Here").focus()
    site.notify(person, "Another")
    expect(bell.items).to_have_count(2)
    bell.expect_focus("Unread: Here")
    bell.panel.get_by_role("button", name="Mark all as read").focus()
    bell.press("Enter")
    expect(bell.panel.get_by_role("button", name="Undo")).to_be_visible()
    bell.expect_focus("Mark all as read")
    bell.panel.get_by_role("button", name="Undo").focus()
    bell.press("Enter")
    bell.expect_focus("Notifications")


def test_the_last_one_archived_leaves_focus_in_the_panel(
    site: HostSite, context: BrowserContext
) -> None:
    person = site.person()
    site.notify(person, "Only")
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.open()
    bell.item("Only").get_by_role("button", name="Unread: Only").focus()
    bell.press("Delete")
    bell.expect_focus("Notifications")
    expect(bell.panel.get_by_text("Nothing here yet")).to_be_visible()


def test_on_a_phone_the_sheet_keeps_focus_and_gives_it_back(
    site: HostSite, browser: Browser
) -> None:
    context = browser.new_context(
        viewport={"width": PHONE[0], "height": PHONE[1]}, reduced_motion="reduce"
    )
    person = site.person()
    site.notify(person, "One")
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.open()
    expect(bell.items).to_have_count(1)
    assert bell.panel.bounding_box() == {"x": 0, "y": 0, "width": PHONE[0], "height": PHONE[1]}
    assert bell.panel.evaluate("(panel) => panel.matches(':modal')")
    reached = set()
    for _ in range(15):
        bell.press("Tab")
        reached.add(bell.focused())
    assert "Next page" not in reached
    assert "Unread: One" in reached
    bell.press("Escape")
    bell.expect_focus("Notifications, 1 unread")
    expect(bell.panel).to_be_hidden()
    context.close()
