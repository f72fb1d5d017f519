"""Targets of chats over HTTP, and the way of a message from the app to a chat."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import httpx
import pytest

from tests.support.chats import *  # noqa: F403 - fixtures
from tests.support.chats import DEVELOPMENT, PATH, TOPIC, deliver, states
from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tocsin.engine.store.database import Database
from tocsin.settings import Settings
from tocsin.testing.chats import ChatServer
from tocsin.testing.far_end import Reply

SLACK = "https://hooks.slack.com/services/T0/B0/secret"

pytestmark = pytest.mark.own_app


@pytest.fixture  # type: ignore[no-redef]
def settings() -> Settings:
    return DEVELOPMENT


async def event(machine: httpx.AsyncClient, **content: Any) -> int:
    posted = {"event_type": "forum.new_reply", "title": "New <reply>", "body": "Hello", **content}
    response = await machine.post("/api/events/", json=posted)
    assert response.status_code == 202, response.text
    return int(response.json()["event_id"])


async def test_one_of_several_puts_at_once_makes_the_target(machine: httpx.AsyncClient) -> None:
    target = {"kind": "slack", "url": SLACK, "topic": TOPIC}
    puts = [machine.put(f"{PATH}team/", json=target) for _ in range(12)]
    statuses = [each.status_code for each in await asyncio.gather(*puts)]
    assert sorted(statuses) == [200] * 11 + [201]


async def test_a_target_is_made_listed_changed_and_deleted(
    machine: httpx.AsyncClient, people: None
) -> None:
    made = await machine.put(f"{PATH}team/", json={"kind": "slack", "url": SLACK, "topic": TOPIC})
    assert made.status_code == 201
    assert made.json() | {"created_at": ""} == {
        "name": "team",
        "kind": "slack",
        "url": "https://hooks.slack.com/…",
        "recipient": None,
        "topic": TOPIC,
        "created_at": "",
        "disabled_at": None,
        "disabled_reason": None,
    }
    changed = {"kind": "slack", "url": SLACK + "2", "recipient": "alice"}
    again = await machine.put(f"{PATH}team/", json=changed)
    assert (again.status_code, again.json()["recipient"], again.json()["topic"]) == (
        200,
        "alice",
        None,
    )
    await machine.put(f"{PATH}other/", json={"kind": "slack", "url": SLACK, "topic": TOPIC})
    listed = (await machine.get(PATH)).json()
    assert [each["name"] for each in listed["results"]] == ["other", "team"]
    assert "secret" not in str(listed)
    for query, names in (
        ("?recipient=alice", ["team"]),
        (f"?topic={TOPIC}", ["other"]),
        ("?limit=1", ["other"]),
    ):
        found = (await machine.get(PATH + query)).json()["results"]
        assert [each["name"] for each in found] == names
    older = (await machine.get(f"{PATH}?limit=1")).json()["next"]
    assert [each["name"] for each in (await machine.get(older)).json()["results"]] == ["team"]
    assert (await machine.get(f"{PATH}team/")).json() == listed["results"][1]
    assert (await machine.delete(f"{PATH}team/")).status_code == 204
    assert (await machine.delete(f"{PATH}team/")).status_code == 404
    assert (await machine.get(f"{PATH}team/")).status_code == 404


@pytest.mark.parametrize(
    ("wrong", "field", "cure"),
    [
        ({"topic": None}, "recipient", "exactly one of recipient and topic"),
        ({"recipient": "alice"}, "recipient", "exactly one of recipient and topic"),
        ({"topic": None, "recipient": "nobody"}, "recipient", "upsert_recipient"),
        ({"topic": "no topic"}, "topic", "forum.thread:42"),
        ({"url": "hooks.slack.com/services"}, "url", "https://hooks.slack.com/services/T0"),
        ({"url": "https://hooks.slack.com/\u0000"}, "url", ""),
        ({"recipient": "a\u0000", "topic": None}, "recipient", ""),
        ({"kind": "discord"}, "url", "https://discord.com/api/webhooks/"),
        ({"kind": "telegram"}, "url", "sendMessage?chat_id="),
    ],
)
async def test_a_wrong_target_is_refused_with_the_cure_and_nothing_is_stored(
    db: Db,
    machine: httpx.AsyncClient,
    people: None,
    wrong: dict[str, Any],
    field: str,
    cure: str,
) -> None:
    given = {"kind": "slack", "url": SLACK, "topic": TOPIC, **wrong}
    refused = await machine.put(f"{PATH}team/", json=given)
    assert refused.status_code == 422
    (error,) = refused.json()["errors"]
    assert error["field"] == field
    assert cure in error["message"]
    assert "secret" not in refused.text
    assert db.execute("select count(*) from tocsin.target").fetchone() == (0,)


async def test_a_list_of_what_can_be_no_topic_is_refused(machine: httpx.AsyncClient) -> None:
    for topic in ("", "a%20b", "a" * 201):
        refused = await machine.get(f"{PATH}?topic={topic}")
        assert refused.status_code == 422
        assert "topic" in refused.text


async def test_a_name_that_is_none_is_refused(machine: httpx.AsyncClient) -> None:
    given = {"kind": "slack", "url": SLACK, "topic": TOPIC}
    for name in ("%20", "-x", "a" * 101, "a%0A"):
        assert (await machine.put(f"{PATH}{name}/", json=given)).status_code in (404, 422)


@pytest.mark.parametrize("kind", ["slack", "discord", "teams", "telegram"])
async def test_a_topics_chat_gets_the_event_and_what_replaces_it(
    db: Db,
    database: Database,
    settings: Settings,
    machine: httpx.AsyncClient,
    chats: ChatServer,
    kind: str,
) -> None:
    target = {"kind": kind, "url": chats.url(kind, "-7"), "topic": TOPIC}
    assert (await machine.put(f"{PATH}team/", json=target)).status_code == 201
    event_id = await event(machine, topic=TOPIC, action_url="/forums/7")
    await deliver(db, database, settings)
    (post,) = chats.posts
    assert "Hello" in post.text
    assert "https://notify.test/forums/7" in post.text
    found = (await machine.get(f"/api/events/{event_id}/")).json()
    assert found["deliveries"] == {"chat": {"sent": 1}}
    await event(machine, topic=TOPIC, title="Second", replaces=True)
    await deliver(db, database, settings)
    editable = kind in ("discord", "telegram")
    assert len(chats.posts) == (1 if editable else 2)
    assert "Second" in chats.posts[-1].text
    assert states(db, "sent") == states(db)


async def test_a_persons_chat_gets_its_own_text_in_their_language(
    db: Db,
    database: Database,
    settings: Settings,
    machine: httpx.AsyncClient,
    alice: httpx.AsyncClient,
    chats: ChatServer,
    people: None,
) -> None:
    db.execute("update tocsin.recipient set locale = 'de-AT' where recipient_id = 'alice'")
    db.execute("update tocsin.channel set available = true where channel = 'chat'")
    target = {"kind": "telegram", "url": chats.url("telegram", "7"), "recipient": "alice"}
    assert (await machine.put(f"{PATH}alice/", json=target)).status_code == 201
    content = {
        "chat": {"body": "For chats"},
        "translations": {"de": {"title": "Neue Antwort", "chat": {"body": "Für Chats"}}},
    }
    await event(machine, recipients=["alice", "bob"], content=content)
    await deliver(db, database, settings)
    (post,) = chats.posts
    assert post.text == "<b>Neue Antwort</b>\nFür Chats"
    (row,) = (await alice.get("/api/notifications/")).json()["results"]
    why = (await alice.get(f"/api/notifications/{row['id']}/why/")).json()["channels"]
    (found,) = [each for each in why if each["channel"] == "chat"]
    assert found["deliveries"][0]["address"] == "alice"


async def test_a_dead_chat_is_disabled_with_its_reason_and_put_again_it_works(
    db: Db,
    database: Database,
    settings: Settings,
    machine: httpx.AsyncClient,
    chats: ChatServer,
) -> None:
    target = {"kind": "slack", "url": chats.url("slack"), "topic": TOPIC}
    await machine.put(f"{PATH}team/", json=target)
    chats.script.then("slack", [Reply(404, "no_service")])
    await event(machine, topic=TOPIC)
    await deliver(db, database, settings)
    (listed,) = (await machine.get(PATH)).json()["results"]
    assert listed["disabled_reason"] == "slack_no_service"
    await event(machine, topic=TOPIC)
    assert states(db) == [("failed", "slack_no_service", None)]
    put = (await machine.put(f"{PATH}team/", json=target)).json()
    assert put["disabled_at"] is None
    await event(machine, topic=TOPIC)
    await deliver(db, database, settings)
    assert [state for state, *_ in states(db)] == ["failed", "sent"]


async def test_what_is_too_much_for_now_waits_in_the_ledger_for_its_turn(
    db: Db,
    database: Database,
    settings: Settings,
    machine: httpx.AsyncClient,
    chats: ChatServer,
) -> None:
    await machine.put(
        f"{PATH}team/", json={"kind": "slack", "url": chats.url("slack"), "topic": TOPIC}
    )
    for number in range(5):
        await event(machine, topic=TOPIC, title=f"Event {number}")
    await deliver(db, database, settings)
    assert [each.text for each in chats.posts] == ["*Event 0*\nHello"]
    assert states(db)[1:] == [("deferred", "paced", None)] * 4
    waits = db.execute(
        "select extract(epoch from due_at - now())::float8, attempts from tocsin.delivery"
        " where state = 'deferred' order by delivery_id"
    ).fetchall()
    assert [attempts for _, attempts in waits] == [0] * 4
    gaps = [after - before for (before, _), (after, _) in pairwise(waits)]
    assert all(
        0.5 < gap < 3 for gap in gaps
    )  # a second, where no outcome was written later than the others


async def test_no_url_of_a_target_is_in_the_log(
    db: Db,
    database: Database,
    settings: Settings,
    machine: httpx.AsyncClient,
    chats: ChatServer,
    capfd: pytest.CaptureFixture[str],
) -> None:
    replies: Sequence[Reply] = [
        Reply(400, "invalid_payload"),
        Reply(500),
        Reply(404, "no_service"),
    ]
    for number, reply in enumerate(replies):
        url = chats.url("slack", f"very-secret-{number}")
        await machine.put(
            f"{PATH}team{number}/", json={"kind": "slack", "url": url, "topic": f"t{number}"}
        )
        chats.script.then("slack", [reply])
        await event(machine, topic=f"t{number}")
        await deliver(db, database, settings)
    logged = capfd.readouterr()
    assert "slack_invalid_payload" in logged.out + logged.err
    assert "very-secret" not in logged.out + logged.err
    stored = db.execute("select string_agg(d::text, ' ') from tocsin.delivery d").fetchone()
    assert stored is not None
    assert "very-secret" not in stored[0]
