"""The operations page's server side: who is admitted, and what it shows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from litestar import Litestar

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import KEY, SECRET, URL, Db, NewNotification, bearer, transport_to
from tests.support.large_fan_out import fan_out_at_once, follow, notify_all
from tests.support.ledger import deliver
from tests.support.services import free_port, running, until
from tocsin.engine.badge.hub import BadgeHub
from tocsin.engine.model import ActorReport
from tocsin.engine.store.credential import create_api_key, revoke_api_keys
from tocsin.engine.store.database import Database
from tocsin.engine.store.installation import (
    Identity,
    ProcessReport,
    forget_process,
    processes,
    report_process,
)
from tocsin.http.app import create_app
from tocsin.settings import Settings

pytestmark = pytest.mark.own_app

OVERVIEW = "/ops/api/overview/"
DEAD = "/ops/api/dead-letters/"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


@pytest_asyncio.fixture
async def ops_key(database: Database) -> tuple[int, str]:
    return await create_api_key(database, "night shift", scopes=["ops"])


@pytest_asyncio.fixture
async def operator(app: Litestar, ops_key: tuple[int, str]) -> AsyncIterator[httpx.AsyncClient]:
    """Signed in with the page's form."""
    async with httpx.AsyncClient(
        transport=transport_to(app), base_url=URL, headers=SAME_ORIGIN
    ) as client:
        response = await client.post("/ops/session/", data={"key": ops_key[1]})
        assert response.status_code == 303
        yield client


# Who gets in.


async def test_without_a_session_the_page_asks_for_a_key(anyone: httpx.AsyncClient) -> None:
    response = await anyone.get("/ops/")
    assert response.status_code == 200
    assert "api-key create NAME --scope ops" in response.text
    assert "script-src 'self'" in response.headers["content-security-policy"]
    assert "unsafe" not in response.headers["content-security-policy"]
    assert "<script" not in response.text


async def test_the_form_signs_in_and_leads_to_the_page(
    anyone: httpx.AsyncClient, ops_key: tuple[int, str]
) -> None:
    response = await anyone.post("/ops/session/", data={"key": f" {ops_key[1]}\n"})
    assert response.status_code == 303
    assert response.headers["location"] == "../"
    cookie = response.headers["set-cookie"].lower()
    for attribute in ("httponly", "samesite=strict", "secure", "path=/ops;", "max-age=43200"):
        assert attribute in cookie + ";", attribute
    page = await anyone.get("/ops/")
    assert "night shift" in page.text
    assert 'type="module"' in page.text


async def test_what_a_link_asks_for_survives_signing_in(
    anyone: httpx.AsyncClient, ops_key: tuple[int, str]
) -> None:
    linked = await anyone.get("/ops/?q=a%22%26b", headers={"Sec-Fetch-Site": "cross-site"})
    assert "Already signed in?" in linked.text
    assert 'value="a&#34;&amp;b"' in linked.text
    wrong = await anyone.post("/ops/session/", data={"key": "x", "q": 'a"&b'})
    assert 'value="a&#34;&amp;b"' in wrong.text
    response = await anyone.post("/ops/session/", data={"key": ops_key[1], "q": 'a"&b\r\nX: y'})
    assert response.headers["location"] == "../?q=a%22%26b%0D%0AX%3A%20y#search"


async def test_json_signs_in_too(anyone: httpx.AsyncClient, ops_key: tuple[int, str]) -> None:
    assert (await anyone.post("/ops/session/", json={"key": ops_key[1]})).status_code == 204
    assert (await anyone.get(OVERVIEW)).status_code == 200


