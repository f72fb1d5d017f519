"""Web Push in Chromium: the bell asks by a gesture only, and the service worker shows, opens and closes.

The browser has no push service here. So its subscription is one of `tocsin.testing.web_push`, and what this decrypts is
given to the service worker by the browser's debugger, as its push service would. A headless browser has no notification
to click, so the worker gets the event of a click.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bell_page import Bell, open_bell, with_token
from front import POLICY, HostPage
from host_site import *  # noqa: F403 - fixtures
from host_site import HostSite, first_held, start_process, take_picture, until, violations
from playwright.sync_api import BrowserContext, CDPSession, Page, Route, Worker, expect

from tests.support.services import LONGEST
from tocsin.dev.supervisor import ParentPipe
from tocsin.settings.keys import VapidKey
from tocsin.testing.web_push import BrowserSubscription, PushService

WITH_WORKER = POLICY.replace("trusted-types 'none'", "trusted-types tocsin-web-push")
OFFER = "Notify me in this browser"

# What Chromium's own push service would do: the subscription is the given one, and is kept.
_STAND_IN = """
const given = {json}, kept = () => localStorage.getItem("key");
const decoded = (key) => Uint8Array.from(atob(key.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
const made = () => ({{
  endpoint: given.endpoint,
  options: {{ applicationServerKey: decoded(kept()).buffer }},
  toJSON: () => given,
  unsubscribe: async () => (localStorage.removeItem("key"), true),
}});
PushManager.prototype.getSubscription = async () => (kept() ? made() : null);
PushManager.prototype.subscribe = async ({{ userVisibleOnly, applicationServerKey }}) => {{
  if (!userVisibleOnly) throw new Error("a push has to show something");
  localStorage.setItem("key", applicationServerKey);
  return made();
}};
window.asked = 0;
const ask = Notification.requestPermission.bind(Notification);
Notification.requestPermission = () => (window.asked++, ask());
"""

# With the lock of the pages and the worker: Chromium deletes from its list what is shown while another call lists it.
_SHOWN = """async () => {
  const all = await navigator.serviceWorker.getRegistrations();
  const list = async () => (await Promise.all(all.map((each) => each.getNotifications()))).flat();
  const shown = await navigator.locks.request("tocsin-notifications", list);
  return shown.map(({ title, body, tag, data }) => ({ title, body, tag, data }));
}"""

_START = """async () => {
  for (const { active } of await navigator.serviceWorker.getRegistrations()) active?.postMessage("");
}"""

# A click on the notification that is shown, or on its button; where it leads is recorded in place of a window.
_CLICK = """async (action) => {
  const opened = [];
  self.clients.openWindow = async (url) => opened.push(url);
  const [notification] = await self.registration.getNotifications();
  self.dispatchEvent(new NotificationEvent("notificationclick", { notification, action }));
  return opened;
}"""


# The worker takes its time to show a push, and keeps when.
_SHOW_SLOWLY = """() => {
  const show = self.registration.showNotification.bind(self.registration);
  self.showing = {};
  self.registration.showNotification = async (...given) => {
    self.showing.start = Date.now();
    await new Promise((done) => setTimeout(done, 500));
    await show(...given);
    self.showing.end = Date.now();
  };
}"""

# The page keeps when it lists notifications.
_RECORD_LISTS = """() => {
  const list = ServiceWorkerRegistration.prototype.getNotifications;
  window.lists = [];
  ServiceWorkerRegistration.prototype.getNotifications = function (...given) {
    window.lists.push(Date.now());
    return list.apply(this, given);
  };
}"""

_COUNT = """(count) => {
  const detail = { count, unseen: count };
  bell.dispatchEvent(new CustomEvent("tocsin:count", { bubbles: true, composed: true, detail }));
}"""


class Push:
    """The push service in a thread of its own."""

    def __init__(self, service: PushService) -> None:
        self.service = service

    def subscribe(self) -> BrowserSubscription:
        return self.service.subscribe()

    def next_message(self, number: int) -> str:
        """Returns a message in clear, the first being 0."""
        until(lambda: len(self.service.received) > number, lambda: "no push arrived")
        message = self.service.received[number].message
        assert message is not None
        return message.decode()


@contextmanager
def _running(service: PushService) -> Iterator[None]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(service.start(), loop).result(LONGEST)
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(service.stop(), loop).result(LONGEST)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(LONGEST)
        loop.close()


@pytest.fixture
def push(site: HostSite, tmp_path: Path) -> Iterator[Push]:
    """A push service that accepts our key only, and a worker that sends to it."""
    key = VapidKey(site.settings["VAPID_KEY"], site.settings["VAPID_SUBJECT"])
    service = PushService(vapid=key.public)
    parent_pipe, log = ParentPipe(), tmp_path / "worker.log"
    with _running(service):
        worker = start_process("worker", site.settings, log, parent_pipe)
        try:
            until(lambda: '"working"' in log.read_text(), log.read_text, seconds=LONGEST)
            yield Push(service)
        finally:
            worker.terminate()
            worker.wait(LONGEST)
            parent_pipe.close()


class Chrome:
    """A browser profile that may show notifications, with the debugger that delivers pushes."""

    def __init__(
        self, context: BrowserContext, origin: str, subscription: BrowserSubscription
    ) -> None:
        self._context = context
        self._origin = origin
        context.grant_permissions(["notifications"], origin=origin)
        context.add_init_script(_STAND_IN.format(json=json.dumps(subscription.json)))
        self._registrations: list[dict[str, Any]] = []

    def debugger(self) -> CDPSession:
        """Opens a page of no site, so that none of the host has to be open."""
        session = self._context.new_cdp_session(self._context.new_page())
        session.on("ServiceWorker.workerRegistrationUpdated", self._updated)
        session.send("ServiceWorker.enable")
        return session

    def _updated(self, event: dict[str, Any]) -> None:
        self._registrations += event["registrations"]

    def deliver(self, session: CDPSession, page: Page, message: str) -> None:
        """Delivers a message to the service worker, as the browser's push service would."""
        # an event of the debugger, which Playwright passes on while it waits
        until(lambda: self._registrations, lambda: "no service worker", page=page)
        number = self._registrations[-1]["registrationId"]
        session.send(
            "ServiceWorker.deliverPushMessage",
            {"origin": self._origin, "registrationId": number, "data": message},
        )


def shown(page: Page) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.evaluate(_SHOWN)
    return found


def until_shown(page: Page, titles: list[str]) -> None:
    """Waits until exactly these are shown; the browser lists them in any order."""
    until(
        lambda: sorted(each["title"] for each in shown(page)) == sorted(titles),
        lambda: f"{shown(page)} is shown",
    )


def turn_on(bell: Bell) -> None:
    bell.open()
    bell.panel.get_by_role("button", name=OFFER).click()
    expect(bell.panel.get_by_text("You will be notified in this browser")).to_be_visible()


def worker_of(page: Page) -> Worker:
    """Returns the service worker, started again where the browser stopped it: it does that after half a minute."""
    found = page.context
    until(lambda: found.service_workers or page.evaluate(_START), lambda: "no worker is running")
    return found.service_workers[0]


def test_a_push_arrives_while_the_page_is_closed_and_its_click_marks_it_read(
    site: HostSite, context: BrowserContext, push: Push
) -> None:
    person, subscription = site.person(), push.subscribe()
    chrome = Chrome(context, site.front.origin, subscription)
    site.sign_in(context, person)
    bell = open_bell(site, context, attributes="web-push", policy=WITH_WORKER)
    bell.open()
    expect(bell.panel.get_by_role("button", name=OFFER)).to_be_visible()
    assert bell.page.evaluate("window.asked") == 0
    assert violations(bell.page) == []
    take_picture(bell.page, "web-push-offer")
    bell.panel.get_by_role("button", name=OFFER).click()
    expect(bell.panel.get_by_text("You will be notified in this browser")).to_be_visible()
    assert bell.page.evaluate("window.asked") == 1
    (device,) = site.request(person, "GET", "push-tokens/")["results"]
    assert (device["platform"], device["token"]) == ("web", subscription.endpoint[-6:])
    assert device["label"].startswith("Chrome on ")

    debugger = chrome.debugger()
    bell.page.close()
    page_of_it = f"{site.front.origin}/messages/7"
    id_ = site.notify(
        person, "Bob: hello", event_type="messages.new_dm", action_url=page_of_it, body="Hi!"
    )
    message = push.next_message(0)
    elsewhere = context.pages[0]
    chrome.deliver(debugger, elsewhere, message)
    page = context.new_page()
    page.goto(f"{site.front.origin}/other.html")  # any page of the host, without a bell
    until_shown(page, ["Bob: hello"])
    (notification,) = shown(page)
    assert (notification["body"], notification["data"]["notification_id"]) == ("Hi!", str(id_))

    (url,) = worker_of(page).evaluate(_CLICK, "")
    until_shown(page, [])
    page.goto(url)
    expect(page).to_have_title("Landed")
    assert page.url == page_of_it
    assert site.request(person, "GET", f"notifications/{id_}/")["read"] is True


def test_it_is_offered_in_a_panel_that_was_opened_before_its_module_came(
    site: HostSite, context: BrowserContext
) -> None:
    Chrome(context, site.front.origin, PushService().subscribe())
    site.sign_in(context, site.person())
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    context.route("**/assets/tocsin-web-push.js", hold)
    bell = open_bell(site, context, attributes="web-push", policy=WITH_WORKER)
    bell.open()
    first_held(bell.page, held).continue_()
    expect(bell.panel.get_by_role("button", name=OFFER)).to_be_visible()


def test_it_is_offered_to_the_person_whose_token_the_page_sets_later(
    site: HostSite, context: BrowserContext
) -> None:
    Chrome(context, site.front.other_origin, PushService().subscribe())
    bell = open_bell(site, context, attributes="web-push", policy=WITH_WORKER, elsewhere=True)
    bell.page.wait_for_load_state("networkidle")  # the module that offers it is loaded
    bell.page.evaluate("(token) => { bell.token = token }", site.token(site.person()))
    bell.expect_count(0)
    bell.open()
    expect(bell.panel.get_by_role("button", name=OFFER)).to_be_visible()


def test_a_count_that_is_older_than_what_is_shown_closes_nothing(
    site: HostSite, context: BrowserContext, push: Push
) -> None:
    person = site.person()
    chrome = Chrome(context, site.front.origin, push.subscribe())
    site.sign_in(context, person)
    bell = open_bell(site, context, attributes="web-push", policy=WITH_WORKER)
    turn_on(bell)
    site.notify(person, "Unread", event_type="messages.new_dm")
    chrome.deliver(chrome.debugger(), bell.page, push.next_message(0))
    until_shown(bell.page, ["Unread"])
    bell.page.evaluate(_COUNT, 0)
    bell.page.wait_for_timeout(500)  # in which it would be closed
    until_shown(bell.page, ["Unread"])


def test_a_page_lists_no_notifications_while_the_worker_shows_one(
    site: HostSite, context: BrowserContext, push: Push
) -> None:
    person = site.person()
    chrome = Chrome(context, site.front.origin, push.subscribe())
    site.sign_in(context, person)
    bell = open_bell(site, context, attributes="web-push", policy=WITH_WORKER)
    turn_on(bell)
    site.notify(person, "Slow", event_type="messages.new_dm")
    bell.expect_count(1)
    bell.page.evaluate(_RECORD_LISTS)
    worker = worker_of(bell.page)
    worker.evaluate(_SHOW_SLOWLY)
    chrome.deliver(chrome.debugger(), bell.page, push.next_message(0))
    until(lambda: worker.evaluate("self.showing.start"), lambda: "the worker shows nothing")
    bell.page.evaluate(_COUNT, 1)
    until(lambda: worker.evaluate("self.showing.end"), lambda: "nothing was shown")
    until(lambda: bell.page.evaluate("lists.length"), lambda: "the page lists nothing")
    start, end = (worker.evaluate(f"self.showing.{name}") for name in ("start", "end"))
    lists = bell.page.evaluate("lists")
    assert [each for each in lists if start < each < end] == []
    until_shown(bell.page, ["Slow"])


def test_what_is_read_elsewhere_leaves_the_screen(
    site: HostSite, context: BrowserContext, push: Push
) -> None:
    person = site.person()
    chrome = Chrome(context, site.front.origin, push.subscribe())
    site.sign_in(context, person)
    bell = open_bell(site, context, attributes="web-push", policy=WITH_WORKER)
    turn_on(bell)
    debugger = chrome.debugger()
    ids = []
    for number, title in enumerate(["First", "Second"]):
        ids.append(site.notify(person, title, event_type="messages.new_dm"))
        chrome.deliver(debugger, bell.page, push.next_message(number))
    until_shown(bell.page, ["First", "Second"])
    site.request(person, "PATCH", f"notifications/{ids[0]}/read/")  # on another device
    until_shown(bell.page, ["Second"])
    bell.page.close()
    site.request(person, "PATCH", f"notifications/{ids[1]}/read/")
    site.notify(person, "Third", event_type="messages.new_dm")
    page = context.new_page()
    page.goto(f"{site.front.origin}/other.html")
    chrome.deliver(debugger, page, push.next_message(2))
    until_shown(page, ["Third"])  # the only unread one


def test_a_button_leads_to_the_page_that_asks(
    site: HostSite, context: BrowserContext, push: Push
) -> None:
    person = site.person()
    chrome = Chrome(context, site.front.origin, push.subscribe())
    site.sign_in(context, person)
    bell = open_bell(site, context, attributes="web-push", policy=WITH_WORKER)
    turn_on(bell)
    debugger = chrome.debugger()
    actions = [{"key": "accept", "label": "Accept"}, {"key": "decline", "label": "Decline"}]
    id_ = site.notify(person, "Come?", event_type="messages.new_dm", actions=actions)
    chrome.deliver(debugger, bell.page, push.next_message(0))
    until_shown(bell.page, ["Come?"])
    (url,) = worker_of(bell.page).evaluate(_CLICK, "decline")
    page = context.new_page()
    page.goto(url)
    assert site.request(person, "GET", f"notifications/{id_}/")["acted"] is None
    page.get_by_role("button", name="Decline").click()
    until(
        lambda: (
            (site.request(person, "GET", f"notifications/{id_}/")["acted"] or {}).get("key")
            == "decline"
        ),
        lambda: "the button was not pressed",
    )


def test_a_host_of_another_origin_imports_the_worker(
    site: HostSite, context: BrowserContext, push: Push
) -> None:
    person = site.person()
    chrome = Chrome(context, site.front.other_origin, push.subscribe())
    script = f"importScripts('{site.url}/assets/tocsin-sw.js');"
    site.front.show("tocsin-sw", HostPage("", script))
    bell = open_bell(
        site,
        context,
        attributes="web-push",
        policy=WITH_WORKER,
        elsewhere=True,
        script=with_token(site.token(person)),
    )
    turn_on(bell)
    debugger = chrome.debugger()
    site.notify(person, "From elsewhere", event_type="messages.new_dm")
    chrome.deliver(debugger, bell.page, push.next_message(0))
    until_shown(bell.page, ["From elsewhere"])


def test_who_has_it_is_not_asked_again_and_another_person_is(
    site: HostSite, context: BrowserContext, push: Push
) -> None:
    alice, bob = site.person(), site.person()
    Chrome(context, site.front.origin, push.subscribe())
    site.sign_in(context, alice)
    turn_on(open_bell(site, context, attributes="web-push", policy=WITH_WORKER))
    again = open_bell(site, context, attributes="web-push", policy=WITH_WORKER)
    with again.page.expect_response("**/push-tokens/"):
        again.open()
    expect(again.panel.get_by_role("button", name=OFFER)).to_have_count(0)
    site.sign_in(context, bob)
    turn_on(open_bell(site, context, attributes="web-push", policy=WITH_WORKER))
    assert site.request(alice, "GET", "push-tokens/")["results"] == []
    assert len(site.request(bob, "GET", "push-tokens/")["results"]) == 1


def test_without_the_attribute_or_the_permission_nothing_is_offered(
    site: HostSite, context: BrowserContext
) -> None:
    person = site.person()
    site.sign_in(context, person)
    plain = open_bell(site, context)
    plain.open()
    assert "tocsin-web-push" not in plain.page.evaluate(
        "performance.getEntriesByType('resource').map(({ name }) => name).join()"
    )
    context.add_init_script(
        "Object.defineProperty(Notification, 'permission', { value: 'denied' });"
    )
    refused = open_bell(site, context, attributes="web-push", policy=WITH_WORKER)
    refused.open()
    expect(refused.panel.get_by_text("Nothing here yet")).to_be_visible()
    expect(refused.panel.get_by_role("button", name=OFFER)).to_have_count(0)
