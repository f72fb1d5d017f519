"""The API of the demo page: what one of its people does notifies the other, and the page shows the result."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import pytest
import pytest_asyncio

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import DEVELOPMENT_URL, Db, bearer, development_app, transport_to
from tocsin.dev.pages.demo import DemoPerson, event_of, fill_names, known_stories
from tocsin.dev.seed import seed
from tocsin.engine.store.catalogue_file import default_catalogue
from tocsin.engine.store.database import Database
from tocsin.settings import Settings

CAST = (DemoPerson("alice", "Alice", None), DemoPerson("bob", "Bob", None))
NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
XSS = "<script>alert(1)</script>"


@pytest_asyncio.fixture
async def page(database: Database, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The service as `tocsin up` starts it."""
    transport = transport_to(development_app(settings, database))
    async with httpx.AsyncClient(transport=transport, base_url=DEVELOPMENT_URL) as client:
        yield client


def test_every_event_type_has_words_and_no_others_have() -> None:
    stories = known_stories()
    assert set(stories) == set(default_catalogue().event_types)
    for event_type, story in stories.items():
        event = event_of(story, event_type, *CAST, NOW)
        for text in (fill_names(story.button, *CAST), event.title, event.body):
            assert text
            assert "{" not in text
        assert event.initiator == "alice"
        assert event.recipients == ([] if event.topic else ["bob"])
        assert "{" not in str(event.metadata.values())


def test_a_time_of_the_story_is_from_now_on() -> None:
    event = event_of(known_stories()["event.invited"], "event.invited", *CAST, NOW)
    assert event.metadata["starts_at"] == "2026-12-01T09:00:00Z"


async def test_both_doors_lead_to_the_page(page: httpx.AsyncClient, dsn: str) -> None:
    seed(dsn, phones=False)
    for path in ("/", "/dev"):
        response = await page.get(path)
        assert (response.status_code, response.headers["location"]) == (303, "dev/")
    response = await page.get("/dev/")
    assert response.status_code == 200
    assert "unsafe" not in response.headers["content-security-policy"]
    assert response.text.count('class="act"') == 2 * len(default_catalogue().event_types)


async def test_what_one_does_notifies_the_other(page: httpx.AsyncClient, db: Db, dsn: str) -> None:
    seed(dsn, phones=False)
    before = db.execute("select tocsin.unread_count('alice')").fetchone()
    done = {"event_type": "approval.requested", "me": "alice", "you": "bob"}
    response = await page.post("/dev/events/", json=done)
    assert response.status_code == 202
    result = response.json()
    assert result["title"] == "Alice asks for your approval"
    decisions = {each["channel"]: each["decision"] for each in result["channels"]}
    assert decisions == {"in_app": "on", "email": "on", "push": "off"}
    row = db.execute(
        "select recipient_id from tocsin.notification where notification_id = %s",
        (result["notification_id"],),
    ).fetchone()
    assert row == ("bob",)
    assert db.execute("select tocsin.unread_count('alice')").fetchone() == before


async def test_a_person_that_does_not_follow_the_thread_is_not_notified(
    page: httpx.AsyncClient, db: Db, dsn: str
) -> None:
    seed(dsn, phones=False)
    reply = {"event_type": "forum.new_reply", "me": "bob", "you": "alice"}
    assert (await page.post("/dev/events/", json=reply)).json()["notification_id"] is not None
    db.execute("select tocsin.unsubscribe('alice', 'forum.thread:7')")
    result = (await page.post("/dev/events/", json=reply)).json()
    assert (result["notification_id"], result["channels"]) == (None, [])
    assert result["topic"] == "forum.thread:7"


@pytest.mark.parametrize(
    ("changed", "status"),
    [({"you": "nobody"}, 422), ({"event_type": "forum.x"}, 404), ({"more": 1}, 422)],
)
async def test_nothing_else_can_be_reported(
    page: httpx.AsyncClient, dsn: str, changed: dict[str, object], status: int
) -> None:
    seed(dsn, phones=False)
    done = {"event_type": "forum.mention", "me": "alice", "you": "bob"}
    assert (await page.post("/dev/events/", json=done | changed)).status_code == status
    foreign = {"Sec-Fetch-Site": "cross-site"}
    for response in (
        await page.post("/dev/events/", json=done, headers=foreign),
        await page.get("/dev/token/?person=alice", headers=foreign),
    ):
        assert response.status_code == 422


async def test_a_token_is_of_whoever_sits_there(page: httpx.AsyncClient) -> None:
    token = (await page.get("/dev/token/?person=alice")).json()["token"]
    response = await page.get("/api/me/", headers=bearer(token))
    assert response.json()["recipient"] == "alice"


@pytest.mark.parametrize(
    ("path", "leads"), [("/dev/sign-in", "./../settings/"), ("/dev/sign-in/", "../../settings/")]
)
async def test_the_settings_page_is_one_click_away(
    page: httpx.AsyncClient, path: str, leads: str
) -> None:
    response = await page.get(f"{path}?person=alice")
    assert (response.status_code, response.headers["location"]) == (303, leads)
    assert "HttpOnly" in response.headers["set-cookie"]
    assert (await page.get("/settings/")).status_code == 200


async def test_without_people_it_shows_the_command_that_adds_them(
    page: httpx.AsyncClient, db: Db
) -> None:
    assert "There are no two people yet" in (await page.get("/dev/")).text
    db.execute("select tocsin.upsert_recipient('one', name => %s)", (XSS,))
    db.execute("select tocsin.upsert_recipient('two', name => ' ')")
    shown = (await page.get("/dev/?left=two&right=two")).text
    assert XSS not in shown
    assert 'data-person="two"' in shown


async def test_no_file_but_the_pages_own_is_served(page: httpx.AsyncClient) -> None:
    assert (await page.get("/dev/assets/demo.js")).status_code == 200
    for name in ("nothing.js", "..%2Fdemo.py", "demo.html"):
        assert (await page.get(f"/dev/assets/{name}")).status_code == 404
