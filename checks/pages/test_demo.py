"""The demo of `make up`, behind a proxy with a path prefix: what one person does arrives in the other's window."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from front import PREFIX, Front
from host_site import *  # noqa: F403 - fixtures
from host_site import PHONE, TIMEOUT, take_picture, until_ready, violations
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.support.run_folder import run_folder
from tests.support.services import LONGEST, free_port
from tocsin.dev.supervisor import VARIABLE, ParentPipe
from tocsin.engine.store.catalogue_file import default_catalogue

NO_INBOX = "billing.payment_due"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """`tocsin up` with all its parts, behind its proxy."""
    with run_folder() as folder, ExitStack() as stack:
        front = Front(free_port())
        front.start(free_port())
        stack.callback(front.stop)
        parent_pipe = ParentPipe()
        stack.callback(parent_pipe.close)
        environ = {k: v for k, v in os.environ.items() if not k.startswith("TOCSIN_")}
        environ |= {
            "TOCSIN_DATA_DIR": str(folder / "data"),
            "TOCSIN_PORT": str(front.backend),
            "TOCSIN_PUBLIC_URL": front.origin + PREFIX,
            VARIABLE: str(parent_pipe.reading),
        }
        with (folder / "up.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tocsin", "up"],
                env=environ,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                pass_fds=[parent_pipe.reading],
            )
        stack.callback(process.wait, LONGEST)
        stack.callback(process.send_signal, signal.SIGTERM)
        until_ready(f"http://127.0.0.1:{front.backend}", process, folder / "up.log")
        yield front.origin + PREFIX


_HAS_COUNTED = (
    "side => typeof document.querySelector(`.panel.${side} tocsin-bell`).count === 'number'"
)


class Demo:
    """The page, and the violations of its policy."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.wrong: list[str] = []
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))

    def open(self, people: str = "left=alice&right=bob") -> None:
        self.page.goto(f"{self.url}/dev/?{people}")
        for side in ("left", "right"):
            self.page.wait_for_function(_HAS_COUNTED, arg=side)
        expect(self.page.locator(".clock").first).not_to_be_empty()

    def panel(self, side: str) -> Locator:
        return self.page.locator(f".panel.{side}")

    def count(self, side: str) -> int:
        return int(self.panel(side).locator("tocsin-bell").evaluate("bell => bell.count"))

    def press(self, side: str, event_type: str) -> None:
        """Presses it and waits until the notification has arrived everywhere."""
        self.panel(side).locator(f"[data-event-type='{event_type}']").click()
        expect(self.page.locator("#trace li").first).to_be_visible()
        expect(self.page.locator("#trace .waiting")).to_have_count(0)

    def steps(self) -> dict[str, str]:
        found = self.page.locator("#trace li")
        return {
            each.locator(".name").inner_text(): each.get_attribute("class") or ""
            for each in found.all()
        }

    def request(self, person: str, method: str, path: str, body: object = None) -> Any:
        """Calls the API as one of the people, from their window."""
        return self.page.evaluate(
            """async ([person, method, path, body]) => {
                const {token} = await (await fetch(`token/?person=${person}`)).json();
                const headers = {Authorization: `Bearer ${token}`, 'Content-Type': 'application/json'};
                const sent = body === null ? {} : {body: JSON.stringify(body)};
                const response = await fetch(`../api/${path}`, {method, headers, ...sent});
                return response.status === 204 ? null : await response.json();
            }""",
            [person, method, path, body],
        )

    def _note(self, kind: str, text: str) -> None:
        if kind == "error" or "Content Security Policy" in text:
            self.wrong.append(text)


@pytest.fixture
def demo(url: str, browser: Browser) -> Iterator[Demo]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-GB")
    context.set_default_timeout(TIMEOUT * 1000)
    opened = Demo(context.new_page(), url)
    opened.open()
    yield opened
    assert opened.wrong == []
    context.close()


def test_the_root_leads_to_it(demo: Demo) -> None:
    demo.page.goto(f"{demo.url}/")
    expect(demo.page).to_have_url(re.compile(r"/notify/dev/$"))


