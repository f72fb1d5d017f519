"""One stream for all tabs of a person; right again after offline, sleep and another sign-in."""

from __future__ import annotations

from bell_page import Bell, open_bell
from house import *  # noqa: F403 - fixtures
from house import House
from playwright.sync_api import BrowserContext, expect

WAKE = "document.dispatchEvent(new Event('visibilitychange'))"


def test_tabs_share_one_stream_and_pass_it_on(house: House, context: BrowserContext) -> None:
    house.expect_streams(0)
    person = house.person()
    id_ = house.tell(person, "Seen in both")
    house.sign_in(context, person)
    first, second, third = (open_bell(house, context) for _ in range(3))
    for bell in (first, second, third):
        bell.expect_count(1)
    house.expect_streams(1)
    for bell in (first, second):
        bell.open()
        expect(bell.item("Seen in both")).to_be_visible()
    house.ask(person, "PATCH", f"notifications/{id_}/read/")  # on another device
    for bell in (first, second, third):
        bell.expect_count(0)
    for bell in (first, second):
        expect(bell.panel.locator(".unread")).to_have_count(0)
    first.page.close()  # whichever leads, two closings reach it
    second.page.close()
    house.tell(person, "After they went")
    third.expect_count(1)
    house.expect_streams(1)
    third.page.close()
    house.expect_streams(0)


def test_what_one_tab_does_the_other_shows(house: House, context: BrowserContext) -> None:
    person = house.person()
    house.tell(person, "Mine")
    house.sign_in(context, person)
    here, there = open_bell(house, context), open_bell(house, context)
    for bell in (here, there):
        bell.open()
        expect(bell.item("Mine")).to_be_visible()
    here.page.bring_to_front()
    here.item("Mine").hover()
    here.panel.get_by_role("button", name="Archive: Mine").click()
    expect(there.items).to_have_count(0)
    there.expect_count(0)


def test_offline_and_back(house: House, context: BrowserContext) -> None:
    person = house.person()
    house.tell(person, "Before")
    house.sign_in(context, person)
    bells = [open_bell(house, context), open_bell(house, context)]
    for bell in bells:
        bell.open()
        expect(bell.item("Before")).to_be_visible()
    context.set_offline(True)
    house.front.cut()
    for bell in bells:
        expect(bell.panel.get_by_text("No connection")).to_be_visible()
    house.tell(person, "Meanwhile")
    bells[0].page.bring_to_front()
    bells[0].item("Before").hover()
    bells[0].panel.get_by_role("button", name="Mark as read: Before").click()
    expect(bells[0].panel.get_by_text("That didn’t work")).to_be_visible()
    bells[0].expect_count(1)  # taken back
    context.set_offline(False)
    for bell in bells:
        expect(bell.item("Meanwhile")).to_be_visible()
        expect(bell.panel.get_by_text("No connection")).to_be_hidden()
        bell.expect_count(2)


def test_a_machine_that_slept_is_right_again(house: House, context: BrowserContext) -> None:
    context.clock.install()
    person = house.person()
    house.sign_in(context, person)
    bell = open_bell(house, context)
    bell.expect_count(0)
    house.front.stall()  # the stream is dead, and nobody says so
    house.tell(person)
    bell.page.clock.fast_forward(60_000)
    bell.expect_count(1)


def test_a_service_that_was_away_is_found_again(house: House, context: BrowserContext) -> None:
    context.clock.install()
    person = house.person()
    house.sign_in(context, person)
    bell = open_bell(house, context)
    bell.open()
    expect(bell.panel.get_by_text("Nothing here yet")).to_be_visible()
    with house.front.without_service():
        expect(bell.panel.get_by_text("No connection")).to_be_visible()
        house.tell(person, "Meanwhile")
    bell.page.clock.fast_forward(10_000)  # past the longest first pause
    expect(bell.item("Meanwhile")).to_be_visible()
    expect(bell.panel.get_by_text("No connection")).to_be_hidden()
    bell.expect_count(1)


def test_a_restart_of_the_page_comes_back_from_the_history(
    house: House, context: BrowserContext
) -> None:
    person = house.person()
    house.sign_in(context, person)
    bell = open_bell(house, context)
    bell.expect_count(0)
    bell.page.goto(f"{house.front.origin}/elsewhere")
    house.tell(person)
    bell.page.go_back()
    bell.expect_count(1)


def test_a_frozen_tab_does_not_keep_the_others_waiting(
    house: House, context: BrowserContext
) -> None:
    person = house.person()
    house.tell(person)
    house.sign_in(context, person)
    frozen = context.new_page()
    frozen.goto(f"{house.front.origin}/frozen")
    name = f"tocsin {house.url}/ {person}"
    frozen.evaluate(
        "(name) => void navigator.locks.request(name, () => new Promise(() => {}))", name
    )
    bell = open_bell(house, context)
    expect(bell.button).to_have_attribute("aria-label", "Notifications")  # it knows of nothing yet
    bell.page.evaluate(WAKE)
    bell.expect_count(1)


def test_another_persons_cookie_is_noticed(house: House, context: BrowserContext) -> None:
    old, new = house.person(), house.person()
    house.tell(old, "For the old one")
    house.tell(new, "For the new one")
    house.tell(new, "For the new one too")
    house.sign_in(context, old)
    bell = open_bell(house, context)
    bell.open()
    expect(bell.item("For the old one")).to_be_visible()
    house.sign_in(context, new)
    other = open_bell(house, context)
    other.expect_count(2)  # the old one's stream is not hers
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


def test_two_bells_of_two_people_on_one_page(house: House, context: BrowserContext) -> None:
    alice, bob = house.person(), house.person()
    house.tell(alice)
    script = f"""
    bell.getToken = () => "{house.token(alice)}";
    const second = document.createElement("tocsin-bell");
    second.getToken = () => "{house.token(bob)}";
    document.querySelector("main").append(second);
    """
    page = open_bell(house, context, script=script).page
    hers, his = (Bell(page) for _ in range(2))
    first, second = page.locator("tocsin-bell").all()
    hers.button, his.button = first.locator(".bell"), second.locator(".bell")
    hers.badge, his.badge = first.locator(".badge"), second.locator(".badge")
    hers.expect_count(1)
    his.expect_count(0)
