"""The page to which the buttons of mails link: looking changes nothing, one press counts, in words."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import KEY, LINKS, URL, Db, NewNotification
from tocsin.engine.mail.links import Links

NOW = datetime.now(UTC)
CLICK = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-User": "?1"}
ACTIONS = [
    {"key": "accept", "label": "Accept <it>", "style": "primary"},
    {"key": "decline", "label": "Decline", "url": "https://shop.example/why", "style": "danger"},
]
Invite = Callable[..., tuple[int, str]]


@pytest.fixture
def invite(new_notification: NewNotification) -> Invite:
    """Notifies Alice, with buttons; returns the notification and the address of its page."""

    def _invite(**named: Any) -> tuple[int, str]:
        arguments = {"title": "Will you <come>?", "body": "On Friday.", "actions": ACTIONS, **named}
        notification = new_notification(**arguments)
        return notification, LINKS.choose(notification, "alice", NOW)

    return _invite


def chosen(db: Db) -> list[Any]:
    return [row[0] for row in db.execute("select key from tocsin.actions_since()").fetchall()]


def buttons(page: httpx.Response) -> list[tuple[str, str]]:
    """The key and the label of each form's button, in their order."""
    return re.findall(
        r'<form method="post"[^>]*>\s*<input type="hidden" name="key" value="([\w-]+)">'
        r"\s*<button[^>]*>([^<]*)</button>\s*</form>",
        page.text,
    )


async def test_looking_at_the_page_presses_nothing(
    anyone: httpx.AsyncClient, alice: httpx.AsyncClient, invite: Invite, db: Db
) -> None:
    _, link = invite()
    for method in ("GET", "HEAD", "GET"):
        response = await anyone.request(method, f"{link}?key=accept", headers=CLICK)
        assert response.status_code == 200
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-robots-tag"] == "noindex, nofollow"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "form-action 'self'" in response.headers["content-security-policy"]
        assert "<script" not in response.text
    assert chosen(db) == []
    assert (await alice.get("/api/notifications/unread-count/")).json()["count"] == 1


async def test_the_page_shows_what_is_asked_and_the_button_of_the_mail_first(
    anyone: httpx.AsyncClient, invite: Invite
) -> None:
    _, link = invite()
    page = await anyone.get(link)
    assert "Will you &lt;come&gt;?" in page.text
    assert "On Friday." in page.text
    assert "Nothing is chosen yet." in page.text
    assert buttons(page) == [("accept", "Accept &lt;it&gt;"), ("decline", "Decline")]
    picked = await anyone.get(f"{link}?key=decline")
    assert [key for key, _ in buttons(picked)] == ["decline", "accept"]
    assert "Press “Decline” to choose it." in picked.text
    assert buttons(await anyone.get(f"{link}?key=nonsense")) == buttons(page)


async def test_a_press_is_saved_and_the_second_one_is_the_same(
    anyone: httpx.AsyncClient, alice: httpx.AsyncClient, invite: Invite, db: Db
) -> None:
    notification, link = invite()
    first = await anyone.post(f"{link}?key=decline", data={"key": "decline"})
    assert first.status_code == 200
    assert "You chose “Decline”" in first.text
    assert 'href="https://shop.example/why"' in first.text
    assert not buttons(first)
    again = await anyone.post(link, data={"key": "decline"})
    assert (again.status_code, again.text) == (200, first.text)
    assert (await anyone.get(link)).text == first.text
    other = await anyone.post(link, data={"key": "accept"})
    assert other.status_code == 409
    assert "You had already chosen “Decline”" in other.text
    assert "“Accept &lt;it&gt;” was not saved" in other.text
    assert chosen(db) == ["decline"]
    found = (await alice.get(f"/api/notifications/{notification}/")).json()
    assert (found["acted"]["key"], found["read"]) == ("decline", True)


async def test_the_press_of_another_device_is_shown(
    anyone: httpx.AsyncClient, alice: httpx.AsyncClient, invite: Invite
) -> None:
    notification, link = invite()
    await alice.post(f"/api/notifications/{notification}/actions/accept/")
    page = await anyone.get(f"{link}?key=decline")
    assert "You chose “Accept &lt;it&gt;”" in page.text
    assert not buttons(page)


