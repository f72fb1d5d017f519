"""Mail that comes back: the reports of those who have a key, and what each of them changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from litestar import Litestar

from tests.support import reports
from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import KEY, URL, Db, bearer, transport_to
from tests.support.ledger import deliver
from tocsin.engine.mail.links import make_tag
from tocsin.engine.store.credential import create_api_key
from tocsin.engine.store.database import Database
from tocsin.engine.store.mail_event import apply_mail_events

GENERIC, DSN = "/api/mail-events/generic/", "/api/mail-events/dsn/"
NOW = datetime.now(UTC)
NO_HOLD = timedelta(0)


@pytest_asyncio.fixture
async def reporter(app: Litestar, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """A mail server with a key of the scope."""
    _, key = await create_api_key(database, "mail server", scopes=["mail-events"])
    transport = transport_to(app)
    async with httpx.AsyncClient(transport=transport, base_url=URL, headers=bearer(key)) as client:
        yield client


@pytest.fixture(autouse=True)
def everybody(people: None, db: Db) -> None:
    """Alice, Bob and Carol, and mail."""
    db.execute("update tocsin.channel set available = true")


def tag(delivery_id: int) -> str:
    return make_tag(KEY, delivery_id)


def bounce(delivery_id: int, status: str | None = "5.1.1", **named: Any) -> dict[str, Any]:
    return {
        "id": f"bounce of {delivery_id}",
        "kind": "bounce",
        "status": status,
        "tag": tag(delivery_id),
        **named,
    }


async def report(client: httpx.AsyncClient, *events: dict[str, Any]) -> dict[str, int]:
    response = await client.post(GENERIC, json={"events": events})
    assert response.status_code == 200, response.text
    counts: dict[str, int] = response.json()
    return counts


async def decide(database: Database) -> dict[str, int]:
    """Decides what waits, as if the time to hold bounces were over."""
    return await apply_mail_events(database, hold=NO_HOLD)


def suppressed(db: Db) -> list[tuple[str, str]]:
    rows = db.execute("select address, reason from tocsin.suppression order by address").fetchall()
    return [(address, reason) for address, reason in rows]


async def email_sentence(client: httpx.AsyncClient, delivery_id: int, db: Db) -> str:
    row = db.execute(
        "select notification_id from tocsin.delivery where delivery_id = %s", (delivery_id,)
    ).fetchone()
    assert row is not None
    response = await client.get(f"/api/notifications/{row[0]}/why/")
    (email,) = [each for each in response.json()["channels"] if each["channel"] == "email"]
    sentence: str = email["sentence"]
    return sentence


# What a report changes.


async def test_a_bounce_of_a_dead_mailbox_suppresses_the_address_that_the_mail_went_to(
    reporter: httpx.AsyncClient, alice: httpx.AsyncClient, database: Database, db: Db
) -> None:
    (delivery_id,) = deliver(db, "sent", ago="2 minutes")
    event = bounce(delivery_id, address="bob@example.com")  # a report may name whom it wants
    assert await report(reporter, event) == {"recorded": 1, "known": 0, "ignored": 0}
    assert suppressed(db) == []  # held, until it is no mass rejection
    assert await decide(database) == {"suppressed": 1}
    assert suppressed(db) == [("alice@example.com", "bounce_5.1.1")]
    assert "The mailbox does not exist (bounced two minutes after it was sent)." in (
        await email_sentence(alice, delivery_id, db)
    )
    assert db.execute("select state from tocsin.delivery").fetchone() == ("sent",)


@pytest.mark.parametrize("status", ["5.2.2", "5.7.1", "4.4.7", "5.1.8", None])
async def test_another_bounce_is_shown_and_suppresses_nobody(
    reporter: httpx.AsyncClient,
    alice: httpx.AsyncClient,
    database: Database,
    db: Db,
    status: str | None,
) -> None:
    (delivery_id,) = deliver(db, "sent")
    await report(reporter, bounce(delivery_id, status))
    assert await decide(database) == {}  # decided at once
    assert suppressed(db) == []
    assert "(bounced less than a minute after it was sent)" in (
        await email_sentence(alice, delivery_id, db)
    )


async def test_a_complaint_suppresses_and_turns_the_categorys_email_off(
    reporter: httpx.AsyncClient, alice: httpx.AsyncClient, machine: httpx.AsyncClient, db: Db
) -> None:
    choices = {"overrides": {"forum.mention": {"email": True}, "forum.new_reply": {"push": True}}}
    await alice.patch("/api/notification-preferences/", json=choices)
    (delivery_id,) = deliver(db, "sent", ago="3 days")
    await report(reporter, {"id": "1", "kind": "complaint", "tag": tag(delivery_id)})
    assert suppressed(db) == [("alice@example.com", "complaint")]
    preferences = (await alice.get("/api/notification-preferences/")).json()
    assert preferences["complaints"] == ["forum.*", "forum.mention"]
    assert preferences["event_types"]["forum.mention"] == {
        "in_app": True,
        "email": False,
        "push": True,
    }
    assert preferences["event_types"]["election.opened"]["email"]
    assert "You marked it as spam (three days after it was sent)." in (
        await email_sentence(alice, delivery_id, db)
    )
    # lifted, the choice stays
    await machine.delete("/api/suppressions/alice@example.com/")
    db.execute("select tocsin.notify('forum.new_reply', array['alice'], 'New')")
    listed = (await alice.get("/api/notifications/", params={"limit": 1})).json()["results"]
    why = (await alice.get(f"/api/notifications/{listed[0]['id']}/why/")).json()["channels"]
    email = next(each for each in why if each["channel"] == "email")
    assert (email["decision"], email["reason"]) == ("off", "preference")
    assert email["sentence"] == "Email is off: you marked a mail about everything in Forum as spam."
    # chosen again by the person, it is theirs
    choice = {"overrides": {"forum.*": {"email": True}, "forum.mention": {"email": None}}}
    changed = (await alice.patch("/api/notification-preferences/", json=choice)).json()
    assert changed["complaints"] == []
    assert changed["event_types"]["forum.new_reply"]["email"]


async def test_a_complaint_about_several_in_one_mail_is_about_each_category(
    reporter: httpx.AsyncClient, alice: httpx.AsyncClient, db: Db
) -> None:
    (first,) = deliver(db, "sent")
    (second,) = deliver(db, "sent", event_type="election.opened")
    db.execute("update tocsin.delivery set burst_id = %s", (first,))
    await report(reporter, {"id": "1", "kind": "complaint", "tag": tag(first)})
    preferences = (await alice.get("/api/notification-preferences/")).json()
    assert preferences["complaints"] == ["election.*", "forum.*"]
    for delivery_id in (first, second):
        assert "You marked it as spam" in await email_sentence(alice, delivery_id, db)


async def test_a_complaint_about_a_digest_turns_it_off(
    reporter: httpx.AsyncClient, alice: httpx.AsyncClient, db: Db
) -> None:
    await alice.patch("/api/digest-preferences/", json={"frequency": "daily"})
    db.execute("select tocsin.notify('forum.new_reply', array['alice'], 'New')")
    db.execute("select tocsin.assemble_digests(now() + interval '2 days', 100)")
    row = db.execute(
        "update tocsin.delivery set state = 'sent', address = 'alice@example.com', settled_at = now()"
        " where digest_id is not null returning delivery_id"
    ).fetchone()
    assert row is not None
    await report(reporter, {"id": "1", "kind": "complaint", "tag": tag(row[0])})
    assert (await alice.get("/api/digest-preferences/")).json()["frequency"] == "off"
    assert (await alice.get("/api/notification-preferences/")).json()["complaints"] == []


async def test_an_event_shows_how_many_of_its_mails_came_back(
    reporter: httpx.AsyncClient, machine: httpx.AsyncClient, db: Db
) -> None:
    first, second, _third = deliver(db, "sent", n=3)
    await report(reporter, bounce(first), bounce(second, "5.2.2"))
    row = db.execute("select event_id from tocsin.event").fetchone()
    assert row is not None
    event = (await machine.get(f"/api/events/{row[0]}/")).json()
    assert event["mail_events"] == {"bounce": 2}
    assert event["deliveries"]["email"] == {"sent": 3}


async def test_app_webhooks_are_sent_each_delivery_that_came_back_once(
    reporter: httpx.AsyncClient, database: Database, db: Db
) -> None:
    db.execute(
        "insert into tocsin.target (channel, name, url, events)"
        " values ('webhook', 'app', 'https://app.test/', '{delivery.bounced}')"
    )
    (first,) = deliver(db, "sent")
    (second,) = deliver(db, "sent", event_type="election.opened")
    db.execute("update tocsin.delivery set burst_id = %s", (first,))
    await report(reporter, bounce(first))
    await report(reporter, bounce(first, id="by another source"))
    await decide(database)
    await report(reporter, {"id": "2", "kind": "complaint", "tag": tag(first)})
    outbox = "select type, ids, data ->> 'reason' from tocsin.webhook_outbox order by 3, 2"
    assert db.execute(outbox).fetchall() == [
        ("delivery.bounced", [first], "bounce_5.1.1"),
        ("delivery.bounced", [second], "bounce_5.1.1"),
        ("delivery.bounced", [first], "complaint"),
        ("delivery.bounced", [second], "complaint"),
    ]


# When it comes, and how often.


async def test_a_report_that_comes_twice_counts_once(
    reporter: httpx.AsyncClient, database: Database, db: Db
) -> None:
    (delivery_id,) = deliver(db, "sent")
    event = bounce(delivery_id)
    assert await report(reporter, event, event) == {"recorded": 1, "known": 1, "ignored": 0}
    assert await report(reporter, event) == {"recorded": 0, "known": 1, "ignored": 0}
    assert await decide(database) == {"suppressed": 1}
    # lifted since, the same report changes nothing
    db.execute("delete from tocsin.suppression")
    await report(reporter, event)
    assert await decide(database) == {}
    assert suppressed(db) == []


@pytest.mark.parametrize("by", ["tag", "provider_id"])
async def test_a_report_before_our_own_sent_waits_for_the_address(
    reporter: httpx.AsyncClient, database: Database, db: Db, by: str
) -> None:
    (delivery_id,) = deliver(db, "sending")
    db.execute("update tocsin.delivery set address = 'old@example.com', settled_at = null")
    event = {"id": "1", "kind": "complaint", "tag": tag(delivery_id)}
    if by == "provider_id":
        event = {"id": "1", "kind": "complaint", "provider_id": "0102-aa"}
        event["address"] = "Alice@Example.com"
    await report(reporter, event)
    assert await decide(database) == {}
    assert suppressed(db) == []
    db.execute(
        "update tocsin.delivery set state = 'sent', address = 'alice@example.com',"
        " provider_id = '0102-aa', settled_at = now()"
    )
    assert await decide(database) == {"suppressed": 1}
    assert suppressed(db) == [("alice@example.com", "complaint")]
    assert db.execute("select count(address) from tocsin.mail_event").fetchone() == (0,)


async def test_the_providers_id_finds_digests_and_mails_to_people_without_an_account(
    reporter: httpx.AsyncClient, database: Database, db: Db
) -> None:
    db.execute("select tocsin.notify_email('zoe@example.org', 'event.invited', 'Come')")
    db.execute(
        "update tocsin.delivery set state = 'sent', address = 'zoe@example.org', provider_id = 'q1', settled_at = now()"
    )
    found = {"kind": "complaint", "provider_id": "q1"}
    await report(reporter, {"id": "1", "address": "bob@example.com", **found})  # another's
    assert suppressed(db) == []
    await report(reporter, {"id": "2", "address": "zoe@example.org", **found})
    assert suppressed(db) == [("zoe@example.org", "complaint")]


async def test_a_report_on_an_unknown_mail_is_recorded_and_suppresses_nobody(
    reporter: httpx.AsyncClient, database: Database, db: Db
) -> None:
    (delivery_id,) = deliver(db, "sent")
    forged = f"{delivery_id}.{'0' * 12}"
    await report(
        reporter,
        bounce(delivery_id, tag=forged, address="alice@example.com"),
        {"id": "2", "kind": "complaint", "tag": tag(delivery_id + 1)},
        {"id": "3", "kind": "complaint", "provider_id": "x", "address": "alice@example.com"},
    )
    effects = (
        "select key = sha256('3'), effect, address from tocsin.mail_event order by mail_event_id"
    )
    assert db.execute(effects).fetchall() == [
        (False, "unknown", None),
        (False, "unknown", None),
        (True, None, "alice@example.com"),  # searched for an hour
    ]
    db.execute("update tocsin.mail_event set received_at = now() - interval '61 minutes'")
    assert await decide(database) == {"unknown": 1}
    assert db.execute(effects).fetchall()[2] == (True, "unknown", None)
    assert suppressed(db) == []


# The protection against a mass rejection.


async def test_a_mass_rejection_suppresses_nobody_and_one_dead_mailbox_among_many_is_suppressed(
    reporter: httpx.AsyncClient, database: Database, db: Db
) -> None:
    ids = [deliver(db, "sent", recipient=f"person{n}")[0] for n in range(10)]
    await report(reporter, *(bounce(each) for each in ids[:9]))
    await report(reporter, bounce(ids[9]))
    assert await decide(database) == {}  # all are decided, those that were held too
    effects = "select effect, count(*) from tocsin.mail_event group by effect"
    assert db.execute(effects).fetchall() == [("mass_rejection", 10)]
    assert suppressed(db) == []
    # most mails arrive again
    deliver(db, "sent", n=30)
    (dead,) = deliver(db, "sent", recipient="carol")
    await report(reporter, bounce(dead))
    assert await decide(database) == {"suppressed": 1}
    assert suppressed(db) == [("carol@example.com", "bounce_5.1.1")]


async def test_nine_dead_mailboxes_are_no_mass_rejection(
    reporter: httpx.AsyncClient, database: Database, db: Db
) -> None:
    ids = [deliver(db, "sent", recipient=f"person{n}")[0] for n in range(9)]
    await report(reporter, *(bounce(each) for each in ids))
    assert await decide(database) == {"suppressed": 9}


# The calls.


async def test_a_raw_bounce_is_recorded_and_what_is_none_is_ignored(
    reporter: httpx.AsyncClient, database: Database, db: Db
) -> None:
    (delivery_id,) = deliver(db, "sent")
    for raw, counts in (
        (reports.POSTFIX, {"recorded": 1, "known": 0, "ignored": 0}),
        (reports.POSTFIX, {"recorded": 0, "known": 1, "ignored": 0}),
        (reports.VACATION, {"recorded": 0, "known": 0, "ignored": 1}),
        (reports.DELAYED, {"recorded": 0, "known": 0, "ignored": 1}),
    ):
        content = reports.with_tag(raw, tag(delivery_id))
        headers = {"Content-Type": "message/rfc822"}
        response = await reporter.post(DSN, content=content, headers=headers)
        assert (response.status_code, response.json()) == (200, counts)
    assert await decide(database) == {"suppressed": 1}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"id": ""}, "events[0].id"),
        ({"kind": "unsubscribe"}, "events[0].kind"),
        ({"status": "550"}, "events[0].status"),
        ({"occurred_at": "2026-11-30T10:00:00"}, "events[0].occurred_at"),
        ({"recipient": "alice"}, "events[0].recipient"),
        ({"address": "alice"}, "events[0].address"),
    ],
)
async def test_a_wrong_report_is_refused_and_nothing_is_stored(
    reporter: httpx.AsyncClient, db: Db, wrong: dict[str, Any], field: str
) -> None:
    (delivery_id,) = deliver(db, "sent")
    body = {"events": [bounce(delivery_id) | wrong, bounce(delivery_id)]}
    response = await reporter.post(GENERIC, json=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field
    assert db.execute("select count(*) from tocsin.mail_event").fetchone() == (0,)


async def test_a_report_without_a_hint_to_its_mail_is_refused(
    reporter: httpx.AsyncClient, db: Db
) -> None:
    for hint in ({}, {"provider_id": "x"}, {"address": "alice@example.com"}):
        body = {"events": [{"id": "1", "kind": "bounce", **hint}]}
        response = await reporter.post(GENERIC, json=body)
        assert response.status_code == 422
        assert "tag" in response.json()["errors"][0]["message"]


async def test_too_much_and_nothing_is_refused(reporter: httpx.AsyncClient) -> None:
    assert (await reporter.post(DSN)).status_code == 422
    assert (await reporter.post(DSN, content=b"x" * 1_000_001)).status_code == 413
    event = {"id": "1", "kind": "bounce", "tag": "1"}
    assert (await reporter.post(GENERIC, json={"events": [event] * 501})).status_code == 422