@pytest.mark.parametrize("category", list(default_catalogue().categories))
def test_each_button_arrives_wherever_its_event_type_goes_to(demo: Demo, category: str) -> None:
    names = {"in_app": "Inbox", "email": "Mail", "push": "Push"}
    types = default_catalogue().event_types
    for event_type in [name for name in types if name.startswith(f"{category}.")]:
        hers, his = demo.count("left"), demo.count("right")
        demo.press("left", event_type)
        expected = {
            state: "done" if channel in types[event_type].channels else "off"
            for channel, state in names.items()
        }
        assert (event_type, demo.steps()) == (event_type, expected)
        assert demo.count("right") - his == (event_type != NO_INBOX)
        assert demo.count("left") == hers


def test_the_browser_of_the_page_is_notified_too(demo: Demo) -> None:
    demo.page.context.grant_permissions(["notifications"], origin=demo.url.removesuffix(PREFIX))
    bell = demo.panel("right").locator("tocsin-bell")
    bell.locator(".bell").click()
    bell.get_by_role("button", name="Notify me in this browser").click()
    expect(bell.get_by_text("You will be notified in this browser")).to_be_visible()
    (browser,) = [
        each
        for each in demo.request("bob", "GET", "push-tokens/")["results"]
        if each["platform"] == "web"
    ]
    demo.press("left", "messages.new_dm")
    demo.page.wait_for_function(_IS_SHOWN, arg="Alice")
    demo.request("bob", "DELETE", f"push-tokens/{browser['id']}/")


_IS_SHOWN = """async (words) => {
  const [registration] = await navigator.serviceWorker.getRegistrations();
  const list = () => registration?.getNotifications() ?? [];
  const shown = await navigator.locks.request("tocsin-notifications", list);
  return shown.some(({ title, data }) => title.includes(words) && data.navigate);
}"""


def test_the_mail_is_shown_as_html_as_text_and_as_it_came(demo: Demo) -> None:
    demo.press("right", "event.invited")
    mailbox = demo.page.locator("#mailbox")
    subject = "Bob asks you to run the bar at the winter concert"
    expect(mailbox.locator(".subject")).to_have_text(subject)
    expect(mailbox.locator("li").first).to_contain_text("To Alice")
    frame = demo.page.frame_locator("#mailbox iframe")
    expect(frame.get_by_text("The old hall", exact=True)).to_be_visible()
    mailbox.get_by_role("button", name="Text").click()
    expect(mailbox.locator("pre")).to_contain_text("Doors open half an hour before.")
    mailbox.get_by_role("button", name="Source").click()
    expect(mailbox.locator("pre")).to_contain_text("List-Unsubscribe-Post")
    mailbox.get_by_role("button", name="HTML").click()
    expect(mailbox.locator("pre")).to_be_hidden()


def test_the_phone_shows_it(demo: Demo) -> None:
    demo.press("left", "messages.new_dm")
    phone = demo.panel("right").locator(".phone")
    banner = phone.get_by_role("button", name="Alice wrote to you").first
    expect(banner).to_be_visible()
    before = demo.count("right")
    expect(phone.locator(".count")).to_have_text(str(before))

    banner.click()  # reading it on the phone marks it read in the window, and the icon follows
    panel = demo.panel("right")
    expect(panel.get_by_role("heading", name="Alice wrote to you")).to_be_visible()
    expect(panel.locator("tocsin-bell")).to_have_js_property("count", before - 1)
    expect(phone.locator(".count")).to_have_text(str(before - 1))


def test_a_choice_is_obeyed_and_named(demo: Demo) -> None:
    panel = demo.panel("right")
    panel.get_by_role("link", name="Settings").click()
    panel.get_by_role("checkbox", name="Email, Approvals", exact=True).click()
    expect(panel.get_by_text("Email is off for Approvals.")).to_be_visible()
    demo.press("left", "approval.decided")
    assert demo.steps() == {"Inbox": "done", "Mail": "off", "Push": "done"}
    expect(demo.page.locator("#trace")).to_contain_text(
        "You turned email off for everything in Approvals."
    )
    panel.get_by_role("button", name="Undo").click()
    expect(panel.get_by_text("Email for Approvals follows")).to_be_visible()


def test_a_thread_that_is_muted_is_quiet(demo: Demo) -> None:
    panel = demo.panel("right")
    panel.get_by_role("link", name="Settings").click()
    level = panel.get_by_label("Notifications about Spring Formal Planning")
    level.select_option("muted")
    expect(panel.get_by_text("Spring Formal Planning is muted.")).to_be_visible()
    before = demo.count("right")
    demo.press("left", "forum.new_reply")
    assert set(demo.steps().values()) == {"off"}
    expect(demo.page.locator("#trace")).to_contain_text("You muted forum.thread:7.")
    assert demo.count("right") == before
    level.select_option("all")
    expect(panel.get_by_text("You get all notifications about Spring")).to_be_visible()


