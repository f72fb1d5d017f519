"""Erasure and export are whole: a person whose every value is a canary is put into all tables, and looked for there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import LINKS, Db
from tests.support.services import until
from tocsin.engine.store.database import Database
from tocsin.engine.store.recipient import erase_recipient
from tocsin.sql import load

ID = "canary/7"
EMAIL, OLD, INVITED, CLAIMED = (
    f"{name}-canary@example.com" for name in ("own", "old", "invited", "claimed")
)
# who is known by nothing unique: a language, zones that nobody else has
ZONES = ("Antarctica/Troll", "Antarctica/Vostok", "Indian/Kerguelen")
TRACE = "canary|Troll|Vostok|Kerguelen"
NOW = "2026-01-01T00:00:00Z"

# What can hold no personal data, whatever is stored there.
HARMLESS = {
    *(
        "smallint",
        "integer",
        "bigint",
        "boolean",
        "uuid",
        "interval",
        "bigint[]",
        "xid8",
        "pg_snapshot",
    ),
    *("timestamp with time zone", "time without time zone", "tocsin.delivery_state"),
    *("tocsin_queue.procrastinate_job_status", "tocsin_queue.procrastinate_job_event_type"),
}
# Columns of other types that hold no personal data, each with the reason. A test fails for a column that is neither
# here nor reached by what `canary` does: where it holds personal data, extend `canary`, the export and the erasure.
CODES = "one of the codes that docs/delivery.md lists, or the name of a channel, a type or a choice"
OPERATORS = "of the installation: what its operators name, its processes, its catalogue"
HASH = "a hash"
WITHOUT_PERSON: dict[str, str] = {
    "tocsin.api_key.*": OPERATORS,
    "tocsin.attempt.outcome": CODES,
    "tocsin.attempt.reason": CODES,
    "tocsin.category.*": OPERATORS,
    "tocsin.channel.*": OPERATORS,
    "tocsin.delivery.channel": CODES,
    "tocsin.delivery.reason": CODES,
    "tocsin.delivery_minute.*": CODES,
    "tocsin.device.disabled_reason": CODES,
    "tocsin.device.environment": CODES,
    "tocsin.device.platform": CODES,
    "tocsin.device.provider": CODES,
    "tocsin.digest.frequency": CODES,
    "tocsin.digest_preference.categories": CODES,
    "tocsin.digest_preference.frequency": CODES,
    "tocsin.erasure.*": "only until the transactions end that were open: the tests of these look at it",
    "tocsin.event.caller": OPERATORS,
    "tocsin.event.event_type": CODES,
    "tocsin.event_type.*": OPERATORS,
    "tocsin.idempotency.caller": OPERATORS,
    "tocsin.idempotency.fingerprint": HASH,
    "tocsin.action.key": CODES,
    "tocsin.inbox_change.change": CODES,
    "tocsin.event_queue.channel": CODES,
    "tocsin.lease.channel": CODES,
    "tocsin.migration.*": OPERATORS,
    "tocsin.notification.because": CODES,
    "tocsin.notification.decisions": CODES,
    "tocsin.notification.event_type": CODES,
    "tocsin.ops_session.hash": HASH,
    "tocsin.opt_out.key": HASH,
    "tocsin.opt_out.kept": "which scopes an opt-out changed",
    "tocsin.imported.source": CODES,
    "tocsin.imported.key": "the id of a row in the app's own tables",
    "tocsin.pending_change.change": CODES,
    "tocsin.pending_change.event_type": CODES,
    "tocsin.pending_change.subject": "the name of a thing of the app's, for seconds",
    "tocsin.preference.channel": CODES,
    "tocsin.preference.scope": CODES,
    "tocsin.process.*": OPERATORS,
    "tocsin.provider.*": OPERATORS,
    "tocsin.provider_token.*": OPERATORS,
    "tocsin.quiet_hours.starts": CODES,
    "tocsin.recipient.address_key": HASH,
    "tocsin.secret.*": OPERATORS,
    "tocsin.stream_ticket.hash": HASH,
    "tocsin.subscription.because": CODES,
    "tocsin.subscription.level": CODES,
    "tocsin.subscription.level_before": CODES,
    "tocsin.suppression.key": HASH,
    "tocsin.suppression.reason": CODES,
    "tocsin.timezone.*": "all zones that there are",
    "tocsin_queue.procrastinate_events.*": OPERATORS,
    "tocsin_queue.procrastinate_jobs.*": "the arguments of a job are ids of deliveries",
    "tocsin_queue.procrastinate_periodic_defers.*": OPERATORS,
    "tocsin_queue.procrastinate_workers.*": OPERATORS,
}


@pytest.fixture
def other(dsn: str) -> Iterator[Db]:
    """An app's connection, on which a transaction stays open."""
    with psycopg.connect(dsn) as connection:
        yield connection