async def test_only_a_good_key_with_the_scope_signs_in(
    anyone: httpx.AsyncClient, database: Database, ops_key: tuple[int, str]
) -> None:
    _, app_key = await create_api_key(database, "an app")
    revoked_id, revoked = await create_api_key(database, "gone", scopes=["ops"])
    await revoke_api_keys(database, str(revoked_id))
    for key in ("", "tocsin_", "nonsense", app_key, revoked, ops_key[1] + "x"):
        form = await anyone.post("/ops/session/", data={"key": key})
        assert form.status_code == 401
        assert "no good key" in form.text
        assert "set-cookie" not in form.headers
        response = await anyone.post("/ops/session/", json={"key": key})
        assert response.status_code == 401
        assert "api-key create NAME --scope ops" in response.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.test"}, {"Origin": "null"}],
    ids=["fetch metadata", "origin", "an opaque origin"],
)
async def test_another_sites_page_signs_nobody_in(
    anyone: httpx.AsyncClient, ops_key: tuple[int, str], headers: dict[str, str]
) -> None:
    response = await anyone.post("/ops/session/", data={"key": ops_key[1]}, headers=headers)
    assert response.status_code == 403


async def test_another_sites_page_changes_nothing(operator: httpx.AsyncClient, db: Db) -> None:
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
        assert (await operator.post(f"{DEAD}replay/", json={}, headers=headers)).status_code == 403
        assert (await operator.delete("/ops/session/", headers=headers)).status_code == 403


async def test_a_revoked_key_ends_its_sessions(
    operator: httpx.AsyncClient, database: Database, ops_key: tuple[int, str]
) -> None:
    assert (await operator.get(OVERVIEW)).status_code == 200
    await revoke_api_keys(database, str(ops_key[0]))
    assert (await operator.get(OVERVIEW)).status_code == 401
    assert "API key" in (await operator.get("/ops/")).text


async def test_a_session_ends_after_its_time(operator: httpx.AsyncClient, db: Db) -> None:
    db.execute("update tocsin.ops_session set expires_at = now()")
    assert (await operator.get(OVERVIEW)).status_code == 401


async def test_signing_out_ends_the_session_itself(operator: httpx.AsyncClient) -> None:
    token = operator.cookies["tocsin_ops"]
    assert (await operator.delete("/ops/session/")).status_code == 204
    operator.cookies.clear()
    operator.cookies.set("tocsin_ops", token)
    assert (await operator.get(OVERVIEW)).status_code == 401


async def test_the_database_has_no_session_in_clear(operator: httpx.AsyncClient, db: Db) -> None:
    row = db.execute("select hash from tocsin.ops_session").fetchone()
    assert row is not None
    assert operator.cookies["tocsin_ops"].encode() not in row[0]


async def test_the_key_itself_is_taken_by_the_api(
    anyone: httpx.AsyncClient, ops_key: tuple[int, str]
) -> None:
    assert (await anyone.get(OVERVIEW, headers=bearer(ops_key[1]))).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", OVERVIEW),
        ("GET", DEAD),
        ("GET", f"{DEAD}reasons/"),
        ("POST", f"{DEAD}replay/"),
        ("GET", "/ops/api/search/?q=alice"),
        ("GET", "/ops/api/notifications/1/why/"),
        ("DELETE", "/ops/session/"),
    ],
)
async def test_nobody_else_learns_anything(
    anyone: httpx.AsyncClient,
    alice: httpx.AsyncClient,
    machine: httpx.AsyncClient,
    method: str,
    path: str,
) -> None:
    for client, status in ((anyone, 401), (alice, 401), (machine, 403)):
        assert (await client.request(method, path, headers=SAME_ORIGIN)).status_code == status


async def test_an_ops_key_is_no_apps(anyone: httpx.AsyncClient, ops_key: tuple[int, str]) -> None:
    assert (await anyone.get("/api/events/", headers=bearer(ops_key[1]))).status_code == 403


