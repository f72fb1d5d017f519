"""One stream for all tabs of a person; correct again after an outage, sleep and another sign-in."""

from __future__ import annotations

from bell_page import Bell, open_bell
from host_site import *  # noqa: F403 - fixtures
from host_site import HostSite, until
from playwright.sync_api import BrowserContext, expect

IS_WAITING = "(name) => navigator.locks.query().then(({ pending }) => pending.some((each) => each.name === name))"
WAKE = "document.dispatchEvent(new Event('visibilitychange'))"


def test_tabs_share_one_stream_and_pass_it_on(site: HostSite, context: BrowserContext) -> None:
    site.expect_streams(0)
    person = site.person()
    id_ = site.notify(person, "Seen in both")
    site.sign_in(context, person)
    first, second, third = (open_bell(site, context) for _ in range(3))
    for bell in (first, second, third):
        bell.expect_count(1)
    site.expect_streams(1)
    for bell in (first, second):
        bell.open()
        expect(bell.item("Seen in both")).to_be_visible()
    site.request(person, "PATCH", f"notifications/{id_}/read/")  # on another device
    for bell in (first, second, third):
        bell.expect_count(0)
    for bell in (first, second):
        expect(bell.panel.locator(".unread")).to_have_count(0)
    first.page.close()  # whichever tab leads, closing two includes it
    second.page.close()
    site.notify(person, "After they went")
    third.expect_count(1)
    site.expect_streams(1)
    third.page.close()
    site.expect_streams(0)


def test_what_one_tab_does_the_other_shows(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    site.notify(person, "Mine")
    site.sign_in(context, person)
    here, there = open_bell(site, context), open_bell(site, context)
    for bell in (here, there):
        bell.open()
        expect(bell.item("Mine")).to_be_visible()
    here.page.bring_to_front()
    here.item("Mine").hover()
    here.panel.get_by_role("button", name="Archive: Mine").click()
    expect(there.items).to_have_count(0)
    there.expect_count(0)


def test_offline_and_back(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    site.notify(person, "Before")
    site.sign_in(context, person)
    bells = [open_bell(site, context), open_bell(site, context)]
    for bell in bells:
        bell.open()
        expect(bell.item("Before")).to_be_visible()
    context.set_offline(True)
    site.front.cut()
    for bell in bells:
        expect(bell.panel.get_by_text("No connection")).to_be_visible()
    site.notify(person, "Meanwhile")
    bells[0].page.bring_to_front()
    bells[0].item("Before").hover()
    bells[0].panel.get_by_role("button", name="Mark as read: Before").click()
    expect(bells[0].panel.get_by_text("That did not work")).to_be_visible()
    bells[0].expect_count(1)  # reverted
    context.set_offline(False)
    for bell in bells:
        expect(bell.item("Meanwhile")).to_be_visible()
        expect(bell.panel.get_by_text("No connection")).to_be_hidden()
        bell.expect_count(2)


def test_a_machine_that_slept_is_right_again(site: HostSite, context: BrowserContext) -> None:
    context.clock.install()
    person = site.person()
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.expect_count(0)
    site.front.stall()  # the stream is dead without an error
    site.notify(person)
    bell.page.clock.fast_forward(60_000)
    bell.expect_count(1)


def test_a_service_that_was_away_is_found_again(site: HostSite, context: BrowserContext) -> None:
    context.clock.install()
    person = site.person()
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.open()
    expect(bell.panel.get_by_text("Nothing here yet")).to_be_visible()
    with site.front.without_service():
        expect(bell.panel.get_by_text("No connection")).to_be_visible()
        site.notify(person, "Meanwhile")
    bell.page.clock.fast_forward(10_000)  # past the longest first pause
    expect(bell.item("Meanwhile")).to_be_visible()
    expect(bell.panel.get_by_text("No connection")).to_be_hidden()
    bell.expect_count(1)


def test_a_restart_of_the_page_comes_back_from_the_history(
    site: HostSite, context: BrowserContext
) -> None:
    person = site.person()
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.expect_count(0)
    bell.page.goto(f"{site.front.origin}/elsewhere")
    site.notify(person)
    bell.page.go_back()
    bell.expect_count(1)


def test_a_frozen_tab_does_not_keep_the_others_waiting(
    site: HostSite, context: BrowserContext
) -> None:
    person = site.person()
    site.notify(person)
    site.sign_in(context, person)
    frozen = context.new_page()
    frozen.goto(f"{site.front.origin}/frozen")
    name = f"tocsin {site.url}/ {person}"
    frozen.evaluate(
        "(name) => void navigator.locks.request(name, () => new Promise(() => {}))", name
    )
    bell = open_bell(site, context)
    until(lambda: bell.page.evaluate(IS_WAITING, name), lambda: "it does not wait for the other")
    expect(bell.button).to_have_attribute("aria-label", "Notifications")  # it received nothing yet
    bell.page.evaluate(WAKE)
    bell.expect_count(1)


def test_another_persons_cookie_is_noticed(site: HostSite, context: BrowserContext) -> None:
    old, new = site.person(), site.person()
    site.notify(old, "For the old one")
    site.notify(new, "For the new one")
    site.notify(new, "For the new one too")
    site.sign_in(context, old)
    bell = open_bell(site, context)
    bell.open()
    expect(bell.item("For the old one")).to_be_visible()
    site.sign_in(context, new)
    other = open_bell(site, context)
    other.expect_count(2)  # the previous person's stream is not hers
    bell.page.bring_to_front()
    bell.page.evaluate(WAKE)
    bell.expect_count(2)
    expect(bell.items).to_have_count(2)
    expect(bell.item("For the old one")).to_have_count(0)
    context.clear_cookies()
    bell.page.evaluate(WAKE)
    expect(bell.panel.get_by_text("You are signed out")).to_be_visible()
    expect(bell.items).to_have_count(0)
    expect(bell.badge).to_be_hidden()


def test_a_page_that_comes_back_from_the_history_is_the_new_persons(
    site: HostSite, context: BrowserContext
) -> None:
    old, new = site.person(), site.person()
    site.notify(old, "For the old one")
    site.sign_in(context, old)
    bell = open_bell(site, context)
    bell.open()
    expect(bell.item("For the old one")).to_be_visible()
    bell.page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    site.sign_in(context, new)
    bell.page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    expect(bell.item("For the old one")).to_have_count(0)
    bell.expect_count(0)


def test_two_bells_of_two_people_on_one_page(site: HostSite, context: BrowserContext) -> None:
    alice, bob = site.person(), site.person()
    site.notify(alice)
    script = f"""
    bell.getToken = () => "{site.token(alice)}";
    const second = document.createElement("tocsin-bell");
    second.getToken = () => "{site.token(bob)}";
    document.querySelector("main").append(second);
    """
    page = open_bell(site, context, script=script).page
    hers, his = (Bell(page) for _ in range(2))
    first, second = page.locator("tocsin-bell").all()
    hers.button, his.button = first.locator(".bell"), second.locator(".bell")
    hers.badge, his.badge = first.locator(".badge"), second.locator(".badge")
    hers.expect_count(1)
    his.expect_count(0)
