"""<tocsin-bell> in a host app's page: the badge, the list, and a person's actions in it."""

from __future__ import annotations

from bell_page import open_bell, with_token
from host_site import *  # noqa: F403 - fixtures
from host_site import HostPage, HostSite, first_held, until
from playwright.sync_api import Browser, BrowserContext, Route, expect

ONE_TAG = """<!doctype html><html lang="en"><title>Host</title>
<script type="module" src="/notify/assets/tocsin-bell.js"></script>
<tocsin-bell></tocsin-bell>"""


def expect_stored(site: HostSite, person: str, count: int) -> None:
    """Waits until the service has what the page shows before its response."""

    def unread() -> int:
        return int(site.request(person, "GET", "notifications/unread-count/")["count"])

    until(lambda: unread() == count, lambda: f"{unread()} are unread")


def test_one_script_tag_is_enough(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    site.notify(person)
    site.sign_in(context, person)
    page = context.new_page()
    page.goto(site.front.origin + site.front.show("one-tag", HostPage(ONE_TAG)))
    expect(page.get_by_role("button", name="Notifications, 1 unread")).to_be_visible()
    assert page.evaluate("document.querySelector('tocsin-bell').api") == site.url + "/"


def test_the_badge_moves_on_a_commit_of_another_process(
    site: HostSite, context: BrowserContext
) -> None:
    person = site.person()
    site.sign_in(context, person)
    bell = open_bell(site, context, attributes="title-count")
    bell.expect_count(0)
    site.notify(person)
    bell.expect_count(1)
    expect(bell.page).to_have_title("(1) Chapter")
    for number in range(127):
        site.notify(person, f"Reply {number}")
    bell.expect_count(128)
    expect(bell.page).to_have_title("(99+) Chapter")
    site.request(person, "POST", "notifications/mark-all-read/")
    bell.expect_count(0)
    expect(bell.page).to_have_title("Chapter")
    bell.expect_event("tocsin:count", {"count": 128, "unseen": 128})
    assert bell.page.evaluate("bell.count") == 0


def test_opening_one_marks_it_read_and_follows_its_link(
    site: HostSite, context: BrowserContext
) -> None:
    person = site.person()
    site.notify(person, "Look here", action_url="/forums/7?page=2#post")
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.open()
    bell.item("Look here").get_by_role("link", name="Unread: Look here").click()
    expect(bell.page).to_have_url(f"{site.front.origin}/forums/7?page=2#post")
    bell.page.go_back()
    bell.expect_count(0)
    expect_stored(site, person, 0)


def test_a_host_may_open_it_itself(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    id_ = site.notify(person, "Look here", action_url="/forums/7")
    site.sign_in(context, person)
    bell = open_bell(
        site,
        context,
        script="bell.addEventListener('tocsin:open', (event) => event.preventDefault());",
    )
    here = bell.page.url
    bell.open()
    bell.item("Look here").get_by_role("link").click()
    bell.expect_count(0)
    assert bell.page.url == here
    assert bell.event("tocsin:open")["id"] == id_


def test_one_without_a_link_is_marked_read_where_it_is(
    site: HostSite, context: BrowserContext
) -> None:
    person = site.person()
    site.notify(person, "Just so", body="word " * 200)
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.open()
    bell.item("Just so").get_by_role("button", name="Unread: Just so").click()
    bell.expect_count(0)
    expect(bell.item("Just so")).to_be_visible()


def test_read_and_unread_archive_and_all_with_undo(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    for title in ("First", "Second", "Third"):
        site.notify(person, title)
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.open()
    bell.item("Second").hover()
    bell.panel.get_by_role("button", name="Mark as read: Second").click()
    bell.expect_count(2)
    bell.panel.get_by_role("button", name="Mark as unread: Second").click()
    bell.expect_count(3)
    bell.panel.get_by_role("button", name="Archive: Second").click()
    expect(bell.items).to_have_count(2)
    bell.expect_count(2)
    bell.panel.get_by_role("button", name="Mark all as read").click()
    expect(bell.panel.get_by_text("2 marked as read")).to_be_visible()
    bell.expect_count(0)
    bell.panel.get_by_role("button", name="Undo").click()
    bell.expect_count(2)
    expect(bell.panel.get_by_text("2 marked as read")).to_be_hidden()
    expect_stored(site, person, 2)


def test_what_is_being_archived_is_not_marked_with_the_others(
    site: HostSite, context: BrowserContext
) -> None:
    person = site.person()
    for title in ("First", "Second"):
        site.notify(person, title)
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.open()
    held: list[Route] = []

    def hold(route: Route) -> None:
        if route.request.method == "PATCH":
            held.append(route)
        else:
            route.continue_()

    context.route("**/api/notifications/*/", hold)
    bell.item("Second").hover()
    bell.panel.get_by_role("button", name="Archive: Second").click()
    expect(bell.items).to_have_count(1)
    bell.panel.get_by_role("button", name="Mark all as read").click()
    archiving = first_held(bell.page, held)
    bell.page.wait_for_timeout(300)  # in which the others must not be marked
    archiving.continue_()
    expect(bell.panel.get_by_text("1 marked as read")).to_be_visible()


def test_what_came_after_the_list_is_marked_with_it_when_shown(
    site: HostSite, context: BrowserContext
) -> None:
    person = site.person()
    site.notify(person, "Before")
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.open()
    expect(bell.items).to_have_count(1)
    site.notify(person, "After")
    expect(bell.items).to_have_count(2)
    bell.panel.get_by_role("button", name="Mark all as read").click()
    bell.expect_count(0)


def test_what_came_before_the_stream_began_is_in_a_list_that_was_loaded_before(
    site: HostSite, context: BrowserContext
) -> None:
    person = site.person()
    site.notify(person, "Before")
    site.sign_in(context, person)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    context.route("**/api/notifications/stream/", hold)
    bell = open_bell(site, context)
    bell.open()
    expect(bell.items).to_have_count(1)
    site.notify(person, "Between")
    first_held(bell.page, held).continue_()
    expect(bell.items).to_have_count(2)


def test_older_ones_come_as_one_scrolls_each_once(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    for number in range(65):
        site.notify(person, f"Number {number:02}")
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.open()
    expect(bell.items.first).to_contain_text("Number 64")
    bell.scroll_to_the_end(65)
    titles = [text.split("Number ")[1][:2] for text in bell.items.all_text_contents()]
    assert titles == [f"{number:02}" for number in reversed(range(65))]
    expect(bell.panel.get_by_role("button", name="Show older ones")).to_be_hidden()


def test_filters_by_category_and_unread(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    read = site.notify(person, "A read one")
    site.request(person, "PATCH", f"notifications/{read}/read/")
    site.notify(person, "A reply")
    site.notify(person, "A vote", event_type="election.opened")
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.open()
    expect(bell.items).to_have_count(3)
    bell.panel.get_by_role("button", name="Unread", exact=True).click()
    expect(bell.items).to_have_count(2)
    bell.panel.get_by_label("Category").select_option("Elections")
    expect(bell.items).to_have_count(1)
    site.notify(person, "Another reply")
    site.notify(person, "The results", event_type="election.results")
    expect(bell.item("The results")).to_be_visible()
    expect(bell.items).to_have_count(2)
    bell.panel.get_by_role("button", name="Mark all as read").click()
    bell.expect_count(2)  # of the category only
    bell.panel.get_by_role("button", name="All", exact=True).click()
    bell.panel.get_by_label("Category").select_option("")
    expect(bell.items).to_have_count(5)


def test_a_new_one_slides_in_and_is_announced_politely(
    site: HostSite, context: BrowserContext
) -> None:
    person = site.person()
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.open()
    expect(bell.panel.get_by_text("Nothing here yet")).to_be_visible()
    site.notify(person, "Fresh")
    expect(bell.items.first).to_contain_text("Fresh")
    status = bell.page.locator("tocsin-bell").get_by_role("status").filter(has_text="New: Fresh")
    expect(status).to_have_count(1)
    expect(bell.panel.get_by_text("Nothing here yet")).to_be_hidden()


def test_two_people_see_their_own(site: HostSite, browser: Browser) -> None:
    bells = {}
    for person in (site.person(), site.person()):
        context = browser.new_context()
        site.sign_in(context, person)
        bells[person] = open_bell(site, context)
        bells[person].expect_count(0)
    (alice, hers), (bob, his) = bells.items()
    site.notify(alice, "For her")
    site.notify(bob, "For him")
    site.notify(bob, "For him too")
    hers.expect_count(1)
    his.expect_count(2)
    hers.open()
    expect(hers.items).to_have_count(1)
    expect(hers.items).to_contain_text("For her")
    for bell in bells.values():
        bell.page.context.close()


def test_a_page_of_another_origin_by_token(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    site.notify(person, "From afar", action_url="/forums/7")
    bell = open_bell(site, context, elsewhere=True, script=with_token(site.token(person)))
    bell.expect_count(1)
    bell.open()
    bell.item("From afar").hover()
    bell.panel.get_by_role("button", name="Mark as read: From afar").click()
    bell.expect_count(0)
    site.notify(person, "Again")
    bell.expect_count(1)
    bell.panel.get_by_role("button", name="Mark all as read").click()
    bell.panel.get_by_role("button", name="Undo").click()  # by a header that CORS must expose
    bell.expect_count(1)
    link = bell.item("From afar").get_by_role("link")
    expect(link).to_have_attribute("href", f"{site.front.other_origin}/forums/7")


def test_a_token_that_expires_is_asked_for_again(site: HostSite, context: BrowserContext) -> None:
    person = site.person()
    site.notify(person)
    tokens = [site.token(person, ttl=3), site.token(person)]
    bell = open_bell(
        site,
        context,
        script=f"const tokens = {tokens}; window.asked = 0;"
        " bell.getToken = () => tokens[Math.min(window.asked++, 1)];",
    )
    bell.expect_count(1)
    until(lambda: bell.page.evaluate("window.asked") > 1, lambda: "no token was asked for")
    site.notify(person)
    bell.expect_count(2)
    assert bell.events("tocsin:signed-out") == []


def test_without_a_token_it_shows_that_and_begins_with_one(
    site: HostSite, context: BrowserContext
) -> None:
    person = site.person()
    site.notify(person)
    bell = open_bell(site, context, elsewhere=True)
    bell.event("tocsin:signed-out")
    expect(bell.badge).to_be_hidden()
    bell.page.evaluate("(token) => { bell.token = token }", site.token(person))
    bell.expect_count(1)


def test_another_token_keeps_the_panel_and_shows_whose_it_is(
    site: HostSite, context: BrowserContext
) -> None:
    alice, bob = site.person(), site.person()
    site.notify(alice, "For her")
    site.notify(bob, "For him")
    bell = open_bell(site, context, attributes=f'token="{site.token(alice)}"')
    bell.open()
    expect(bell.item("For her")).to_be_visible()
    bell.page.evaluate("(token) => { bell.token = token }", site.token(alice, ttl=1800))
    site.notify(alice, "For her too")
    expect(bell.items).to_have_count(2)
    bell.page.evaluate("(token) => { bell.token = token }", site.token(bob))
    expect(bell.item("For him")).to_be_visible()
    expect(bell.items).to_have_count(1)
    bell.expect_count(1)
    expect(bell.panel).to_be_visible()


def test_what_arrives_while_the_list_is_loaded_is_in_it(
    site: HostSite, context: BrowserContext
) -> None:
    person = site.person()
    site.notify(person, "Before")
    site.sign_in(context, person)
    bell = open_bell(site, context)
    bell.expect_count(1)
    held: list[Route] = []

    def hold(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    context.route("**/api/notifications/?*", hold)
    bell.open()
    loading = first_held(bell.page, held)
    page = loading.fetch()  # made before the next one arrives
    site.notify(person, "Meanwhile")
    bell.expect_count(2)
    loading.fulfill(response=page)
    expect(bell.item("Meanwhile")).to_be_visible()
    expect(bell.items).to_have_count(2)
