"""Webhooks through a running worker: an app is sent what happened, a person their notifications."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import standardwebhooks
from psycopg.types.json import Jsonb

from tests.support.services import Service, running, until
from tests.support.webhook_endpoint import SECRET, Endpoint
from tocsin.testing.far_end import Fault, Reply

Db = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def people(db: Db) -> None:
    for name in ("alice", "bob"):
        db.execute("select tocsin.upsert_recipient(%s)", (name,))


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with Endpoint(SECRET) as each:
        yield each


@pytest.fixture
async def worker(dsn: str, db: Db, tmp_path: Path) -> AsyncIterator[Service]:
    settings = {"database_url": dsn, "data_dir": str(tmp_path), "allow_private_endpoints": "1"}
    async with running("worker", log=tmp_path / "worker.log", settings=settings) as service:
        await service.wait_for_log("leading")
        yield service


def put(db: Db, name: str, url: str, events: list[str], recipient: str | None = None) -> None:
    db.execute(
        "insert into tocsin.target (channel, name, url, events, recipient_id, secrets) "
        "values ('webhook', %s, %s, %s, %s, %s)",
        (name, url, events, recipient, Jsonb([{"secret": SECRET}])),
    )


def notify(db: Db, *recipients: str, event_type: str = "recognition.received") -> None:
    db.execute(
        "select tocsin.notify(%s, %s, 'Thanks', 'For the cake')", (event_type, list(recipients))
    )


def states(db: Db, name: str) -> dict[str, int]:
    return dict(
        db.execute(
            "select d.state::text, count(*) from tocsin.delivery d join tocsin.target using (target_id) "
            "where name = %s group by 1",
            (name,),
        ).fetchall()
    )


def bodies(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [json.loads(body) for _, body in endpoint.received]


async def test_an_app_and_a_person_get_a_notification(
    db: Db, worker: Service, endpoint: Endpoint
) -> None:
    put(db, "app", endpoint.url + "/app", ["notification.created", "notification.read"])
    put(db, "alices", endpoint.url + "/alice", [], "alice")
    await until(lambda: available(db))
    notify(db, "alice", "bob")
    await until(lambda: len(endpoint.received) == 3)
    db.execute("select tocsin.mark_all_read('bob', null, null, null)")
    await until(lambda: len(endpoint.received) == 4)
    for headers, body in endpoint.received:
        standardwebhooks.Webhook(SECRET).verify(body, headers)
    found = bodies(endpoint)
    kinds = sorted((each["type"], each["data"]["recipient"]) for each in found)
    created = ("notification.created", "alice"), ("notification.created", "bob")
    assert kinds == [created[0], *created, ("notification.read", "bob")]
    (own,) = [each["data"] for each in found if "body" in each["data"]]
    assert (own["title"], own["body"], own["recipient"]) == ("Thanks", "For the cake", "alice")
    assert all(each["timestamp"].endswith("Z") for each in found)
    why = "select decisions -> 'webhook' from tocsin.notification order by recipient_id"
    assert db.execute(why).fetchall() == [(["on", "default"],), (None,)]


async def test_what_became_of_a_persons_delivery_is_sent_to_the_app_once(
    db: Db, worker: Service, endpoint: Endpoint
) -> None:
    put(db, "app", endpoint.url, ["delivery.sent", "delivery.failed"])
    put(db, "alices", endpoint.url + "/alice", [], "alice")
    put(db, "bobs", endpoint.url + "/bob", [], "bob")
    endpoint.script.always("/hook/bob", Reply(302))
    await until(lambda: available(db))
    notify(db, "alice", "bob")
    await until(lambda: states(db, "app") == {"sent": 2})
    reported = {
        each["data"]["recipient"]: each for each in bodies(endpoint) if "channel" in each["data"]
    }
    assert reported["alice"]["type"] == "delivery.sent"
    assert reported["bob"]["type"] == "delivery.failed"
    assert reported["bob"]["data"]["reason"] == "webhook_302"


async def test_a_retry_has_the_same_id_and_body(
    db: Db, worker: Service, endpoint: Endpoint
) -> None:
    put(db, "app", endpoint.url, ["notification.created"])
    endpoint.script.then("/hook", [Reply(500), Reply(500)])
    notify(db, "alice")
    await until(lambda: states(db, "app") == {"deferred": 1})
    failing = "select failing_since is not null from tocsin.target"
    assert db.execute(failing).fetchone() == (True,)
    db.execute("update tocsin.delivery set due_at = now() where state = 'deferred'")
    await until(lambda: endpoint.requests == 2)
    await until(lambda: states(db, "app") == {"deferred": 1})
    db.execute("update tocsin.delivery set due_at = now() where state = 'deferred'")
    await until(lambda: states(db, "app") == {"sent": 1})
    assert len({headers["webhook-id"] for headers, _ in endpoint.received}) == 1
    assert len({body for _, body in endpoint.received}) == 1
    assert db.execute(failing).fetchone() == (False,)


async def test_an_endpoint_that_hangs_delays_no_other(
    db: Db, worker: Service, endpoint: Endpoint
) -> None:
    async with Endpoint(SECRET) as hanging:
        hanging.script.always("/hook", Fault.HANG)
        put(db, "hanging", hanging.url, ["notification.created"])
        put(db, "quick", endpoint.url, ["notification.created"])
        db.execute(
            "select tocsin.upsert_recipient('p' || i) from generate_series(1, 1000) i",
        )
        notify(db, *(f"p{number}" for number in range(1, 1001)))
        await until(lambda: states(db, "quick") == {"sent": 1000})
        assert states(db, "hanging").get("sent") is None
        assert hanging.requests < 40  # a few at a time, and then hardly any


async def test_an_endpoint_that_is_gone_is_disabled(
    db: Db, worker: Service, endpoint: Endpoint
) -> None:
    put(db, "app", endpoint.url, ["notification.created"])
    endpoint.script.always("/hook", Reply(410))
    notify(db, "alice")
    await until(lambda: states(db, "app") == {"failed": 1})
    reason = "select disabled_reason from tocsin.target"
    assert db.execute(reason).fetchone() == ("webhook_410",)
    assert db.execute("select from tocsin.wanted_webhook_type").fetchall() == []


async def test_a_worker_that_is_killed_loses_nothing(
    db: Db, dsn: str, tmp_path: Path, endpoint: Endpoint
) -> None:
    settings = {"database_url": dsn, "data_dir": str(tmp_path), "allow_private_endpoints": "1"}
    put(db, "app", endpoint.url, ["notification.created"])
    db.execute("select tocsin.upsert_recipient('p' || i) from generate_series(1, 300) i")
    people = [f"p{number}" for number in range(1, 301)]
    async with running("worker", log=tmp_path / "1.log", settings=settings) as first:
        await first.wait_for_log("leading")
        notify(db, *people)
        await until(lambda: endpoint.requests > 20)
        await first.kill()
    db.execute("update tocsin.lease set until = now()")
    async with running("worker", log=tmp_path / "2.log", settings=settings):
        await until(lambda: states(db, "app") == {"sent": 300})
    reported = {each["data"]["recipient"] for each in bodies(endpoint)}
    assert reported == set(people)
    # what was sent twice has the same id, so a receiver can tell
    ids = {headers["webhook-id"] for headers, _ in endpoint.received}
    assert len(ids) == 300


async def test_a_private_address_is_refused_when_it_is_sent(
    db: Db, dsn: str, tmp_path: Path, endpoint: Endpoint
) -> None:
    """Whatever the name was at its registration."""
    put(db, "app", endpoint.url.replace("http:", "https:"), ["notification.created"])
    put(db, "name", f"https://localhost:{endpoint.port}/", ["notification.created"])
    settings = {"database_url": dsn, "data_dir": str(tmp_path)}
    async with running("worker", log=tmp_path / "worker.log", settings=settings) as service:
        await service.wait_for_log("leading")
        notify(db, "alice")
        await until(lambda: states(db, "app") == states(db, "name") == {"failed": 1})
    reasons = "select distinct reason from tocsin.delivery"
    assert db.execute(reasons).fetchall() == [("webhook_address_forbidden",)]
    assert endpoint.requests == 0
    log = service.log
    assert SECRET[6:] not in log
    assert str(endpoint.port) not in log


def available(db: Db) -> bool:
    row = db.execute("select available from tocsin.channel where channel = 'webhook'").fetchone()
    return row == (True,)
