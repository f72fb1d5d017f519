"""Following by REST: a person's own topics; an app's events for them; why somebody was (not) notified."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tocsin import notify_topic, subscribe

SUBSCRIPTIONS = "/api/subscriptions/"
THREAD = "forum.thread:42"


async def follow(person: httpx.AsyncClient, topic: str = THREAD, **named: Any) -> dict[str, Any]:
    response = await person.post(SUBSCRIPTIONS, json={"topic": topic, **named})
    assert response.status_code in (200, 201), response.text
    return dict(response.json())


async def listed(person: httpx.AsyncClient, **query: Any) -> list[str]:
    response = await person.get(SUBSCRIPTIONS, params=query)
    assert response.status_code == 200, response.text
    return [each["topic"] for each in response.json()["results"]]


def event(**named: Any) -> dict[str, Any]:
    return {"event_type": "forum.new_reply", "topic": THREAD, "title": "New reply", **named}


async def sentences(person: httpx.AsyncClient, db: Db, recipient: str = "alice") -> dict[str, str]:
    """Returns the sentences of `why` on a person's last notification, by channel."""
    row = db.execute(
        "select max(notification_id) from tocsin.notification where recipient_id = %s", (recipient,)
    ).fetchone()
    assert row is not None
    response = await person.get(f"/api/notifications/{row[0]}/why/")
    return {each["channel"]: each["sentence"] for each in response.json()["channels"]}


async def test_following_is_new_once_and_a_level_can_change(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    assert await listed(alice) == []
    first = await alice.post(SUBSCRIPTIONS, json={"topic": THREAD})
    again = await alice.post(SUBSCRIPTIONS.rstrip("/"), json={"topic": THREAD, "level": "mentions"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert (first.json()["level"], again.json()["level"]) == ("all", "mentions")
    assert set(first.json()) == {"topic", "level", "because", "created_at", "latest"}
    assert (await alice.get(SUBSCRIPTIONS)).json()["results"] == [again.json()]
    assert await listed(bob) == []


async def test_a_first_write_creates_the_person(alice: httpx.AsyncClient, db: Db) -> None:
    await follow(alice)
    assert db.execute("select recipient_id from tocsin.recipient").fetchall() == [("alice",)]
    assert (await alice.post(SUBSCRIPTIONS, json={"topic": "?"})).status_code == 422


@pytest.mark.parametrize("ending", ["", "/"])
@pytest.mark.parametrize(
    ("topic", "path"),
    [
        (THREAD, THREAD),
        (THREAD, quote(THREAD, safe="")),
        ("org/chapter:7/thread-9", "org/chapter:7/thread-9"),
        ("org/chapter:7/thread-9", quote("org/chapter:7/thread-9", safe="")),
        ("org/chapter", "org%2fchapter"),
        ("https://example.org/a", "https://example.org/a"),
        ("a//b", "a%2F%2Fb"),
        ("a/", "a%2F"),
        ("/", "%2F"),
        ("x" * 200, "x" * 200),
    ],
)
async def test_a_topic_in_a_path_is_taken_encoded_or_as_it_is(
    alice: httpx.AsyncClient, topic: str, path: str, ending: str
) -> None:
    await follow(alice, topic)
    assert await listed(alice, topic=topic) == [topic]
    response = await alice.delete(f"{SUBSCRIPTIONS}{path}{ending}")
    assert response.status_code == 204, response.text
    assert await listed(alice, topic=topic) == []


async def test_only_ones_own_can_be_followed_no_more(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, machine: httpx.AsyncClient
) -> None:
    await follow(alice)
    path = f"{SUBSCRIPTIONS}{THREAD}/"
    assert (await bob.delete(path)).status_code == 404
    assert (await machine.delete(path)).status_code == 403
    assert await listed(alice) == [THREAD]
    assert (await alice.delete(path)).status_code == 204
    assert (await alice.delete(path)).status_code == 404
    assert (await alice.delete(f"{SUBSCRIPTIONS}two%20words/")).status_code == 404
    assert (await alice.delete(f"{SUBSCRIPTIONS}nul%00/")).status_code == 404


@pytest.mark.parametrize(
    ("change", "field", "cure"),
    [
        ({"topic": "two words"}, "topic", "forum.thread:42"),
        ({"topic": ""}, "topic", "200 characters"),
        ({"topic": "x" * 201}, "topic", "200 characters"),
        ({"topic": 7}, "topic", "str"),
        ({"level": "loud"}, "level", "all, mentions, muted"),
        ({"level": None}, "level", "str"),
        ({"levle": "all"}, "levle", "did you mean level"),
    ],
)
async def test_what_cannot_be_followed_is_refused_with_the_cure(
    alice: httpx.AsyncClient, db: Db, change: dict[str, Any], field: str, cure: str
) -> None:
    response = await alice.post(SUBSCRIPTIONS, json={"topic": THREAD} | change)
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["field"] == field
    assert cure in error["message"]
    assert db.execute("select count(*) from tocsin.recipient").fetchone() == (0,)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"topic": "two words"}, "topic"),
        ({"limit": 0}, "limit"),
        ({"cursor": "x"}, "cursor"),
        ({"topik": "x"}, "topik"),
    ],
)
async def test_a_wrong_filter_is_refused(
    alice: httpx.AsyncClient, query: dict[str, Any], field: str
) -> None:
    response = await alice.get(SUBSCRIPTIONS, params=query)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field