async def test_behind_a_prefix_the_cookie_is_for_the_page_alone(
    database: Database, ops_key: tuple[int, str]
) -> None:
    settings = Settings(
        jwt_secret=SECRET, jwt_algorithms=("HS256",), public_url="http://intra.test/notify"
    )
    app = create_app(settings, database, BadgeHub(database), link_key=KEY)
    async with httpx.AsyncClient(
        transport=transport_to(app), base_url="http://intra.test"
    ) as client:
        slash = await client.get("/notify/ops")
        assert (slash.status_code, slash.headers["location"]) == (308, "ops/")
        response = await client.post("/notify/ops/session/", data={"key": ops_key[1]})
        cookie = response.headers["set-cookie"].lower()
        assert "path=/notify/ops;" in cookie + ";"
        assert "secure" not in cookie  # the browser would not send it back
        page = await client.get("/notify/ops/")
        assert 'src="../assets/' in page.text


async def test_without_a_database_the_page_shows_it(
    operator: httpx.AsyncClient, database: Database
) -> None:
    await database.close()
    page = await operator.get("/ops/")
    assert page.status_code == 503
    assert "The database does not respond" in page.text
    assert (await operator.get(OVERVIEW)).status_code == 503


# What it shows.


async def test_the_overview_counts_what_ended_and_what_waits(
    operator: httpx.AsyncClient, db: Db, people: None
) -> None:
    deliver(db, "sent", n=20, took="250 milliseconds")
    deliver(db, "failed", reason="smtp_550_5.1.1", n=3)
    db.execute("select tocsin.notify('forum.new_reply', array['alice'], 'x')")
    found = (await operator.get(OVERVIEW)).json()
    email = next(each for each in found["channels"] if each["channel"] == "email")
    assert email["last_minute"] == {"sent": 20, "failed": 3}
    assert email["total"]["sent"] == 20
    assert 0.2 < email["latency"]["p50"] < 0.3
    assert email["waiting"] == {"queued": 1}
    assert len(found["times"]) == len(email["series"]["ended"]["sent"]) == 60
    (ended,) = found["ended"]
    assert (ended["reason"], ended["n"]) == ("smtp_550_5.1.1", 3)
    assert "does not exist" in ended["meaning"]


async def test_the_day_has_ten_minutes_a_step(operator: httpx.AsyncClient) -> None:
    found = (await operator.get(OVERVIEW, params={"window": "day"})).json()
    assert (found["step"], len(found["times"])) == (600, 144)
    refused = await operator.get(OVERVIEW, params={"window": "year"})
    assert refused.status_code == 422
    assert refused.json()["errors"] == [
        {"field": "window", "message": "Invalid enum value 'year'. Give one of: day, hour."}
    ]


async def test_processes_report_their_state(
    operator: httpx.AsyncClient, database: Database, db: Db
) -> None:
    actor = ActorReport(
        "email", 3, 256, 4, 4, 10.0, "open", 1, None, "smtp_connect_refused", 60.0, 12.0
    )
    identity = Identity(
        process_id="6f1ed002-ab55-4b5f-8d33-1a2b3c4d5e6f",  # type: ignore[arg-type]
        kind="worker",
        host="box",
        pid=7,
        version="1",
        started_at=datetime.now(UTC),
    )
    await report_process(database, identity, ProcessReport(leading=True, actors=[actor]))
    found = (await operator.get(OVERVIEW)).json()
    (worker,) = found["processes"]
    assert (worker["kind"], worker["pid"], worker["silent"], worker["leading"]) == (
        "worker",
        7,
        False,
        True,
    )
    (seen,) = worker["actors"]
    since = datetime.fromisoformat(seen["since"])
    assert timedelta(seconds=59) < datetime.now(UTC) - since < timedelta(seconds=75)
    assert {each["code"] for each in found["problems"]} == {"breaker", "crashes"}
    await forget_process(database, identity.process_id)
    assert await processes(database) == []


