"""The settings page where responses arrive late, or after what came later, and where a person acts before that."""

from __future__ import annotations

from host_site import *  # noqa: F403 - fixtures
from host_site import first_held, until
from playwright.sync_api import APIResponse, Locator, Route, expect
from preferences_page import *  # noqa: F403 - fixtures
from preferences_page import Settings, fill


class LateResponse:
    """Keeps the response to the next GET of a path, as the service made it at that time, until it is delivered."""

    def __init__(self, settings: Settings, path: str) -> None:
        self._settings = settings
        self._kept: list[tuple[Route, APIResponse]] = []
        settings.page.route(path, self._keep)

    def wait(self) -> None:
        until(lambda: self._kept, lambda: "nothing was requested", page=self._settings.page)

    def deliver(self) -> None:
        route, response = self._kept[0]
        with self._settings.page.expect_response(route.request.url):
            route.fulfill(response=response)
        self._settings.page.wait_for_timeout(50)  # the page uses it

    def _keep(self, route: Route) -> None:
        if route.request.method == "GET" and not self._kept:
            self._kept.append((route, route.fetch()))
        else:
            route.continue_()


def look(settings: Settings, path: str) -> LateResponse:
    """Lets the page load again what other tabs may have changed; the response of this path is late."""
    late = LateResponse(settings, path)

    def looked() -> object:
        settings.page.evaluate("dispatchEvent(new Event('focus'))")
        settings.page.wait_for_timeout(100)
        return late._kept

    until(looked, lambda: "the page did not look")
    return late


def expect_saved(settings: Settings) -> None:
    expect(settings.page.locator(".frame")).not_to_have_attribute("data-saving", "")


def test_a_change_that_was_saved_meanwhile_is_not_taken_back_by_an_older_response(
    settings: Settings,
) -> None:
    settings.open()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route) if route.request.method == "PATCH" else route.fallback()

    late = look(settings, "**/api/digest-preferences/")
    late.deliver()  # the page has looked once, so that the next look is one of this test
    settings.page.route("**/api/notification-preferences/", hold)
    box = settings.switch("Inbox", "Bulletins")
    box.click()
    saving = first_held(settings.page, held)
    late = look(settings, "**/api/notification-preferences/")
    settings.page.unroute("**/api/notification-preferences/", hold)
    saving.continue_()
    expect(settings.notice()).to_have_text("Inbox is off for Bulletins.")
    late.deliver()
    expect(box).not_to_be_checked()


def test_a_device_that_was_removed_meanwhile_stays_away(settings: Settings) -> None:
    fill(settings)
    settings.open()
    late = look(settings, "**/api/push-tokens/")
    device = settings.page.locator("#devices li").filter(has_text="Ada's iPhone")
    device.get_by_role("button", name="Remove").click()
    device.locator("button.danger").click()
    expect(device).to_have_count(0)
    late.deliver()
    expect(device).to_have_count(0)


def test_a_topic_that_was_unfollowed_meanwhile_stays_away(settings: Settings) -> None:
    fill(settings)
    settings.open()
    late = look(settings, "**/api/subscriptions/?*")
    topics = settings.page.locator("#topics li")
    settings.page.get_by_role("button", name="Unmute").click()
    expect(topics).to_have_count(2)
    late.deliver()
    expect(topics).to_have_count(2)


def test_the_last_choice_for_a_topic_stays_while_an_earlier_one_is_saved(
    settings: Settings,
) -> None:
    settings.request("POST", "subscriptions/", {"topic": "forum.thread:1"})
    settings.open()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    settings.page.route("**/api/subscriptions/", hold)
    level = settings.page.locator("#topics select")
    level.select_option("mentions")
    first = first_held(settings.page, held)
    level.select_option("muted")
    first.continue_()
    until(lambda: len(held) == 2, lambda: "the second was not sent", page=settings.page)
    expect(level).to_have_value("muted")
    held[1].continue_()
    expect_saved(settings)
    expect(level).to_have_value("muted")


def test_a_time_that_was_just_typed_is_saved_although_another_choice_follows_at_once(
    settings: Settings,
) -> None:
    settings.request("PATCH", "digest-preferences/", {"frequency": "daily"})
    settings.open()
    digest = settings.page.locator("#digest")
    at_once(
        settings.page.locator("#digest input[type=time]"), "06:30", digest.get_by_label("Weekly")
    )

    def stored() -> tuple[str, str]:
        found = settings.request("GET", "digest-preferences/")
        return found["frequency"], found["send_at"]

    until(lambda: stored() == ("weekly", "06:30"), lambda: str(stored()))


def at_once(time: Locator, value: str, following: Locator) -> None:
    """Types a time and presses something else before the page saves the time."""
    box = following.element_handle()
    time.evaluate(
        """(time, [value, following]) => {
          time.focus();
          time.value = value;
          time.dispatchEvent(new Event('input', { bubbles: true }));
          following.focus();
          following.click();
        }""",
        [value, box],
    )


def test_quiet_hours_that_are_turned_off_at_once_after_a_time_was_typed_stay_off(
    settings: Settings,
) -> None:
    settings.request("PUT", "quiet-hours/", {"starts": "22:00", "ends": "07:00"})
    settings.open()
    quiet = settings.page.locator("#quiet")
    at_once(quiet.locator("input[type=time]").first, "21:00", quiet.locator("input.switch"))
    expect(settings.notice()).to_have_text("There are no quiet hours.")
    settings.page.wait_for_timeout(1000)  # the page saves a time half a second after it was typed
    expect_saved(settings)
    assert settings.request("GET", "quiet-hours/")["starts"] is None


def test_what_changed_elsewhere_soon_after_a_look_is_shown_too(settings: Settings) -> None:
    settings.open()
    settings.page.evaluate("dispatchEvent(new Event('focus'))")
    settings.request("POST", "subscriptions/", {"topic": "forum.thread:1"})
    settings.page.evaluate("dispatchEvent(new Event('focus'))")
    expect(settings.page.locator("#topics li")).to_have_count(1)