async def test_thousands_come_in_pages_each_once(
    alice: httpx.AsyncClient, people: None, db: Db
) -> None:
    for number in range(25):
        notify_topic(
            db,
            topic=f"t:{number}",
            event_type="forum.new_reply",
            title="x",
            initiator="alice",
            subscribe_initiator=True,
        )
    # what two open transactions may leave, and an explicit choice beside it
    db.execute(
        "insert into tocsin.subscription (topic, recipient_id, event_id, level, because, created_at)"
        " select topic, recipient_id, event_id + 1000, level, because, now()"
        " from tocsin.subscription"
    )
    expected = [f"t:{number}" for number in reversed(range(25))]
    first = (await alice.get(SUBSCRIPTIONS, params={"limit": 10})).json()
    second = (await alice.get(first["next"])).json()
    third = (await alice.get(second["next"])).json()
    pages = [first, second, third]
    assert [each["topic"] for page in pages for each in page["results"]] == expected
    assert first["previous"] is None
    assert third["next"] is None
    assert (await alice.get(third["previous"])).json()["results"] == second["results"]
    assert first["results"][0]["because"] == "replied"


async def test_an_event_of_a_topic_notifies_its_followers(
    machine: httpx.AsyncClient, alice: httpx.AsyncClient, bob: httpx.AsyncClient, people: None
) -> None:
    await follow(alice)
    await follow(bob, level="muted")
    response = await machine.post(
        "/api/events/", json=event(initiator="carol", subscribe_initiator=True)
    )
    assert response.status_code == 202, response.text
    assert response.json()["notifications"] == 1
    found = (await machine.get(f"/api/events/{response.json()['event_id']}/")).json()
    assert (found["topic"], found["notifications"]) == (THREAD, 1)
    again = await machine.post("/api/events/", json=event(initiator="alice"))
    assert again.json()["notifications"] == 1
    found = (await machine.get(f"/api/events/{again.json()['event_id']}/")).json()
    assert found["initiator_skipped"] is True
    listed = (await machine.get("/api/events/", params={"recipient": "bob"})).json()["results"]
    assert listed[0]["notification"]["channels"][0]["reason"] == "muted"
    assert listed[0]["notifications"] == 1


async def test_an_event_is_for_exactly_one_audience(
    machine: httpx.AsyncClient, people: None
) -> None:
    both = await machine.post("/api/events/", json=event(recipients=["alice"]))
    assert both.status_code == 422
    assert {each["field"] for each in both.json()["errors"]} == {"recipients", "topic"}
    neither = await machine.post("/api/events/", json=event(topic=None))
    assert neither.status_code == 422
    assert "recipients, topic and email" in neither.json()["errors"][0]["message"]