async def test_dead_letters_are_listed_with_masked_addresses_and_replayed(
    operator: httpx.AsyncClient, db: Db, people: None
) -> None:
    db.execute("update tocsin.channel set available = true")
    (delivery_id, *_) = deliver(db, "failed", reason="smtp_550_5.7.1", n=3)
    listed = (await operator.get(DEAD, params={"reason": "smtp_550_5.7.1", "limit": "2"})).json()
    assert [each["address"] for each in listed["results"]] == ["a***e@example.com"] * 2
    rest = (await operator.get(DEAD, params={"cursor": listed["next"]})).json()
    assert [each["delivery_id"] for each in rest["results"]] == [delivery_id]
    reasons = (await operator.get(f"{DEAD}reasons/")).json()
    assert [(each["reason"], each["n"]) for each in reasons["results"]] == [("smtp_550_5.7.1", 3)]
    one = await operator.post(f"{DEAD}replay/", json={"delivery_ids": [delivery_id]})
    assert one.json() == {"replayed": 1, "kept": {}, "next": None}
    rest = (await operator.post(f"{DEAD}replay/", json={"channel": "email"})).json()
    assert rest == {"replayed": 2, "kept": {}, "next": None}
    both = {"delivery_ids": [1], "channel": "email"}
    assert (await operator.post(f"{DEAD}replay/", json=both)).status_code == 422


async def test_search_finds_people_events_and_notifications(
    operator: httpx.AsyncClient, new_notification: NewNotification, db: Db
) -> None:
    notification_id = new_notification(title="Lost mail")
    (event_id,) = db.execute("select event_id from tocsin.event").fetchone()  # type: ignore[misc]
    person = (await operator.get("/ops/api/search/", params={"q": "alice"})).json()
    assert person["people"][0]["email"] == "a***e@example.com"
    assert [each["title"] for each in person["people"][0]["notifications"]] == ["Lost mail"]
    by_address = (await operator.get("/ops/api/search/", params={"q": " Alice@EXAMPLE.com"})).json()
    assert [each["id"] for each in by_address["people"]] == ["alice"]
    event = (await operator.get("/ops/api/search/", params={"q": str(event_id)})).json()
    assert event["event"]["event"]["title"] == "Lost mail"
    assert [each["recipient_id"] for each in event["event"]["notifications"]] == ["alice"]
    note = (await operator.get("/ops/api/search/", params={"q": str(notification_id)})).json()
    assert note["notification_id"] == notification_id
    for unknown in ("nobody", "9" * 19, "9" * 30, "-1", "no@where.test", "²"):
        found = (await operator.get("/ops/api/search/", params={"q": unknown})).json()
        assert found == {"people": [], "event": None, "notification_id": None}
    assert (await operator.get("/ops/api/search/")).status_code == 422


async def test_why_is_explained_in_full(operator: httpx.AsyncClient, db: Db, people: None) -> None:
    deliver(db, "failed", reason="smtp_550_5.1.1")
    (notification_id,) = db.execute(  # type: ignore[misc]
        "select notification_id from tocsin.notification"
    ).fetchone()
    found = (await operator.get(f"/ops/api/notifications/{notification_id}/why/")).json()
    email = next(each for each in found["channels"] if each["channel"] == "email")
    (delivery,) = email["deliveries"]
    assert (delivery["state"], delivery["address"]) == ("failed", "a***e@example.com")
    assert len(delivery["attempts"]) == 1
    assert (await operator.get("/ops/api/notifications/999/why/")).status_code == 404


async def test_nothing_shows_an_address_in_clear(
    operator: httpx.AsyncClient, db: Db, people: None
) -> None:
    deliver(db, "failed", reason="smtp_550_5.1.1")
    db.execute("select tocsin.notify_email('new@example.com', 'event.invited', 'Come')")
    (invited,) = db.execute("select max(notification_id) from tocsin.notification").fetchone()  # type: ignore[misc]
    for path in (
        DEAD,
        "/ops/api/search/?q=alice",
        f"/ops/api/search/?q={invited}",
        f"/ops/api/notifications/{invited}/why/",
    ):
        text = (await operator.get(path)).text
        assert "@example.com" not in text.replace("***e@example.com", "").replace(
            "***w@example.com", ""
        ), path


# Real processes.


