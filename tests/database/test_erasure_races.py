"""Erasure beside other transactions, of addresses without an account, and of suppressions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from uuid import UUID

import httpx
import psycopg
import pytest

from tests.support.canary import EMAIL, ID, INVITED, emit, for_others, holding, person, value
from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tests.support.services import until
from tocsin.engine.store.database import Database
from tocsin.engine.store.recipient import erase_recipient
from tocsin.sql import load

NOW = "2026-01-01T00:00:00Z"


@pytest.fixture
def other(dsn: str) -> Iterator[Db]:
    """An app's connection, on which a transaction stays open."""
    with psycopg.connect(dsn) as connection:
        yield connection


@pytest.mark.parametrize("order", ["app first", "erasure first", "an old snapshot"])
async def test_what_an_open_transaction_commits_is_erased_too(
    db: Db, other: Db, dsn: str, machine: httpx.AsyncClient, order: str
) -> None:
    await person(machine)
    db.execute("select tocsin.upsert_recipient('bob', 'bob@example.com')")
    if order == "an old snapshot":
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        assert value(other, "select count(*) from tocsin.recipient") == 2
    else:
        _write_all(other)
    with psycopg.connect(dsn) as erasing:
        assert value(erasing, "select tocsin.erase_recipient(%s)", ID) is True
        if order == "app first":
            other.commit()
        erasing.commit()
    assert value(db, "select tocsin.finish_erasures()") == (0 if order == "app first" else 1)
    if order == "an old snapshot":
        _write_all(other)
    other.commit()
    if order != "app first":
        assert holding(db), "there is something to delete"
    assert value(db, "select tocsin.finish_erasures()") == 0
    assert holding(db) == set()
    assert value(db, "select count(*) from tocsin.notification where recipient_id = 'bob'") == 2
    assert value(db, "select count(*) from tocsin.erasure") == 0


def _write_all(app: Db) -> None:
    """What an app's transaction may write of a person without a lock on them."""
    emit(app, idempotency_key="canary key")
    emit(app, send_at="2030-01-01")
    for_others(app, recipients=["bob", ID], metadata={"mentions": [ID]})
    for_others(app, initiator=ID, metadata={"initiator": ID, "mentions": [ID]})
    for_others(app, recipients=["bob", ID], send_at="2030-01-01")
    emit(app, email=EMAIL)
    app.execute("select tocsin.subscribe(%s, 'canary:topic')", (ID,))


async def test_the_outcome_of_a_worker_brings_nothing_back(
    db: Db, dsn: str, database: Database, machine: httpx.AsyncClient
) -> None:
    await person(machine)
    claim = UUID(int=7)
    for _ in range(2):
        emit(db)
    db.execute(
        "update tocsin.delivery set state = 'sending', attempts = 1, claim = %s where channel = 'email'",
        (claim,),
    )
    early, late = (
        row[0]
        for row in db.execute(
            "select delivery_id from tocsin.delivery where channel = 'email' order by 1"
        )
    )
    # one is written down, but not committed, as the erasure comes to it
    with psycopg.connect(dsn) as worker:
        assert _settle(worker, early, claim) == [early]
        erasing = asyncio.create_task(erase_recipient(database, ID))
        await until(
            lambda: value(
                db, "select count(*) from pg_locks where not granted and locktype = 'transactionid'"
            )
        )
        worker.commit()
        await erasing
        # the other one after it
        assert _settle(worker, late, claim) == []
        worker.commit()
    assert value(db, "select tocsin.finish_erasures()") == 0
    assert holding(db) == set()
    assert value(db, "select count(*) from tocsin.attempt") == 0
    # what the worker had found before stays in force
    assert value(db, "select reason from tocsin.suppression") == "smtp_550_5.1.1"


def _settle(worker: Db, delivery_id: int, claim: UUID) -> list[int]:
    """Writes down that the server knows no such mailbox."""
    arguments = {
        "delivery_ids": [delivery_id],
        "claims": [claim],
        "states": ["failed"],
        "reasons": ["smtp_550_5.1.1"],
        "delays": [None],
        "outcomes": ["permanent"],
        "attempt_reasons": ["smtp_550_5.1.1"],
        "addresses": [EMAIL],
        "checked_ats": [NOW],
        "provider_ids": ["canary provider id"],
        "providers": ["mail.example.com:587"],
        "dead": [True],
        "dead_sinces": [None],
    }
    return [row[0] for row in worker.execute(load("delivery")["settle"], arguments).fetchall()]