def test_an_opened_notification_shows_its_reason(demo: Demo) -> None:
    demo.press("left", "recognition.received")
    panel = demo.panel("right")
    before = demo.count("right")
    panel.locator("tocsin-bell .bell").click()
    panel.locator("tocsin-bell").get_by_text("Alice thanked you").first.click()
    expect(panel.get_by_role("heading", name="Alice thanked you")).to_be_focused()
    expect(panel.locator(".why")).to_contain_text("It is in your inbox.")
    expect(panel.locator(".path")).to_have_text("/recognition/18")
    expect(panel.locator("tocsin-bell")).to_have_js_property("count", before - 1)
    panel.get_by_role("link", name="Back").click()
    expect(panel.get_by_role("button", name="Thank Alice")).to_be_visible()


def test_other_people_can_be_chosen(demo: Demo) -> None:
    demo.page.get_by_label("Who sits left").select_option("carol")
    expect(
        demo.panel("left").get_by_text("What Carol does here, Bob is notified of.")
    ).to_be_visible()
    expect(demo.panel("right")).to_have_attribute("data-person", "bob")
    demo.press("left", "recognition.received")
    assert demo.steps()["Inbox"] == "done"


def test_a_press_before_the_bells_have_counted_is_seen_to_arrive(demo: Demo) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    demo.page.route("**/api/**", hold)
    demo.page.goto(f"{demo.url}/dev/?left=carol&right=bob")
    demo.panel("left").locator("[data-event-type='recognition.received']").click()
    demo.page.wait_for_timeout(500)  # the notification is created meanwhile, if nothing waits
    demo.page.unroute("**/api/**")  # what is held goes on
    assert held
    expect(demo.page.locator("#trace li").first).to_be_visible()
    expect(demo.page.locator("#trace .waiting")).to_have_count(0)


def test_a_press_long_before_the_first_count_is_seen_to_arrive(demo: Demo) -> None:
    demo.page.route("**/api/**", lambda _: None)  # is held
    demo.page.goto(f"{demo.url}/dev/?left=carol&right=bob")
    with demo.page.expect_response("**/dev/events/"):
        demo.panel("left").locator("[data-event-type='recognition.received']").click()
    demo.page.unroute("**/api/**")
    expect(demo.page.locator("#trace li").first).to_be_visible()
    expect(demo.page.locator("#trace .waiting")).to_have_count(0)


def test_the_settings_page_is_one_click_away(demo: Demo) -> None:
    panel = demo.panel("left")
    panel.get_by_role("link", name="Settings").click()
    panel.get_by_role("link", name="On a page of its own").click()
    expect(demo.page).to_have_url(re.compile(r"/notify/settings/$"))
    expect(demo.page.get_by_text("Alice's iPhone", exact=True)).to_be_visible()


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_has_nothing_against_it(demo: Demo, colours: str) -> None:
    demo.page.emulate_media(color_scheme="dark" if colours == "dark" else "light")
    demo.press("left", "approval.requested")
    demo.press("right", "forum.mention")
    take_picture(demo.page, f"demo-desktop-{colours}")
    assert violations(demo.page) == []
    demo.panel("left").get_by_role("link", name="Settings").click()
    expect(demo.panel("left").locator("#devices")).to_be_attached()
    assert violations(demo.page) == []


def test_it_is_used_by_keyboard_alone(demo: Demo) -> None:
    before = demo.count("right")
    demo.panel("left").get_by_role("button", name="Thank Bob").focus()
    demo.page.keyboard.press("Enter")
    expect(demo.panel("right").locator("tocsin-bell")).to_have_js_property("count", before + 1)
    expect(demo.panel("left").get_by_role("button", name="Thank Bob")).to_be_focused()


def test_a_phone_has_room_for_it(url: str, browser: Browser) -> None:
    context = browser.new_context(
        viewport={"width": PHONE[0], "height": PHONE[1]}, has_touch=True, locale="en-GB"
    )
    demo = Demo(context.new_page(), url)
    for width in (320, PHONE[0]):
        demo.page.set_viewport_size({"width": width, "height": PHONE[1]})
        demo.open()
        demo.press("left", "approval.requested")
        wide = demo.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0
    assert violations(demo.page) == []
    take_picture(demo.page, "demo-phone")
    assert demo.wrong == []
    context.close()
