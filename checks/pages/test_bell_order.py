"""The bell where a person acts before something is loaded, or a response is older than what the stream reported."""

from __future__ import annotations

from typing import Any

from bell_page import Bell, open_bell
from host_site import *  # noqa: F403 - fixtures
from host_site import HostSite, first_held, until
from playwright.sync_api import APIResponse, BrowserContext, Route, expect

# The 30 s until a request fails pass in 0.3 s.
_SHORT_TIMEOUTS = """() => {
  window.longTimeout = AbortSignal.timeout;
  AbortSignal.timeout = (time) => longTimeout.call(AbortSignal, time / 100);
}"""


def signed_in(site: HostSite, context: BrowserContext, *titles: str) -> tuple[str, list[int]]:
    """Returns a new person who is signed in and has these notifications, and their ids."""
    person = site.person()
    ids = [site.notify(person, title) for title in titles]
    site.sign_in(context, person)
    return person, ids


def held_requests(context: BrowserContext, path: str, method: str = "GET") -> list[Route]:
    """Holds the requests of a path; they are in the returned list."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route) if route.request.method == method else route.fallback()

    context.route(path, hold)
    return held


def test_a_press_before_the_page_is_parsed_opens_it(
    site: HostSite, context: BrowserContext
) -> None:
    signed_in(site, context, "Early")
    held = held_requests(context, "**/page-*.js")
    bell = open_bell(site, context, loads=False)
    first_held(bell.page, held)  # the page's own script comes after the bell's
    bell.button.click()
    held[0].continue_()
    expect(bell.item("Early")).to_be_visible()


def test_the_page_may_open_it_as_soon_as_it_is_defined(
    site: HostSite, context: BrowserContext
) -> None:
    signed_in(site, context, "Early")
    bell = open_bell(site, context, script="bell.show();")
    expect(bell.item("Early")).to_be_visible()


def test_a_count_that_is_older_than_the_last_of_the_stream_is_not_shown(
    site: HostSite, context: BrowserContext
) -> None:
    person, _ = signed_in(site, context, "Before")
    late: list[tuple[Route, APIResponse]] = []

    def keep(route: Route) -> None:
        if late:
            route.continue_()
        else:
            late.append((route, route.fetch()))

    context.route("**/api/notifications/seen/", keep)
    bell = open_bell(site, context)
    bell.expect_count(1)
    bell.open()
    until(lambda: late, lambda: "nothing was marked as seen", page=bell.page)
    site.notify(person, "Meanwhile")
    bell.expect_count(2)
    route, response = late[0]
    with bell.page.expect_response(route.request.url):
        route.fulfill(response=response)
    bell.page.wait_for_timeout(2000)
    counts: Any = [detail["count"] for detail in bell.events("tocsin:count")]  # type: ignore[index]
    assert counts == sorted(counts)


def test_what_a_list_that_is_loaded_again_shows_is_seen(
    site: HostSite, context: BrowserContext
) -> None:
    person, _ = signed_in(site, context, "Before")
    held = held_requests(context, "**/api/notifications/stream/")
    bell = open_bell(site, context)
    bell.open()
    expect(bell.items).to_have_count(1)
    site.notify(person, "Between")
    first_held(bell.page, held).continue_()
    expect(bell.items).to_have_count(2)

    def unseen() -> int:
        return int(site.request(person, "GET", "notifications/unread-count/")["unseen"])

    until(lambda: unseen() == 0, lambda: f"{unseen()} are unseen", page=bell.page)


def grouped(site: HostSite, person: str) -> list[int]:
    """Creates a group of three; returns their ids."""
    return [site.notify(person, f"Reply {number}", subject="thread:7") for number in range(3)]


def group_of(bell: Bell, count: int) -> None:
    expect(bell.item(f"{count} notifications")).to_be_visible()


def test_a_group_that_changes_elsewhere_right_after_a_change_here_is_loaded_again(
    site: HostSite, context: BrowserContext
) -> None:
    person, _ = signed_in(site, context, "Alone")
    first, *_ = grouped(site, person)
    bell = open_bell(site, context)
    bell.open()
    group_of(bell, 3)
    bell.item("Alone").hover()
    bell.panel.get_by_role("button", name="Mark as read: Alone").click()
    site.request(person, "DELETE", f"notifications/{first}/")  # on another device
    group_of(bell, 2)


def test_another_person_who_signs_in_during_a_sign_in_gets_the_own_inbox(
    site: HostSite, context: BrowserContext
) -> None:
    first, second = site.person(), site.person()
    site.notify(first, "For the first")
    site.notify(second, "For the second")
    token = site.token(first)
    leader = open_bell(site, context, script=f"bell.getToken = async () => '{token}';")
    leader.expect_count(1)
    bell = open_bell(
        site,
        context,
        script=f"""
        const later = (token, time) => new Promise((resolve) => setTimeout(resolve, time, token));
        bell.getToken = () => later('{token}', 1000);
        setTimeout(() => (bell.getToken = () => later('{site.token(second)}', 2000)), 500);
        """,
    )
    bell.page.wait_for_timeout(4000)
    bell.open()
    expect(bell.item("For the second")).to_be_visible()
    site.notify(first, "For the first again")
    leader.expect_count(2)
    bell.expect_count(1)
    expect(bell.items).to_have_count(1)


def test_a_list_that_gets_no_response_can_be_loaded_again(
    site: HostSite, context: BrowserContext
) -> None:
    signed_in(site, context, "Later")
    held = held_requests(context, "**/api/notifications/?*")
    bell = open_bell(site, context)
    bell.expect_count(1)
    bell.page.evaluate(_SHORT_TIMEOUTS)
    bell.open()
    first_held(bell.page, held)
    again = bell.panel.get_by_role("button", name="Try again")
    expect(again).to_be_visible()
    bell.page.evaluate("AbortSignal.timeout = longTimeout")
    context.unroute_all()
    again.click()
    expect(bell.item("Later")).to_be_visible()


def test_older_ones_whose_place_is_in_view_are_loaded_when_the_connection_is_back(
    site: HostSite, context: BrowserContext
) -> None:
    signed_in(site, context, *(f"Number {number:02}" for number in range(30)))
    bell = open_bell(site, context)
    bell.open()
    expect(bell.items).to_have_count(20)
    context.set_offline(True)
    site.front.cut()
    expect(bell.panel.get_by_text("No connection")).to_be_visible()
    bell.items.last.scroll_into_view_if_needed()
    expect(bell.panel.get_by_role("button", name="Show older ones")).to_be_in_viewport()
    context.set_offline(False)
    expect(bell.items).to_have_count(30)


def test_names_of_categories_that_could_not_be_loaded_are_loaded_with_the_next_connection(
    site: HostSite, context: BrowserContext
) -> None:
    signed_in(site, context, "Named")
    context.route("**/api/event-types/?*", lambda route: route.abort())
    bell = open_bell(site, context)
    bell.open()
    expect(bell.item("Named")).to_be_visible()
    context.unroute_all()
    site.front.cut()
    expect(bell.item("Named").get_by_text("Forum", exact=True)).to_be_visible()


# Each event of the stream arrives 0.4 s later.
_LATE_EVENTS = """(() => {
  const send = fetch;
  const later = (chunk, to) => new Promise((done) => setTimeout(() => done(to.enqueue(chunk)), 400));
  window.fetch = async (url, options) => {
    const response = await send(url, options);
    if (!`${url}`.includes('/stream/')) return response;
    return new Response(response.body.pipeThrough(new TransformStream({ transform: later })), response);
  };
})()"""


def test_what_was_put_back_to_unread_stays_so_when_the_stream_reports_the_read(
    site: HostSite, context: BrowserContext
) -> None:
    signed_in(site, context, "One")
    context.add_init_script(_LATE_EVENTS)
    bell = open_bell(site, context)
    bell.open()
    unread = bell.panel.locator(".unread")
    expect(unread).to_have_count(1)
    bell.page.wait_for_timeout(1200)  # the stream has begun, and what it may have missed is loaded
    held = held_requests(context, "**/api/notifications/*/read/", "PATCH")
    bell.item("One").hover()
    bell.panel.get_by_role("button", name="Mark as read: One").click()
    expect(unread).to_have_count(0)
    first_held(bell.page, held).continue_()
    bell.panel.get_by_role("button", name="Undo").click()
    expect(unread).to_have_count(1)
    bell.page.wait_for_timeout(1200)  # the stream reports that it was read
    assert unread.count() == 1
    until(lambda: len(held) == 2, lambda: "the undo was not sent", page=bell.page)
    held[1].continue_()
    bell.expect_count(1)


def test_changes_of_one_notification_reach_the_service_in_their_order(
    site: HostSite, context: BrowserContext
) -> None:
    person, (id_,) = signed_in(site, context, "One")
    bell = open_bell(site, context)
    bell.open()
    bell.item("One").hover()
    bell.panel.get_by_role("button", name="Mark as read: One").click()
    bell.expect_count(0)
    until(
        lambda: site.request(person, "GET", f"notifications/{id_}/")["read"],
        lambda: "it was not marked",
        page=bell.page,
    )
    held = held_requests(context, "**/api/notifications/*/read/", "PATCH")
    bell.panel.get_by_role("button", name="Undo").click()
    first_held(bell.page, held)
    bell.item("One").hover()
    bell.panel.get_by_role("button", name="Mark as read: One").click()
    bell.page.wait_for_timeout(500)  # in which it would overtake the held request
    assert len(held) == 1
    held[0].continue_()
    until(lambda: len(held) == 2, lambda: "the second change was not sent", page=bell.page)
    held[1].continue_()
    until(
        lambda: site.request(person, "GET", f"notifications/{id_}/")["read"],
        lambda: "it is unread",
        page=bell.page,
    )
    bell.expect_count(0)
