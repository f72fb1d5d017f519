"""Webhooks over HTTP: made, listed without secrets, rotated, tested, replayed, and never for a private address."""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
from typing import Any

import httpx
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db, bearer
from tocsin.engine.store.credential import create_api_key
from tocsin.engine.store.database import Database

HOOK = "/api/webhooks/shop/"
URL_ = "https://1.1.1.1/hook"
SETTINGS = {"url": URL_, "events": ["delivery.failed", "notification.created"]}


async def put(machine: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    response = await machine.put(HOOK, json=SETTINGS | changes)
    assert response.status_code in (200, 201), response.text
    body: dict[str, Any] = response.json()
    return body


def rows(db: Db, statement: str) -> list[Any]:
    return db.execute(statement.encode()).fetchall()


async def test_the_secret_is_in_the_first_response_only(machine: httpx.AsyncClient) -> None:
    first = await machine.put(HOOK, json=SETTINGS)
    assert first.status_code == 201
    secret = first.json()["secret"]
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    again = await machine.put(HOOK, json=SETTINGS)
    assert again.status_code == 200
    assert "secret" not in again.json()
    for path in ("/api/webhooks/", HOOK):
        assert secret not in (await machine.get(path)).text


async def test_webhooks_are_listed_read_changed_and_deleted(machine: httpx.AsyncClient) -> None:
    await put(machine)
    await put(machine, url="https://1.0.0.1/", events=["notification.read"])
    (listed,) = (await machine.get("/api/webhooks/")).json()["results"]
    assert listed == (await machine.get(HOOK)).json()
    assert (listed["url"], listed["events"]) == ("https://1.0.0.1/", ["notification.read"])
    assert (await machine.delete(HOOK)).status_code == 204
    assert (await machine.delete(HOOK)).status_code == 404
    assert (await machine.get(HOOK)).status_code == 404
    for call in ("test/", "rotate/"):
        assert (await machine.post(HOOK + call)).status_code == 404


@pytest.mark.parametrize("events", [[], None, ["notification.created"]])
async def test_the_webhook_of_a_person_has_no_events(
    machine: httpx.AsyncClient, people: None, events: list[str] | None
) -> None:
    made = await put(machine, recipient="alice", events=events)
    assert (made["recipient"], made["events"]) == ("alice", [])


@pytest.mark.parametrize(
    ("changes", "field", "cure"),
    [
        ({"url": "http://1.1.1.1/"}, "url", "https address"),
        ({"url": "https://127.0.0.1/"}, "url", "private address"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "url", "private address"),
        ({"url": "https://169.254.169.254/latest/meta-data"}, "url", "private address"),
        ({"url": "https://localhost/"}, "url", "private address"),
        ({"url": "https://2130706433/"}, "url", "private address"),
        ({"url": "https://user:password@1.1.1.1/"}, "url", "user name"),
        ({"url": "https://nowhere.invalid/"}, "url", "can't be resolved"),
        ({"url": "hooks.example.com"}, "url", "https address"),
        ({"events": []}, "events", "at least one"),
        ({"events": None}, "events", "at least one"),
        ({"events": ["notification.liked"]}, "events", ""),
        ({"recipient": "alice", "events": ["delivery.sent"]}, "events", "Leave it out"),
        ({"recipient": "nobody", "events": []}, "recipient", "Make the person first"),
    ],
)
async def test_what_is_wrong_is_named_with_its_cure(
    db: Db,
    machine: httpx.AsyncClient,
    people: None,
    changes: dict[str, Any],
    field: str,
    cure: str,
) -> None:
    response = await machine.put(HOOK, json=SETTINGS | changes)
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["field"].startswith(field)
    assert cure in error["message"]
    assert rows(db, "select from tocsin.target") == []


async def test_a_name_that_can_be_in_no_path_is_refused(machine: httpx.AsyncClient) -> None:
    response = await machine.put("/api/webhooks/a%20b/", json=SETTINGS)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "name"


async def test_a_name_that_resolves_to_a_private_address_too_is_refused(
    machine: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        assert host == "both.example.com"
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in ("1.1.1.1", "10.0.0.1")
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    response = await machine.put(HOOK, json=SETTINGS | {"url": "https://both.example.com/"})
    assert response.status_code == 422
    assert "private address" in response.json()["errors"][0]["message"]


async def test_after_a_rotation_two_secrets_are_valid_and_never_three(
    db: Db, machine: httpx.AsyncClient
) -> None:
    first = (await put(machine))["secret"]
    second = (await machine.post(HOOK + "rotate/")).json()
    third = (await machine.post(HOOK + "rotate/")).json()
    ((stored,),) = rows(db, "select secrets from tocsin.target")
    assert [each["secret"] for each in stored] == [third["secret"], second["secret"]]
    assert first not in str(stored)
    ((left,),) = rows(
        db, "select (secrets -> 1 ->> 'until')::timestamptz - now() from tocsin.target"
    )
    assert 86_000 < left.total_seconds() <= 86_400


async def test_a_test_is_a_message_like_any_other(db: Db, machine: httpx.AsyncClient) -> None:
    await put(machine)
    queued = await machine.post(HOOK + "test/")
    assert queued.status_code == 202
    (message,) = (await machine.get(HOOK + "messages/")).json()["results"]
    assert message["id"] == queued.json()["id"]
    assert (message["type"], message["state"], message["attempts"]) == ("webhook.test", "queued", 0)


async def test_messages_are_listed_in_pages(machine: httpx.AsyncClient) -> None:
    await put(machine)
    ids = [(await machine.post(HOOK + "test/")).json()["id"] for _ in range(3)]
    page = (await machine.get(HOOK + "messages/?limit=2")).json()
    assert [each["id"] for each in page["results"]] == [ids[2], ids[1]]
    rest = (await machine.get(page["next"])).json()
    assert [each["id"] for each in rest["results"]] == [ids[0]]
    assert rest["next"] is None
    assert (await machine.get(HOOK + "messages/?delivery_state=sent")).json()["results"] == []
    assert (await machine.get(HOOK + "messages/?before=12")).status_code == 422


async def test_messages_are_replayed_one_by_one_or_by_time(
    db: Db, machine: httpx.AsyncClient
) -> None:
    await put(machine)
    sent, failed, queued = [
        int((await machine.post(HOOK + "test/")).json()["id"].removeprefix("msg_"))
        for _ in range(3)
    ]
    over = "update tocsin.delivery set state = %s, due_at = null, settled_at = now() where delivery_id = %s"
    db.execute(over, ("sent", sent))
    db.execute(over, ("failed", failed))

    async def replay(**body: Any) -> Any:
        response = await machine.post(HOOK + "replay/", json=body)
        return response.json().get("replayed", response.status_code)

    assert await replay(since="2030-01-01T00:00:00Z") == 0
    assert await replay(since="2020-01-01T00:00:00Z", until="2020-01-02T00:00:00Z") == 0
    assert await replay(since="2020-01-01T00:00:00Z") == 1
    assert await replay(since="2020-01-01T00:00:00Z", failed_only=False) == 1
    assert await replay(id=f"msg_{queued}") == 404, "it is not over"
    db.execute(over, ("sent", sent))
    assert await replay(id=f"msg_{sent}") == 1
    states = rows(db, "select state::text, due_at is not null from tocsin.delivery")
    assert states == [("queued", True)] * 3
    assert await replay() == 422
    assert await replay(id="msg_1", since="2020-01-01T00:00:00Z") == 422


async def test_a_message_of_another_webhook_is_not_replayed(
    db: Db, machine: httpx.AsyncClient
) -> None:
    await put(machine)
    id_ = (await machine.post(HOOK + "test/")).json()["id"]
    db.execute("update tocsin.delivery set state = 'sent', settled_at = now()")
    await machine.put("/api/webhooks/other/", json=SETTINGS)
    assert (await machine.post("/api/webhooks/other/replay/", json={"id": id_})).status_code == 404


async def test_a_disabled_one_is_tested_and_replayed_again_once_it_is_put(
    db: Db, machine: httpx.AsyncClient
) -> None:
    await put(machine)
    db.execute("update tocsin.target set disabled_at = now(), disabled_reason = 'webhook_410'")
    assert (await machine.get(HOOK)).json()["disabled_reason"] == "webhook_410"
    refused = await machine.post(HOOK + "test/")
    assert refused.status_code == 409
    assert "PUT" in refused.json()["detail"]
    since = {"since": "2020-01-01T00:00:00Z"}
    assert (await machine.post(HOOK + "replay/", json=since)).status_code == 409
    assert (await put(machine))["disabled_at"] is None
    assert (await machine.post(HOOK + "test/")).status_code == 202


async def test_a_key_for_some_event_types_gets_no_webhook_of_all(
    anyone: httpx.AsyncClient, machine: httpx.AsyncClient, database: Database
) -> None:
    await put(machine)
    _, key = await create_api_key(database, "forum", event_types=["forum.*"])
    for response in (
        await anyone.put("/api/webhooks/mine/", json=SETTINGS, headers=bearer(key)),
        await anyone.post(HOOK + "rotate/", headers=bearer(key)),
    ):
        assert response.status_code == 403
        assert "--event-types" in response.json()["detail"]


async def test_five_days_of_failure_disable_a_webhook(db: Db, machine: httpx.AsyncClient) -> None:
    await put(machine)
    disable = "select name, reason from tocsin.disable_failing_webhooks(now(), now() - interval '1 minute')"
    db.execute("update tocsin.target set failing_since = now() - interval '119 hours'")
    assert rows(db, disable) == []
    db.execute("update tocsin.target set failing_since = now() - interval '121 hours'")
    assert rows(db, disable) == [("shop", "webhook_failing")]
    assert rows(db, "select from tocsin.wanted_webhook_type") == []


async def test_no_secret_is_logged(
    machine: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        secret = (await put(machine))["secret"]
        rotated = (await machine.post(HOOK + "rotate/")).json()["secret"]
    assert secret[6:] not in caplog.text
    assert rotated[6:] not in caplog.text


async def test_an_event_shows_the_messages_about_it(
    db: Db, machine: httpx.AsyncClient, people: None
) -> None:
    await put(machine)
    body = {"event_type": "recognition.received", "recipients": ["alice"], "title": "Thanks"}
    event_id = (await machine.post("/api/events/", json=body)).json()["event_id"]
    db.execute("select tocsin.queue_webhooks(10)")
    deliveries = (await machine.get(f"/api/events/{event_id}/")).json()["deliveries"]
    assert deliveries == {"webhook": {"queued": 1}}