async def test_a_dry_run_of_a_topic_decides_and_stores_nothing(
    machine: httpx.AsyncClient, alice: httpx.AsyncClient, bob: httpx.AsyncClient, db: Db
) -> None:
    await follow(alice)
    await follow(bob, level="muted")
    db.execute("select tocsin.upsert_recipient('carol')")
    posted = event(initiator="carol", subscribe_initiator=True, dry_run=True)
    found = (await machine.post("/api/events/", json=posted)).json()
    assert found["notifications"] == 1
    assert found["decisions"]["alice"]["in_app"]["decision"] == "on"
    assert found["decisions"]["bob"]["in_app"]["reason"] == "muted"
    assert found["decisions"]["carol"]["in_app"]["reason"] == "initiator"
    assert db.execute("select count(*) from tocsin.event").fetchone() == (0,)
    assert db.execute("select count(*) from tocsin.subscription").fetchone() == (2,)


async def test_a_replayed_key_returns_how_many_were_notified(
    machine: httpx.AsyncClient, alice: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    await follow(alice)
    await follow(bob, level="muted")
    key = {"Idempotency-Key": "reply-1"}
    first = await machine.post("/api/events/", json=event(), headers=key)
    again = await machine.post("/api/events/", json=event(), headers=key)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"


async def test_a_topic_is_shown_with_its_latest_notification(
    alice: httpx.AsyncClient, people: None, db: Db
) -> None:
    assert (await follow(alice))["latest"] is None
    await follow(alice, "forum.thread:43")
    subscribe(db, "bob", THREAD)
    for number in (1, 2):
        notify_topic(
            db,
            topic=THREAD,
            event_type="forum.new_reply",
            title=f"Reply {number}",
            action_url=f"/forums/42#{number}",
        )
    subscribe(db, "alice", THREAD, "muted")
    notify_topic(db, topic=THREAD, event_type="forum.new_reply", title="For Bob alone")
    by_topic = {
        each["topic"]: each["latest"] for each in (await alice.get(SUBSCRIPTIONS)).json()["results"]
    }
    assert by_topic["forum.thread:43"] is None
    latest = by_topic[THREAD]
    assert (latest["title"], latest["action_url"]) == ("Reply 2", "/forums/42#2")
    assert (await follow(alice, level="mentions"))["latest"] == latest
    await alice.delete(f"/api/notifications/{latest['notification_id']}/")
    assert (await follow(alice, level="all"))["latest"]["title"] == "Reply 1"


async def test_why_names_the_topic(alice: httpx.AsyncClient, people: None, db: Db) -> None:
    def notify_thread(**named: Any) -> None:
        notify_topic(db, topic=THREAD, event_type="forum.new_reply", title="x", **named)

    notify_thread(initiator="alice", subscribe_initiator=True)
    notify_thread()
    sentence_of = await sentences(alice, db)
    assert sentence_of["in_app"].startswith(f"You get this because you replied in {THREAD}. ")
    assert sentence_of["in_app"].endswith("It is in your inbox.")
    assert "because" not in sentence_of["push"]  # it is off
    notify_thread(metadata={"mentions": ["alice"]})
    assert f"because you were mentioned in {THREAD}." in (await sentences(alice, db))["email"]
    subscribe(db, "alice", THREAD, "mentions")
    notify_thread()
    only = f"You follow {THREAD} for mentions only, and you were not mentioned."
    assert set((await sentences(alice, db)).values()) == {only}
    subscribe(db, "alice", THREAD, "muted")
    notify_thread()
    assert set((await sentences(alice, db)).values()) == {f"You muted {THREAD}."}
    await alice.delete(f"{SUBSCRIPTIONS}{THREAD}")
    await follow(alice)
    notify_thread()
    assert f"because you follow {THREAD}." in (await sentences(alice, db))["email"]


async def test_what_a_person_follows_is_exported_and_erased(
    machine: httpx.AsyncClient, alice: httpx.AsyncClient
) -> None:
    await follow(alice, level="mentions")
    (held,) = (await machine.get("/api/recipients/alice/export/")).json()["subscriptions"]
    assert (held["topic"], held["level"], held["because"]) == (THREAD, "mentions", "followed")
    assert (await machine.delete("/api/recipients/alice/")).status_code == 204
    assert await listed(alice) == []
