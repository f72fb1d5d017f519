"""Groups that open in place, the archive, and what was seen, in <tocsin-bell>."""

from __future__ import annotations

import psycopg
from bell_page import Bell, open_bell
from host_site import *  # noqa: F403 - fixtures
from host_site import HostSite, take_picture, until, violations
from playwright.sync_api import BrowserContext, expect

from tests.support.png import png

THREAD = "forum.thread:7"


def replies(site: HostSite, person: str, *names: str) -> None:
    """Commits a reply of each of these people in one thread."""
    for name in names:
        with psycopg.connect(site.dsn, autocommit=True) as connection:
            connection.execute("select tocsin.upsert_recipient(%s, name => %s)", (name, name))
        site.notify(person, f"{name} replied", initiator=name, subject=THREAD)


def counts(site: HostSite, person: str) -> dict[str, int]:
    found: dict[str, int] = site.request(person, "GET", "notifications/unread-count/")
    return found


def expect_stored(site: HostSite, person: str, unread: int) -> None:
    until(lambda: counts(site, person)["count"] == unread, lambda: f"{counts(site, person)}")


def rows(bell: Bell) -> list[str]:
    """Returns the titles in the list, without those in groups."""
    return bell.panel.locator(".days > section > ul > li > .row .title").all_text_contents()