def value(db: Db, statement: str, *arguments: Any) -> Any:
    row = db.execute(statement.encode(), arguments).fetchone()
    return row and row[0]


def emit(db: Db, **arguments: Any) -> int:
    """notify(), of which everything is a canary."""
    given: dict[str, Any] = {
        "event_type": "forum.new_reply",
        "recipients": [ID],
        "title": "canary title",
        "body": "canary body",
        "body_html": "<p>canary html</p>",
        "action_url": "https://example.com/canary-url",
        "metadata": {"note": "canary metadata"},
        **arguments,
    }
    given = {name: Jsonb(each) if isinstance(each, dict) else each for name, each in given.items()}
    function = (
        "notify_email" if "email" in given else "notify_topic" if "topic" in given else "notify"
    )
    if function != "notify":
        del given["recipients"]
    names = ", ".join(f"{name} => %({name})s" for name in given)
    row = db.execute(f"select tocsin.{function}({names})".encode(), given).fetchone()
    assert row is not None
    return int(row[0])


def for_others(db: Db, **arguments: Any) -> int:
    """An event that Bob is notified of: what the app wrote for him holds no canary, but the person is in it."""
    plain: dict[str, Any] = {
        "title": "x",
        "body": "",
        "body_html": None,
        "action_url": None,
        "metadata": {},
    }
    return emit(db, **{"recipients": ["bob"], **plain, **arguments})


async def person(machine: httpx.AsyncClient) -> None:
    put = await machine.put(
        f"/api/recipients/{ID.replace('/', '%2F')}/",
        json={
            "email": EMAIL,
            "name": "canary name",
            "locale": "de-canary",
            "timezone": ZONES[0],
            "avatar_url": "https://canary.example/avatar.png",
        },
    )
    assert put.status_code == 201, put.text