async def test_real_processes_report_and_take_their_word_back(
    dsn: str, db: Db, database: Database, tmp_path: Path
) -> None:
    common = {"database_url": dsn, "public_url": URL, "data_dir": str(tmp_path)}
    http = {**common, "port": str(free_port()), "jwt_secret": SECRET}
    mail = {**common, "smtp_url": f"smtp://127.0.0.1:{free_port()}"}  # nobody is there
    async with (
        running("serve", log=tmp_path / "serve.log", settings=http),
        running("worker", log=tmp_path / "worker.log", settings=mail) as worker,
    ):

        async def both() -> Any:
            found = await processes(database)
            return found if len(found) == 2 else None

        serve, work = sorted(await until(both), key=lambda each: each.kind)
        assert (serve.kind, work.kind) == ("serve", "worker")
        assert "email" in [each.name for each in work.report.actors]
        # one each: a person's go together, and one mail's failures take long to be five
        everybody = [f"person{i}" for i in range(8)]
        db.execute(
            "select tocsin.upsert_recipient(p, p || '@example.com') from unnest(%s::text[]) p",
            (everybody,),
        )
        db.execute("select tocsin.notify('forum.new_reply', %s, 'x')", (everybody,))

        async def broken() -> bool:
            found = [each for each in await processes(database) if each.kind == "worker"]
            actors = [actor for each in found for actor in each.report.actors]
            states = [
                (each.breaker, each.breaker_reason) for each in actors if each.name == "email"
            ]
            return any(
                breaker != "closed" and reason == "smtp_connect_refused"
                for breaker, reason in states
            )

        await until(broken)
        await until(lambda: db.execute("select from tocsin.delivery_minute").fetchone() is not None)
        await worker.stop()
        assert [each.kind for each in await processes(database)] == ["serve"]
    assert await processes(database) == []


# Suppressed addresses.


async def test_an_operator_lifts_a_suppressed_address(
    operator: httpx.AsyncClient, anyone: httpx.AsyncClient, db: Db
) -> None:
    db.execute(
        "insert into tocsin.suppression (address, reason) values ('alice@example.com', 'complaint')"
    )
    path = "/ops/api/suppressions/"
    (listed,) = (await operator.get(path)).json()["results"]
    assert (listed["address"], listed["reason"]) == ("a***e@example.com", "complaint")
    assert "marked a mail as spam" in listed["meaning"]
    foreign = {"Sec-Fetch-Site": "cross-site"}
    refused = await operator.delete(f"{path}{listed['id']}/", headers=foreign)
    assert refused.status_code == 403
    assert (await operator.delete(f"{path}{listed['id']}/")).status_code == 204
    assert (await operator.get(path)).json()["results"] == []
    assert (await operator.delete(f"{path}{listed['id']}/")).status_code == 404


async def test_the_overview_counts_what_came_back_on_the_last_day(
    operator: httpx.AsyncClient, db: Db
) -> None:
    (delivery_id,) = deliver(db, "sent")
    db.execute(
        "insert into tocsin.mail_event (source, key, kind, reason, dead, delivery_id, occurred_at, received_at)"
        " select 'dsn', sha256((k || a)::bytea), k, k, true, %s, now(), now() - a"
        " from (values ('bounce', interval '1 hour'), ('complaint', '2 hours'), ('bounce', '2 days')) v (k, a)",
        (delivery_id,),
    )
    counts = (await operator.get(OVERVIEW)).json()["mail_events"]
    assert (counts["bounces"], counts["dead"], counts["complaints"]) == (1, 1, 1)


async def test_running_fan_outs_are_shown_with_their_progress(
    operator: httpx.AsyncClient, db: Db
) -> None:
    fan_out_at_once(db, 10)
    follow(db, 30)
    event_id = notify_all(db)
    db.execute("select tocsin.advance_fan_outs(12)")
    (shown,) = (await operator.get(OVERVIEW)).json()["fan_outs"]
    assert shown.pop("since")
    assert shown == {
        "event_id": event_id,
        "event_type": "forum.new_thread",
        "title": "News",
        "fanned_out": 12,
        "total": 30,
    }
