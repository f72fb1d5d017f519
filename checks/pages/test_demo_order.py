"""The pages of `make up` where a response is late, fails once, or comes after a later one."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from host_site import *  # noqa: F403 - fixtures
from host_site import TIMEOUT, first_held, until
from playwright.sync_api import Browser, Page, Route, expect
from test_demo import Demo, url  # noqa: F401 - a fixture


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-GB")
    context.set_default_timeout(TIMEOUT * 1000)
    yield context.new_page()
    context.close()


def held_once(page: Page, path: str) -> list[Route]:
    """Holds the next request of a path; it is in the returned list."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route(path, hold)
    return held


def deliver(page: Page, held: list[Route]) -> None:
    """Lets the held request have its response, and the page use it."""
    with page.expect_response(held[0].request.url):
        held[0].continue_()
    page.wait_for_timeout(200)


def test_the_source_of_a_mail_does_not_come_after_that_of_another(page: Page, url: str) -> None:  # noqa: F811
    demo = Demo(page, url)
    demo.open()
    demo.press("right", "event.invited")
    demo.press("left", "event.invited")
    mails = page.locator("#mailbox ol button")  # also those of earlier tests, which may arrive now
    source = page.locator("#mailbox pre")
    mails.filter(has_text="To Bob").first.click()
    held = held_once(page, "**/mail/*/source/")
    page.locator("#mailbox").get_by_role("button", name="Source").click()
    first_held(page, held)
    mails.filter(has_text="To Alice").first.click()
    expect(source).to_contain_text("To: alice")
    deliver(page, held)
    expect(source).to_contain_text("To: alice")


def test_a_chosen_mail_stays_open_when_another_one_arrives(page: Page, url: str) -> None:  # noqa: F811
    demo = Demo(page, url)
    demo.open()
    demo.press("right", "event.invited")
    mails = page.locator("#mailbox ol li")
    chosen = mails.filter(has_text="To Alice").first
    identity = chosen.get_attribute("data-id")
    chosen.get_by_role("button").click()
    before = mails.first.get_attribute("data-id")
    # without a press, which would move the focus
    page.evaluate(
        """() => fetch("events/", {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify({ event_type: "event.invited", me: "bob", you: "alice" }),
        })"""
    )
    expect(mails.first).not_to_have_attribute("data-id", before or "")
    expect(page.locator("#mailbox [aria-current=true]")).to_be_focused()
    assert page.locator("#mailbox li:focus-within").get_attribute("data-id") == identity


def test_the_chat_is_read_again_after_a_failure(page: Page, url: str) -> None:  # noqa: F811
    failed: list[Route] = []

    def fail(route: Route) -> None:
        failed.append(route)
        route.abort()

    page.route("**/dev/chat/", fail)
    Demo(page, url).open()
    until(lambda: len(failed) > 2, lambda: "it was not read again", page=page)


def test_a_mail_whose_template_changed_while_its_page_was_loaded_is_drawn_again(
    page: Page,
    url: str,  # noqa: F811
) -> None:
    page.route("**/templates/version/", lambda route: route.fulfill(json={"version": "later"}))
    page.goto(f"{url}/dev/templates/forum.new_reply/")
    expect(page.locator("#state")).to_contain_text("Drawn again")


def test_the_last_view_of_a_mail_that_was_chosen_is_shown(page: Page, url: str) -> None:  # noqa: F811
    page.goto(f"{url}/dev/templates/forum.new_reply/")
    held = held_once(page, "**/templates/forum.new_reply/?*")
    language = page.get_by_label("Language")
    language.select_option("de")
    first_held(page, held)
    language.select_option("ar")
    mail = page.locator("#mail")
    expect(mail).to_have_attribute("src", re.compile("locale=ar"))
    deliver(page, held)
    expect(mail).to_have_attribute("src", re.compile("locale=ar"))