async def canary(db: Db, machine: httpx.AsyncClient, me: httpx.AsyncClient) -> None:
    """Uses each feature once, so that each table holds something of the person."""
    db.execute("select tocsin.upsert_recipient('bob', 'bob@example.com')")
    db.execute("update tocsin.channel set available = true")
    db.execute("insert into tocsin.provider values ('push', 'fcm', now())")
    emit(db, email=EMAIL)  # before it is anybody's; never claimed
    emit(db, email=CLAIMED)
    await person(machine)
    await machine.post(f"/api/recipients/{ID.replace('/', '%2F')}/claims/", json={"email": CLAIMED})
    calls: list[tuple[str, str, dict[str, Any]]] = [
        (
            "POST",
            "push-tokens/",
            {"token": "canary-token", "platform": "android", "label": "canary label"},
        ),
        ("PATCH", "digest-preferences/", {"frequency": "daily", "timezone": ZONES[1]}),
        ("PUT", "quiet-hours/", {"starts": "22:00", "ends": "22:01", "timezone": ZONES[2]}),
        ("PATCH", "notification-preferences/", {"overrides": {"*": {"push": True}}}),
        ("PATCH", "inbox-preferences/", {"grouped": False}),
        ("POST", "subscriptions/", {"topic": "canary:topic", "level": "all"}),
        ("POST", "stream-ticket/", {}),
        ("POST", "notifications/seen/", {}),
    ]
    for method, path, body in calls:
        answer = await me.request(method, f"/api/{path}", json=body)
        assert answer.status_code < 300, (path, answer.text)
    emit(
        db, idempotency_key="canary key", initiator="canary initiator", event_type="messages.new_dm"
    )
    emit(db, topic="canary:topic", event_type="forum.mention")
    read = value(
        db, "select max(notification_id) from tocsin.notification where recipient_id = %s", ID
    )
    await me.patch(f"/api/notifications/{read}/read/")
    # a digest that was sent, and what waits for the next
    db.execute("select tocsin.assemble_digests(now() + interval '2 days', 100)")
    emit(db, event_type="forum.new_thread")
    emit(db)
    link = LINKS.unsubscribe(ID, "forum.new_reply", _now(db))
    assert (await me.post(link, data={"List-Unsubscribe": "One-Click"})).status_code == 200
    # scheduled: for the person alone, for two, to their address, and one that was cancelled
    emit(db, send_at="2030-01-01")
    for_others(db, recipients=["bob", ID], send_at="2030-01-01")
    emit(db, email=EMAIL, send_at="2030-01-01")
    db.execute("select tocsin.cancel(%s)", (emit(db, send_at="2030-01-01"),))
    # in events that others are notified of
    for_others(db, initiator=ID, metadata={"initiator": ID, "mentions": ["bob", ID]})
    for_others(db, recipients=["bob", ID], metadata={"mentions": [ID]})
    emit(db, initiator=ID)  # nobody is notified
    assert value(db, "select tocsin.queue_badge_pushes(array[%s], '0', '1 hour', null)", ID) == 1
    # as a worker writes it
    db.execute(
        "update tocsin.delivery set state = 'failed',"
        " address = case channel when 'email' then %s else 'canary-token' end,"
        " provider_id = 'canary provider id', attempts = 1, settled_at = now(), reason = 'smtp_550_5.1.1'"
        " where recipient_id = %s or digest_id is not null",
        (OLD, ID),
    )
    db.execute(
        "insert into tocsin.attempt select delivery_id, 1, now(), 'permanent', 'smtp_550' from tocsin.delivery"
    )
    db.execute(
        "insert into tocsin.suppression values (%s, 'smtp_550_5.1.1'), (%s, 'complaint')",
        (OLD, EMAIL),
    )
    db.execute(
        "select tocsin.defer_jobs('email', 1::smallint, array(select delivery_id from tocsin.delivery), '1 min')"
    )
    db.execute("select tocsin.fold_unread(pg_current_snapshot(), null)")
    db.execute(
        "insert into tocsin.pending_change (change, recipient_id, notification_ids) values ('read', %s, '{}')",
        (ID,),
    )
    emit(
        db,
        event_type="messages.new_dm",
        subject="canary:subject",
        content={"push": {"title": "canary content"}},
        actions=Jsonb([{"key": "accept", "label": "canary action"}]),
    )
    db.execute(
        "insert into tocsin.action (notification_id, event_id, recipient_id, key, seq)"
        " select notification_id, event_id, recipient_id, 'accept', 1 from tocsin.notification"
        " where recipient_id = %s limit 1",
        (ID,),
    )


def _now(db: Db) -> Any:
    return value(db, "select now()")


def columns(db: Db) -> list[tuple[str, str]]:
    """Each column (schema.table.column) that could hold personal data by its type, with its type."""
    found = db.execute(
        """
        select format('%s.%s.%s', n.nspname, c.relname, a.attname), format_type(a.atttypid, null)
        from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        join pg_attribute a on a.attrelid = c.oid
        where n.nspname in ('tocsin', 'tocsin_queue')
            and c.relkind in ('r', 'p')
            and a.attnum > 0
            and not a.attisdropped
        order by 1
        """
    ).fetchall()
    return [(name, kind) for name, kind in found if kind not in HARMLESS]