async def test_a_suppression_outlives_its_address(db: Db, machine: httpx.AsyncClient) -> None:
    await person(machine)
    db.execute(
        "insert into tocsin.suppression (address, reason) values (%s, 'complaint')", (EMAIL,)
    )
    db.execute("select tocsin.erase_recipient(%s)", (ID,))
    assert db.execute("select address, reason from tocsin.suppression").fetchall() == [
        (None, "complaint")
    ]
    # to somebody new at that address nothing goes, nor to the address alone
    invited = emit(db, email=EMAIL)
    db.execute("select tocsin.upsert_recipient('new', %s)", (EMAIL.upper(),))
    one, few = (
        emit(db, recipients=["new"]),
        emit(db, recipients=["new", "new"], event_type="forum.mention"),
    )
    db.execute("insert into tocsin.preference values ('new', 'forum.*', 'in_app', true)")
    chosen = emit(db, recipients=["new"])
    for event_id in (invited, one, few, chosen):
        reason = value(
            db,
            "select decisions #>> '{email,1}' from tocsin.notification where event_id = %s",
            event_id,
        )
        assert reason == "suppressed"
    held = (await machine.get("/api/recipients/new/export/")).json()
    assert held["suppression"] == "complaint"
    assert [each["address"] for each in held["suppressions"]] == [EMAIL]
    # and where it came about after the decision, the check right before sending finds it
    db.execute("update tocsin.notification set decisions = '{}'")
    delivery = value(
        db,
        "insert into tocsin.delivery (notification_id, event_id, recipient_id, channel, created_at)"
        " select notification_id, event_id, recipient_id, 'email', now() from tocsin.notification where event_id = %s"
        " returning delivery_id",
        one,
    )
    assert value(db, "select withheld from tocsin.delivery_snapshot(%s)", delivery) == "suppressed"


async def test_an_address_without_an_account_is_erased(
    db: Db, other: Db, machine: httpx.AsyncClient
) -> None:
    emit(db, email=INVITED, idempotency_key="canary key")
    emit(db, email=INVITED, send_at="2030-01-01")
    db.execute("update tocsin.delivery set address = %s", (INVITED,))
    db.execute(
        "insert into tocsin.suppression (address, reason) values (%s, 'unsubscribed')", (INVITED,)
    )
    emit(other, email=INVITED)  # open
    kept = for_others(db, email="bob@example.com")
    erased = await machine.post("/api/erasures/", json={"email": INVITED.upper()})
    assert erased.status_code == 204, erased.text
    assert holding(db) <= {"tocsin.erasure.addresses"}
    other.commit()
    after = for_others(db, email=INVITED)  # a new invitation is none of the old ones
    assert value(db, "select tocsin.finish_erasures()") == 0
    assert value(db, "select array_agg(event_id order by 1) from tocsin.event") == [kept, after]
    assert value(db, "select count(*) from tocsin.suppression where address is null") == 1
    await machine.post("/api/erasures/", json={"email": INVITED})
    assert holding(db) == set()
    assert (await machine.post("/api/erasures/", json={"email": INVITED})).status_code == 404

    await person(machine)
    owned = await machine.post("/api/erasures/", json={"email": EMAIL})
    assert owned.status_code == 422
    assert owned.json()["errors"][0]["field"] == "email"
    wrong = await machine.post("/api/erasures/", json={"email": "nobody"})
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "email")


def test_mentions_are_found_by_an_index(db: Db) -> None:
    db.execute(
        "insert into tocsin.event (event_type, title, body, metadata, caller, created_at, fanned_out_at)"
        " select 'forum.mention', 'x', '', jsonb_build_object('mentions', jsonb_build_array('p' || i)), 'app',"
        " now(), now() from generate_series(1, 2000) i"
    )
    db.execute("analyze tocsin.event")
    # a few thousand rows would be read faster as a whole; the plan is the one for any id
    db.execute("set enable_seqscan = off")
    db.execute("set plan_cache_mode = force_generic_plan")
    db.execute(
        "prepare mentioning (text) as select from tocsin.event e where tocsin.is_mentioned(e.metadata, $1)"
    )
    plan = str(db.execute("explain execute mentioning ('7')").fetchall())
    assert plan.count("Bitmap Index Scan on event_mentions") == 2, plan


def test_a_mention_by_a_number_or_alone_is_found(db: Db) -> None:
    db.execute("select tocsin.upsert_recipient('7'), tocsin.upsert_recipient('bob')")
    for mentions, left in (([7, 8, "bob"], [8, "bob"]), ("7", None), ([["7"]], [["7"]])):
        event_id = for_others(db, metadata={"mentions": mentions})
        db.execute("select tocsin.erase_from_events('7')")
        assert (
            value(
                db, "select metadata -> 'mentions' from tocsin.event where event_id = %s", event_id
            )
            == left
        )
