"""The operations page where an older response comes after a later one."""

from __future__ import annotations

import psycopg
from host_site import *  # noqa: F403 - fixtures
from host_site import HostSite, first_held
from ops_page import *  # noqa: F403 - fixtures
from ops_page import SOON, OpenOpsPage
from playwright.sync_api import Route, expect

from tests.support.ledger import deliver


def fail(site: HostSite, *reasons: str) -> None:
    """Stores a failed delivery with each of these reasons."""
    with psycopg.connect(site.dsn, autocommit=True) as connection:
        for reason in reasons:
            deliver(connection, "failed", reason=reason, recipient=site.person())


def test_the_dead_letters_of_a_reason_are_not_replaced_by_an_older_response(
    open_ops_page: OpenOpsPage, site: HostSite
) -> None:
    fail(site, "smtp_550_5.1.1", "smtp_550_5.7.1")
    page = open_ops_page()
    rows = page.locator("#dead-table tbody tr")
    expect(rows).to_have_count(2, timeout=SOON)
    held: list[Route] = []

    def hold(route: Route) -> None:
        if "reason=" in route.request.url or held:
            route.fallback()
        else:
            held.append(route)

    page.route("**/ops/api/dead-letters/?*", hold)
    page.locator("#dead-since").select_option("24")
    older = first_held(page, held)
    reason = page.locator("#dead-reasons li").filter(has_text="smtp_550_5.7.1")
    reason.get_by_role("button", name="Show").click()
    expect(rows).to_have_count(1)
    with page.expect_response(older.request.url):
        older.continue_()
    page.wait_for_timeout(500)  # in which it must not be shown
    expect(rows).to_have_count(1)


def test_the_last_search_is_the_one_whose_result_is_shown(
    open_ops_page: OpenOpsPage, site: HostSite
) -> None:
    first, second = site.person(), site.person()
    page = open_ops_page()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route(f"**/ops/api/search/?q={first}", hold)
    query = page.get_by_label("Id of a recipient")
    for person in (first, second):
        query.fill(person)
        page.keyboard.press("Enter")
    expect(page.get_by_role("article", name=f"Person {second}")).to_be_visible()
    older = first_held(page, held)
    with page.expect_response(older.request.url):
        older.continue_()
    page.wait_for_timeout(500)  # in which it must not be shown
    expect(page.get_by_role("article", name=f"Person {second}")).to_be_visible()