async def test_what_is_over_is_shown_in_words(
    anyone: httpx.AsyncClient, invite: Invite, db: Db
) -> None:
    cancelled, cancelled_link = invite()
    db.execute(
        "select tocsin.cancel(event_id) from tocsin.notification where notification_id = %s",
        (cancelled,),
    )
    _, replaced_link = invite(subject="s", replaces=True)
    invite(subject="s", replaces=True)
    expired, expired_link = invite()
    db.execute(
        "update tocsin.event set expires_at = now() - interval '1 hour' where event_id ="
        " (select event_id from tocsin.notification where notification_id = %s)",
        (expired,),
    )
    words = {
        cancelled_link: "It was cancelled.",
        replaced_link: "A newer notification has replaced this one.",
        expired_link: "The time in which you could choose is over.",
    }
    for link, sentence in words.items():
        page = await anyone.get(link)
        assert (page.status_code, buttons(page)) == (200, [])
        pressed = await anyone.post(link, data={"key": "accept"})
        assert pressed.status_code == 409
        for each in (page, pressed):
            assert "There is nothing left to choose" in each.text
            assert sentence in each.text
    assert chosen(db) == []


async def test_a_bad_link_or_that_of_an_erased_person_is_a_page(
    anyone: httpx.AsyncClient, invite: Invite, db: Db
) -> None:
    notification, link = invite()
    old = LINKS.choose(notification, "alice", NOW - timedelta(days=366))
    forged = Links(URL, b"x" * 32).choose(notification, "alice", NOW)
    foreign = LINKS.choose(notification, "bob", NOW)
    click = LINKS.open(notification, "alice", NOW).replace("/c/", "/a/")
    db.execute("select tocsin.erase_recipient('alice')")
    for each in (old, forged, foreign, click, link, f"{URL}/a/nonsense/"):
        for method in ("GET", "POST"):
            response = await anyone.request(method, each, data={"key": "accept"})
            assert response.status_code == 404
            assert "does not work any more" in response.text


@pytest.mark.parametrize("body", [{}, {"key": "maybe"}, {"key": ""}])
async def test_an_unknown_key_is_refused_with_those_that_there_are(
    anyone: httpx.AsyncClient, invite: Invite, db: Db, body: dict[str, str]
) -> None:
    _, link = invite()
    response = await anyone.post(link, data=body)
    assert response.status_code == 422
    assert response.json()["errors"] == [{"field": "key", "message": "Use one of accept, decline."}]
    assert chosen(db) == []


async def test_the_page_is_in_the_language_of_its_person(
    anyone: httpx.AsyncClient, invite: Invite, db: Db
) -> None:
    db.execute("select tocsin.upsert_recipient('alice', locale => 'de-AT')")
    _, link = invite(content={"translations": {"de": {"title": "Kommen Sie?"}}})
    page = (await anyone.get(f"{link}?key=decline")).text
    assert '<html lang="de' in page
    assert "Kommen Sie?" in page
    assert "Noch ist nichts gewählt." in page
    done = (await anyone.post(link, data={"key": "decline"})).text
    assert "Sie haben „Decline“ gewählt" in done


async def test_fifty_presses_on_three_devices_are_one(
    anyone: httpx.AsyncClient, alice: httpx.AsyncClient, invite: Invite, db: Db
) -> None:
    notification, link = invite()

    async def press(number: int) -> tuple[str, int]:
        key = ("accept", "decline")[number % 2]
        if number % 3:
            path = f"/api/notifications/{notification}/actions/{key}/"
            return key, (await alice.post(path)).status_code
        return key, (await anyone.post(link, data={"key": key})).status_code

    pressed = await asyncio.gather(*map(press, range(50)))
    (counted,) = chosen(db)
    assert {status for key, status in pressed if key == counted} == {200}
    assert {status for key, status in pressed if key != counted} == {409}


def test_a_link_is_of_this_service_alone() -> None:
    assert Links(URL, KEY).choose(1, "alice", NOW).startswith(f"{URL}/a/")
