"""What apps new_notification, look up and take back; people as apps keep them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import psycopg
import pytest

from tests.support.crowd import CROWD
from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db, NewNotification
from tocsin.engine.explain.why import explain_in_lines
from tocsin.engine.store.database import Database

EVENTS = "/api/events/"


def event(**named: Any) -> dict[str, Any]:
    return {
        "event_type": "forum.new_reply",
        "recipients": ["alice"],
        "title": "New reply",
        **named,
    }


def rows(db: Db, table: str) -> int:
    row = db.execute(f"select count(*) from tocsin.{table}").fetchone()
    assert row is not None
    return int(row[0])


async def test_an_event_notifies_and_can_be_looked_up(
    machine: httpx.AsyncClient, alice: httpx.AsyncClient, people: None
) -> None:
    response = await machine.post(
        EVENTS, json=event(recipients=["alice", "bob", "alice"], initiator="bob")
    )
    assert response.status_code == 202, response.text
    created = response.json()
    assert created["notifications"] == 1
    assert "idempotent-replayed" not in response.headers
    found = (await machine.get(f"{EVENTS}{created['event_id']}/")).json()
    assert (found["notifications"], found["title"]) == (1, "New reply")
    assert found["initiator_skipped"] is True
    assert found["caller"].startswith("key:")
    assert found["deliveries"] == {"email": {"queued": 1}}
    assert (await alice.get("/api/notifications/unread-count/")).json() == {"count": 1, "unseen": 1}
    assert (await machine.get(f"{EVENTS}999999/")).status_code == 404
    assert (await machine.post(f"{EVENTS}999999/cancel/")).status_code == 404


async def test_an_object_creates_a_missing_person_and_never_overwrites(
    machine: httpx.AsyncClient, people: None
) -> None:
    both = [
        {"id": "alice", "email": "other@example.com"},
        {"id": "dave", "email": "dave@example.com", "name": "Dave"},
    ]
    assert (await machine.post(EVENTS, json=event(recipients=both))).json()["notifications"] == 2
    assert (await machine.get("/api/recipients/alice/")).json()["email"] == "alice@example.com"
    assert (await machine.get("/api/recipients/dave/")).json()["name"] == "Dave"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"event_type": "forum.new_repyl"}, "event_type"),
        ({"recipients": ["alice", "nobody"]}, "recipients"),
        ({"recipients": "alice"}, "recipients"),
        ({"email": "zoe@example.com"}, "recipients"),
        ({"recipients": None, "email": "zoe"}, "email"),
        ({"recipients": ["alice", 7]}, "recipients[1]"),
        ({"recipients": ["alice", {"id": "x", "email": "not one"}]}, "recipients[1].email"),
        ({"recipients": [{"id": "x", "mail": "x@example.com"}]}, "recipients[0].mail"),
        ({"recipients": [{"email": "x@example.com"}]}, "recipients[0].id"),
        ({"title": ""}, "title"),
        ({"title": "a\nb"}, "title"),
        ({"title": "nul \x00"}, "title"),
        ({"action_url": "javascript:alert(1)"}, "action_url"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"a": ["\x00"]}}, "metadata.a[0]"),
        ({"send_at": "2030-01-01T00:00:00"}, "send_at"),
        ({"topic": "forum.thread:1"}, "recipients"),
        ({"recipients": None}, "recipients"),
        ({"recipients": None, "topic": "two words"}, "topic"),
        ({"recipients": None, "topic": "x", "subscribe_initiator": True}, "subscribe_initiator"),
        (
            {"recipients": None, "topic": "x", "initiator": "y", "subscribe_initiator": True},
            "initiator",
        ),
        ({"initiator": "alice", "subscribe_initiator": True}, "subscribe_initiator"),
        ({"titel": "x"}, "titel"),
    ],
)
async def test_a_wrong_event_is_refused_whole_and_by_field(
    machine: httpx.AsyncClient, people: None, db: Db, changes: dict[str, Any], field: str
) -> None:
    response = await machine.post(EVENTS, json=event(**changes))
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["errors"][0]["field"] == field
    assert (rows(db, "event"), rows(db, "recipient")) == (0, 3)


async def test_all_unknown_and_missing_fields_are_named_at_once(machine: httpx.AsyncClient) -> None:
    response = await machine.post(EVENTS, json={"topik": "x", "titel": "y"})
    fields = {each["field"]: each["message"] for each in response.json()["errors"]}
    assert set(fields) == {"topik", "titel", "event_type", "title"}
    assert "did you mean title" in fields["titel"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b'{"title": "\\ud800"}',
        b"[" * 20_000,
        b'{"recipients":' + b"[" * 20_000,
        b"{'a': 1}",
    ],
)
async def test_what_is_not_json_is_unreadable(machine: httpx.AsyncClient, body: bytes) -> None:
    response = await machine.post(EVENTS, content=body)
    assert response.status_code in (400, 422)
    assert response.headers["content-type"] == "application/problem+json"


async def test_bodies_have_limits(machine: httpx.AsyncClient, alice: httpx.AsyncClient) -> None:
    response = await machine.post(EVENTS, content=b" " * 16_000_001)
    assert response.status_code == 413
    response = await alice.post("/api/notifications/mark-all-read/", content=b" " * 64_001)
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"


async def test_an_idempotency_key_creates_one_event_and_the_replay_is_marked(
    machine: httpx.AsyncClient, people: None, db: Db
) -> None:
    key = {"Idempotency-Key": "order-7"}
    first = await machine.post(EVENTS, json=event(recipients=["alice", "bob"]), headers=key)
    again = await machine.post(EVENTS, json=event(recipients=["bob", "alice"]), headers=key)
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    other = await machine.post(EVENTS, json=event(title="Other"), headers=key)
    assert other.status_code == 422
    assert other.json()["errors"][0]["field"] == "Idempotency-Key"
    assert rows(db, "event") == 1
    long = await machine.post(EVENTS, json=event(), headers={"Idempotency-Key": "x" * 256})
    assert long.status_code == 422
    assert long.json()["detail"] == "Idempotency-Key is not 1 to 255 characters in one line."
    assert long.json()["errors"][0]["message"].startswith("Idempotency-Key is not 1 to 255")


async def test_concurrent_calls_with_one_key_notify_once(
    machine: httpx.AsyncClient, people: None, db: Db
) -> None:
    key = {"Idempotency-Key": "same"}
    responses = await asyncio.gather(
        *(machine.post(EVENTS, json=event(), headers=key) for _ in range(8))
    )
    assert {each.status_code for each in responses} == {202}
    assert len({each.json()["event_id"] for each in responses}) == 1
    assert rows(db, "event") == 1


async def test_a_key_in_progress_is_a_conflict(
    machine: httpx.AsyncClient, people: None, dsn: str, db: Db
) -> None:
    await machine.post(EVENTS, json=event())
    with psycopg.connect(dsn) as other:
        other.execute(
            "select tocsin.earlier_event((select caller from tocsin.event), 'busy', 1, '[]')"
        )
        response = await machine.post(EVENTS, json=event(), headers={"Idempotency-Key": "busy"})
    assert response.status_code == 409
    assert response.headers["retry-after"]


async def test_a_dry_run_decides_and_stores_nothing(
    machine: httpx.AsyncClient, alice: httpx.AsyncClient, people: None, db: Db
) -> None:
    await alice.patch(
        "/api/notification-preferences/", json={"overrides": {"forum.*": {"email": False}}}
    )
    posted = event(recipients=["alice", "bob", {"id": "eve"}], initiator="bob", dry_run=True)
    response = await machine.post(EVENTS, json=posted, headers={"Idempotency-Key": "dry"})
    assert response.status_code == 200, response.text
    found = response.json()
    assert found["notifications"] == 2
    assert found["decisions"]["alice"]["email"] == {
        "decision": "off",
        "reason": "preference",
        "scope": "forum.*",
    }
    assert found["decisions"]["eve"]["email"]["reason"] == "no_address"
    assert found["decisions"]["bob"]["in_app"]["reason"] == "initiator"
    tables = ("event", "notification", "delivery", "event_queue", "idempotency", "unread_delta")
    assert [rows(db, table) for table in tables] == [0] * 6
    assert rows(db, "recipient") == 3


@pytest.mark.crowd
async def test_a_crowd_is_one_call(machine: httpx.AsyncClient, db: Db) -> None:
    crowd = [{"id": f"person-{n}", "email": f"person-{n}@example.com"} for n in range(CROWD)]
    response = await machine.post(EVENTS, json=event(recipients=crowd), timeout=60)
    assert response.status_code == 202, response.text
    assert response.json()["notifications"] == CROWD
    assert rows(db, "delivery") == CROWD


async def test_administrators_find_who_was_notified_of_what_and_why(
    machine: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    created = [new_notification(title=f"To Alice {n}") for n in range(3)]
    new_notification("bob", title="To Bob")
    first = (await machine.get(EVENTS, params={"recipient": "alice", "limit": 2})).json()
    assert [each["title"] for each in first["results"]] == ["To Alice 2", "To Alice 1"]
    got = first["results"][0]["notification"]
    assert (got["id"], got["recipient"]) == (created[2], "alice")
    assert got["channels"][1]["sentence"].startswith("Email is on for")
    second = (await machine.get(first["next"])).json()
    assert [each["title"] for each in second["results"]] == ["To Alice 0"]
    assert [e["id"] for e in (await machine.get(second["previous"])).json()["results"]] == [
        each["id"] for each in first["results"]
    ]
    everything = (await machine.get(EVENTS)).json()["results"]
    assert len(everything) == 4
    assert everything[0]["notification"] is None
    since = everything[1]["created_at"]
    assert len((await machine.get(EVENTS, params={"since": since})).json()["results"]) == 2
    assert (await machine.get(EVENTS, params={"since": "yesterday"})).status_code == 422


async def test_one_of_several_puts_at_once_creates_the_person(machine: httpx.AsyncClient) -> None:
    for person in ("eve", "finn", "gil"):
        puts = [machine.put(f"/api/recipients/{person}/", json={"name": f"{n}"}) for n in range(12)]
        statuses = [each.status_code for each in await asyncio.gather(*puts)]
        assert sorted(statuses) == [200] * 11 + [201]


async def test_a_person_is_put_read_exported_and_erased(
    machine: httpx.AsyncClient, new_notification: NewNotification, alice: httpx.AsyncClient
) -> None:
    path = "/api/recipients/org%2Fdave/"
    assert (await machine.get(path)).status_code == 404
    made = await machine.put(path, json={"email": "dave@example.com"})
    assert (made.status_code, made.json()["id"]) == (201, "org/dave")
    changed = await machine.put(path, json={"name": "Dave", "email": None})
    assert (changed.status_code, changed.json()["email"]) == (200, "dave@example.com")
    for wrong, field in (({"timezone": "Mars/Base"}, "timezone"), ({"emial": "x"}, "emial")):
        response = await machine.put(path, json=wrong)
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, field)
    new_notification()
    await alice.patch("/api/notification-preferences/", json={"overrides": {"*": {"push": False}}})
    await alice.post("/api/stream-ticket/")
    held = (await machine.get("/api/recipients/alice/export/")).json()
    assert held["recipient"]["email"] == "alice@example.com"
    assert held["preferences"][0]["scope"] == "*"
    assert held["notifications"][0]["deliveries"][0]["channel"] == "email"
    assert (await machine.delete("/api/recipients/alice/")).status_code == 204
    for method, where in (("GET", ""), ("DELETE", ""), ("GET", "export/")):
        assert (await machine.request(method, f"/api/recipients/alice/{where}")).status_code == 404
    assert (await alice.get("/api/notifications/")).json()["results"] == []


async def test_an_address_is_notified_looked_up_and_claimed(
    machine: httpx.AsyncClient, people: None, db: Db
) -> None:
    posted = {"event_type": "event.invited", "email": "Zoe@example.com", "title": "Join us"}
    dry = (await machine.post(EVENTS, json=posted | {"dry_run": True})).json()
    assert dry["notifications"] == 1
    decided = dry["decisions"]["Zoe@example.com"]
    assert [decided[each]["reason"] for each in ("in_app", "email")] == ["no_account", "invited"]
    assert (rows(db, "event"), rows(db, "notification")) == (0, 0)

    key = {"Idempotency-Key": "k"}
    created = (await machine.post(EVENTS, json=posted, headers=key)).json()
    again = await machine.post(EVENTS, json=posted, headers=key)
    assert (again.json(), again.headers["idempotent-replayed"]) == (created, "true")
    found = (await machine.get(f"{EVENTS}{created['event_id']}/")).json()
    assert (found["notifications"], found["deliveries"]) == (1, {"email": {"queued": 1}})
    (listed,) = (await machine.get(EVENTS)).json()["results"]
    assert (listed["notifications"], listed["notification"]) == (1, None)

    claims = "/api/recipients/alice/claims/"
    wrong = await machine.post(claims, json={"email": "zoe"})
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "email")
    assert (await machine.post(claims, json={"email": "zoe@EXAMPLE.com"})).json() == {"claimed": 1}
    assert (await machine.post(claims, json={"email": "zoe@EXAMPLE.com"})).json() == {"claimed": 0}
    (theirs,) = (await machine.get(EVENTS, params={"recipient": "alice"})).json()["results"]
    assert theirs["notification"]["channels"][0]["reason"] == "claimed"


async def test_only_an_app_claims_addresses(alice: httpx.AsyncClient, people: None) -> None:
    response = await alice.post("/api/recipients/alice/claims/", json={"email": "bob@example.com"})
    assert response.status_code == 403


async def test_an_operator_sees_the_reasons_of_a_notification_without_a_person(
    database: Database, db: Db
) -> None:
    db.execute("select tocsin.notify_email('zoe@example.com', 'event.invited', 'x')")
    row = db.execute("select notification_id from tocsin.notification").fetchone()
    assert row is not None
    lines = await explain_in_lines(database, row[0])
    assert lines[0].startswith("zoe@example.com, ")
    assert lines[1] == "in_app: The inbox needs an account, and the address had none."
    assert lines[2].startswith("email: The address had no account, so it gets a mail.")


async def test_who_caused_an_event_finds_it_with_the_reason(
    machine: httpx.AsyncClient, people: None
) -> None:
    event = {
        "event_type": "forum.new_reply",
        "title": "x",
        "recipients": ["alice", "bob"],
        "initiator": "bob",
    }
    created = (await machine.post("/api/events/", json=event)).json()
    assert created["notifications"] == 1
    (listed,) = (await machine.get("/api/events/?recipient=bob")).json()["results"]
    assert (listed["id"], listed["notification"], listed["reason"]) == (
        created["event_id"],
        None,
        "initiator",
    )
    (listed,) = (await machine.get("/api/events/?recipient=alice")).json()["results"]
    assert listed["reason"] is None
    assert listed["notification"]["recipient"] == "alice"


async def test_a_filter_of_events_is_held_to_its_limits(machine: httpx.AsyncClient) -> None:
    for params, field in (
        ({"recipient": ""}, "recipient"),
        ({"recipient": "x" * 201}, "recipient"),
        ({"since": "2026-11-21T09:30:00"}, "since"),  # without a zone
    ):
        response = await machine.get(EVENTS, params=params)
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, field)


async def test_a_thing_is_read_where_the_app_shows_it_and_withdrawn_when_it_is_gone(
    machine: httpx.AsyncClient, alice: httpx.AsyncClient, people: None
) -> None:
    for subject in ("forum.thread:42", "forum.thread:42", "forum.thread:43"):
        created = await machine.post(EVENTS, json=event(subject=subject))
        assert created.status_code == 202, created.text
    listed = (await alice.get("/api/notifications/", params={"subject": "forum.thread:42"})).json()
    assert [each["subject"] for each in listed["results"]] == ["forum.thread:42"] * 2
    body = {"subject": "forum.thread:42"}
    assert (await machine.post("/api/recipients/alice/read/", json=body)).json() == {"marked": 2}
    assert (await machine.post("/api/recipients/zoe/read/", json=body)).status_code == 404
    marked = await alice.post(
        "/api/notifications/mark-all-read/", json={"subject": "forum.thread:43"}
    )
    assert marked.json() == {"marked": 1}
    withdrawn = await machine.post(f"{EVENTS}withdraw/", json=body)
    assert withdrawn.json() == {"withdrawn": 2}
    left = (await alice.get("/api/notifications/")).json()["results"]
    assert [each["subject"] for each in left] == ["forum.thread:43"]
    refused = await machine.post(f"{EVENTS}withdraw/", json={"subject": "a b"})
    assert refused.status_code == 422, refused.text


async def test_unknown_recipients_are_created_or_skipped_where_the_app_asks_for_it(
    machine: httpx.AsyncClient, people: None
) -> None:
    skipped = await machine.post(EVENTS, json=event(recipients=["alice", "zoe"], unknown="skip"))
    assert skipped.json()["notifications"] == 1
    found = (await machine.get(f"{EVENTS}{skipped.json()['event_id']}/")).json()
    assert found["unknown_skipped"] == 1
    created = await machine.post(EVENTS, json=event(recipients=["zoe"], unknown="create"))
    assert created.json()["notifications"] == 1
    assert (await machine.get("/api/recipients/zoe/")).status_code == 200