def test_a_group_opens_in_place(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    replies(site, person, "Ann Ash", "Ben Bay", "Cy Cole")
    site.notify(person, "Something else")
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.open()
    bell.expect_count(4)
    expect(bell.items).to_have_count(2)
    group = bell.item("3 notifications")
    expect(group.locator(".face")).to_have_text("CC")  # that of the newest
    opener = group.get_by_role("button", name="3 notifications")
    expect(opener).to_have_attribute("aria-expanded", "false")
    opener.click()
    expect(opener).to_have_attribute("aria-expanded", "true")
    expect(group.locator(".members .face")).to_have_text(["CC", "BB", "AA"])
    expect(group.locator(".members .title")).to_have_text(
        ["Cy Cole replied", "Ben Bay replied", "Ann Ash replied"]
    )
    take_picture(bell.page, "bell-group")
    assert violations(bell.page) == []
    group.locator(".members .item").nth(1).hover()
    bell.panel.get_by_role("button", name="Mark as read: Ben Bay replied").click()
    bell.expect_count(3)
    bell.panel.get_by_role("button", name="Undo").click()
    bell.expect_count(4)
    opener.press("ArrowDown")
    bell.expect_focus("Unread: Cy Cole replied")
    opener.click()
    expect(group.locator(".members")).to_be_hidden()


def test_a_picture_is_shown_and_initials_where_it_does_not_load(
    site: HostSite, context: BrowserContext
) -> None:
    person = site.person()
    with psycopg.connect(site.dsn, autocommit=True) as connection:
        for name, picture in (("Ada Ash", "/ada.png"), ("Bea Bay", "/gone.png")):
            connection.execute(
                "select tocsin.upsert_recipient(%s, name => %s, avatar_url => %s)",
                (name, name, picture),
            )
            site.notify(person, f"By {name}", initiator=name)
    site.sign_in(context, person)
    context.route("**/ada.png", lambda route: route.fulfill(body=png(8, 8)))
    bell = open_bell(site, context)
    bell.open()
    shown = bell.item("By Ada Ash").locator("img")
    expect(shown).to_have_js_property("naturalWidth", 8)
    expect(bell.item("By Bea Bay").locator(".face")).to_have_text("BB")
    expect(bell.item("By Bea Bay").locator("img")).to_have_count(0)


def test_a_group_grows_in_its_place(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    replies(site, person, "Ann Ash", "Ben Bay")
    site.notify(person, "Something else")
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.open()
    expect(bell.items).to_have_count(2)
    bell.item("2 notifications").get_by_role("button", name="2 notifications").click()
    expect(bell.items).to_have_count(4)
    replies(site, person, "Cy Cole")
    expect(bell.panel.get_by_role("button", name="3 notifications")).to_be_visible()
    expect(bell.items).to_have_count(5)
    expect(bell.items.first).to_contain_text("3 notifications")  # which is the newest now
    bell.expect_count(4)


def test_a_group_is_read_and_archived_with_undo(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    replies(site, person, "Ann Ash", "Ben Bay", "Cy Cole")
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.open()
    toast = bell.panel.locator(".toast")
    group = bell.item("3 notifications")
    group.hover()
    group.get_by_role("button", name="Mark as read").click()
    expect(toast).to_contain_text("3 marked as read")
    bell.expect_count(0)
    bell.panel.get_by_role("button", name="Undo").click()
    bell.expect_count(3)
    expect_stored(site, person, 3)
    group.hover()
    group.get_by_role("button", name="Archive").click()
    expect(bell.items).to_have_count(0)
    expect(toast).to_contain_text("Archived")
    bell.expect_count(0)
    bell.panel.get_by_role("button", name="Undo").click()
    expect(bell.items).to_have_count(1)
    bell.expect_count(3)
    expect_stored(site, person, 3)


def test_a_group_is_put_back_to_unread_with_undo(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    replies(site, person, "Ann Ash", "Ben Bay", "Cy Cole")
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.open()
    group = bell.item("3 notifications")
    for name, unread in (("read", 0), ("unread", 3), ("read", 0)):
        group.hover()
        group.get_by_role("button", name=f"Mark as {name}: Cy Cole and 2 others").click()
        expect_stored(site, person, unread)
        bell.expect_count(unread)
    bell.panel.get_by_role("button", name="Undo").click()
    bell.expect_count(3)
    group.hover()
    group.get_by_role("button", name="Mark as read: Cy Cole and 2 others").click()
    group.get_by_role("button", name="Mark as unread: Cy Cole and 2 others").click()
    bell.panel.get_by_role("button", name="Undo").click()
    expect_stored(site, person, 0)


def test_the_archive_is_a_tab_and_gives_back(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    site.notify(person, "Stays")
    site.notify(person, "Leaves")
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.open()
    bell.item("Leaves").hover()
    bell.panel.get_by_role("button", name="Archive: Leaves").click()
    expect(bell.items).to_have_count(1)
    bell.panel.get_by_role("button", name="Undo").click()
    expect(bell.items).to_have_count(2)
    bell.expect_count(2)
    bell.item("Leaves").hover()
    bell.panel.get_by_role("button", name="Archive: Leaves").click()
    bell.panel.get_by_role("button", name="Archive", exact=True).click()
    expect(bell.items).to_have_count(1)
    take_picture(bell.page, "bell-archive")
    assert violations(bell.page) == []
    bell.item("Leaves").hover()
    bell.panel.get_by_role("button", name="Back to the inbox: Leaves").click()
    expect(bell.panel.get_by_text("Nothing is archived")).to_be_visible()
    bell.expect_count(2)
    bell.panel.get_by_role("button", name="All", exact=True).click()
    expect(bell.items).to_have_count(2)
    expect_stored(site, person, 2)


def test_opening_it_marks_as_seen_and_the_badge_may_show_that(
    site: HostSite, context: BrowserContext
) -> None:
    person = site.person()
    site.notify(person, "One")
    site.notify(person, "Two")
    site.sign_in(context, person)
    unread = open_bell(site, context)
    unseen = open_bell(site, context, attributes='badge="unseen" title-count')
    expect(unseen.badge).to_have_text("2")
    unseen.page.bring_to_front()
    unseen.open()
    expect(unseen.badge).to_be_hidden()
    expect(unseen.page).to_have_title("Chapter")
    unread.expect_count(2)
    until(
        lambda: counts(site, person) == {"count": 2, "unseen": 0},
        lambda: f"{counts(site, person)}",
    )
    unseen.expect_event("tocsin:count", {"count": 2, "unseen": 0})
    site.notify(person, "Three")  # which the open panel shows
    expect(unseen.items).to_have_count(3)
    until(lambda: counts(site, person)["unseen"] == 0, lambda: "it stays unseen")
    unseen.press("Escape")
    site.notify(person, "Four")
    expect(unseen.badge).to_have_text("1")
    unread.expect_count(4)


def test_a_person_is_shown_by_picture_or_by_the_initials_of_the_name(
    site: HostSite, context: BrowserContext
) -> None:
    person, (ann, ben) = site.person(), (site.person(), site.person())
    with psycopg.connect(site.dsn, autocommit=True) as connection:
        for id_, name in ((ann, "Ann Ash"), (ben, "Ben Bay")):
            connection.execute(
                "select tocsin.upsert_recipient(%s, name => %s, avatar_url => '/people/' || %s)",
                (id_, name, f"{name[:3].lower()}.png"),
            )
    picture = png(1, 1)
    context.route("**/people/ann.png", lambda route: route.fulfill(body=picture))
    context.route("**/people/ben.png", lambda route: route.fulfill(status=404))
    site.sign_in(context, person)
    bell = open_bell(site, context)
    site.notify(person, "Ann wrote", initiator=ann)
    bell.open()
    expect(bell.item("Ann wrote").locator(".face img")).to_have_js_property("naturalWidth", 1)
    site.notify(person, "Ben wrote", initiator=ben)  # comes by the stream
    expect(bell.item("Ben wrote").locator(".face")).to_have_text("BB")
    expect(bell.item("Ben wrote").locator(".face img")).to_have_count(0)