def is_without_person(column: str) -> bool:
    return column in WITHOUT_PERSON or f"{column.rpartition('.')[0]}.*" in WITHOUT_PERSON


def holding(db: Db) -> set[str]:
    """The columns that hold a trace of the person, of all columns that could."""
    held = set()
    for column, kind in columns(db):
        if column.startswith("tocsin.timezone."):
            continue
        table, _, name = column.rpartition(".")
        text = f"encode({name}, 'escape')" if kind == "bytea" else f"{name}::text"
        if value(db, f"select bool_or({text} ~* %s) from {table}", TRACE):
            held.add(column)
    return held


async def export(machine: httpx.AsyncClient) -> str:
    answer = await machine.get(f"/api/recipients/{ID.replace('/', '%2F')}/export/")
    assert answer.status_code == 200, answer.text
    return json.dumps(answer.json())


async def test_each_column_is_reached_exported_and_erased(
    db: Db, machine: httpx.AsyncClient, me: httpx.AsyncClient
) -> None:
    await canary(db, machine, me)
    held = holding(db)
    expected = {column for column, _ in columns(db) if not is_without_person(column)}
    assert held == expected

    exported = await export(machine)
    for each in (
        *(
            ID,
            EMAIL,
            OLD,
            CLAIMED,
            *ZONES,
            "canary name",
            "de-canary",
            "canary-token",
            "canary label",
        ),
        *(
            "canary title",
            "canary body",
            "canary html",
            "canary-url",
            "canary metadata",
            "canary key",
        ),
        *("canary:topic", "canary provider id", "canary initiator", "complaint", "smtp_550_5.1.1"),
    ):
        assert each in exported, each
    parts = json.loads(exported)
    empty = {name for name, part in parts.items() if part == []}
    assert empty == set(), "of each kind there is something"
    assert {name for name, part in parts["others"].items() if not part} == set()
    assert len(parts["scheduled_events"]) == 4

    assert (await machine.delete(f"/api/recipients/{ID.replace('/', '%2F')}/")).status_code == 204
    assert holding(db) == set()
    # others keep what they were notified of, and their scheduled event
    assert value(db, "select count(*) from tocsin.notification where recipient_id = 'bob'") == 2
    assert value(db, "select recipients from tocsin.event where send_at is not null") == ["bob"]
    assert value(
        db,
        "select array_agg(metadata order by event_id) from tocsin.event where fanned_out_at is not null",
    ) == [
        {"mentions": ["bob"]},
        {"mentions": []},
    ]
    left = {
        table: value(db, f"select count(*) from tocsin.{table}") for table in ("attempt", "erasure")
    }
    assert left == {"attempt": value(db, "select count(*) from tocsin.delivery"), "erasure": 0}


@pytest.fixture
async def me(app: Any) -> Any:
    """The person, signed in."""
    from tests.support.http_fixtures import URL, bearer, token, transport_to

    transport = transport_to(app)
    async with httpx.AsyncClient(
        transport=transport, base_url=URL, headers=bearer(token(ID))
    ) as client:
        yield client


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
        assert holding(db), "there is something to sweep"
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
        "dead": [True],
        "dead_sinces": [None],
    }
    return [row[0] for row in worker.execute(load("delivery")["settle"], arguments).fetchall()]


async def test_a_suppression_outlives_its_address(db: Db, machine: httpx.AsyncClient) -> None:
    await person(machine)
    db.execute("insert into tocsin.suppression values (%s, 'complaint')", (EMAIL,))
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
    db.execute("insert into tocsin.suppression values (%s, 'unsubscribed')", (INVITED,))
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
