"""A person whose every value is a canary, stored in each table that can hold personal data."""

from __future__ import annotations

import json
from typing import Any

import httpx
from psycopg.types.json import Jsonb

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import LINKS, Db
from tests.support.large_fan_out import fan_out_at_once, follow, notify_all

ID = "canary/7"
EMAIL, OLD, INVITED, CLAIMED = (
    f"{name}-canary@example.com" for name in ("own", "old", "invited", "claimed")
)
# who is known by nothing unique: a language, zones that nobody else has
ZONES = ("Antarctica/Troll", "Antarctica/Vostok", "Indian/Kerguelen")
TRACE = "canary|Troll|Vostok|Kerguelen"


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
    "tocsin.attempt.provider": OPERATORS,
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
    "tocsin.event.traceparent": "random numbers of the app, in the one form that is stored",
    "tocsin.event_type.*": OPERATORS,
    "tocsin.idempotency.caller": OPERATORS,
    "tocsin.idempotency.fingerprint": HASH,
    "tocsin.action.key": CODES,
    "tocsin.inbox_change.change": CODES,
    "tocsin.event_queue.channel": CODES,
    "tocsin.joined_message.channel": CODES,
    "tocsin.joined_message.event_type": CODES,
    "tocsin.lease.channel": CODES,
    "tocsin.mail_event.effect": CODES,
    "tocsin.mail_event.key": HASH,
    "tocsin.send_hold.key": HASH,
    "tocsin.send_hold.reason": CODES,
    "tocsin.send_rate.channel": CODES,
    "tocsin.mail_event.kind": CODES,
    "tocsin.mail_event.reason": CODES,
    "tocsin.mail_event.source": CODES,
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
    "tocsin.preference.because": CODES,
    "tocsin.preference.channel": CODES,
    "tocsin.preference.scope": CODES,
    "tocsin.process.*": OPERATORS,
    "tocsin.provider.*": OPERATORS,
    "tocsin.provider_token.*": OPERATORS,
    "tocsin.quiet_hours.starts": CODES,
    "tocsin.recipient.address_key": HASH,
    "tocsin.recipient.further_channels": CODES,
    "tocsin.secret.*": OPERATORS,
    "tocsin.stream_ticket.hash": HASH,
    "tocsin.subscription.because": CODES,
    "tocsin.subscription.level": CODES,
    "tocsin.subscription.level_before": CODES,
    "tocsin.suppression.key": HASH,
    "tocsin.suppression.reason": CODES,
    "tocsin.target.channel": CODES,
    "tocsin.target.disabled_reason": CODES,
    "tocsin.target.events": CODES,
    "tocsin.target.kind": CODES,
    "tocsin.target.topic": "the name of a thing of the app's; a person's own target has none",
    "tocsin.timezone.*": "all zones that there are",
    "tocsin.wanted_webhook_type.*": OPERATORS,
    "tocsin.webhook_message.type": CODES,
    "tocsin.webhook_outbox.type": CODES,
    "tocsin_queue.procrastinate_events.*": OPERATORS,
    "tocsin_queue.procrastinate_jobs.*": "the arguments of a job are ids of deliveries",
    "tocsin_queue.procrastinate_periodic_defers.*": OPERATORS,
    "tocsin_queue.procrastinate_workers.*": OPERATORS,
}


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
    """Notifies Bob of an event without a canary in its texts, which names the person; returns its id."""
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
    _invite(db)
    await person(machine)
    await machine.post(f"/api/recipients/{ID.replace('/', '%2F')}/claims/", json={"email": CLAIMED})
    await _choose(me)
    _reach_further(db)
    await _notify(db, me)
    _begin_fan_out(db)
    _deliver(db)
    _change(db)
    await _report(db, me)


def _now(db: Db) -> Any:
    return value(db, "select now()")


def _invite(db: Db) -> None:
    """Notifies addresses that belong to nobody yet."""
    db.execute("select tocsin.upsert_recipient('bob', 'bob@example.com')")
    db.execute("update tocsin.channel set available = true")
    db.execute("insert into tocsin.provider values ('push', 'fcm', now())")
    emit(db, email=EMAIL)  # before it is anybody's; never claimed
    emit(db, email=CLAIMED)


async def _choose(me: httpx.AsyncClient) -> None:
    """Registers a device, and makes each choice that a person can make."""
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
        response = await me.request(method, f"/api/{path}", json=body)
        assert response.status_code < 300, (path, response.text)


def _reach_further(db: Db) -> None:
    """Gives the device the keys of a browser, and makes a webhook of the person."""
    db.execute(
        'update tocsin.device set keys = \'{"auth": "canary key of a browser"}\' where recipient_id = %s',
        (ID,),
    )
    db.execute(
        "insert into tocsin.target (channel, name, url, recipient_id, secrets) values"
        " ('webhook', 'canary-name', 'https://canary.example/hook', %s, '[\"canary secret\"]')",
        (ID,),
    )


def _begin_fan_out(db: Db) -> None:
    """Begins a fan-out to many followers, of whom the person is the first."""
    follow(db, 2, "crowd")
    db.execute("select tocsin.subscribe(%s, 'crowd')", (ID,))
    fan_out_at_once(db, 1)
    notify_all(db, topic="crowd")
    db.execute("select tocsin.advance_fan_outs(1)")


async def _notify(db: Db, me: httpx.AsyncClient) -> None:
    """Notifies the person in each way, with a digest, an unsubscribe link and scheduled events."""
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


def _deliver(db: Db) -> None:
    """Stores outcomes as a worker does."""
    db.execute(
        "update tocsin.delivery set state = 'failed',"
        " address = case channel when 'email' then %s else 'canary-token' end,"
        " provider_id = 'canary provider id', attempts = 1, settled_at = now(), failed_at = now(),"
        " reason = 'smtp_550_5.1.1'"
        " where recipient_id = %s or digest_id is not null",
        (OLD, ID),
    )
    db.execute(
        "insert into tocsin.attempt select delivery_id, 1, now(), 'permanent', 'smtp_550' from tocsin.delivery"
    )
    db.execute(
        "insert into tocsin.suppression (address, reason) values (%s, 'smtp_550_5.1.1'), (%s, 'complaint')",
        (OLD, EMAIL),
    )
    # one report that is tied to a delivery, and one whose delivery is still searched
    db.execute(
        "insert into tocsin.mail_event (source, key, kind, reason, dead, delivery_id, occurred_at, applied_at, effect)"
        " select 'ses', sha256('1'), 'complaint', 'complaint', true, min(delivery_id), now(), now(), 'suppressed'"
        " from tocsin.delivery where channel = 'email'"
    )
    db.execute(
        "insert into tocsin.mail_event (source, key, kind, reason, dead, provider_id, address, occurred_at)"
        " values ('ses', sha256('2'), 'bounce', 'bounce_5.1.1', true, 'canary provider id', %s, now())",
        (EMAIL,),
    )
    db.execute(
        "insert into tocsin.joined_message (recipient_id, channel, subject, burst_id, due_at, deliveries)"
        " values (%s, 'email', 'canary:subject', 1, now(), 2)",
        (ID,),
    )
    db.execute(
        "select tocsin.defer_jobs('email', 1::smallint, array(select delivery_id from tocsin.delivery), '1 min')"
    )


def _change(db: Db) -> None:
    """Folds the badge, stores a pending change, and presses a button."""
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


async def _report(db: Db, me: httpx.AsyncClient) -> None:
    """Has an app webhook that is sent what happens; one message waits to be queued."""
    db.execute(
        "insert into tocsin.target (channel, name, url, events, secrets) values"
        " ('webhook', 'app', 'https://app.example/', '{notification.created,preference.changed}', '[]')"
    )
    emit(db, event_type="messages.new_dm")
    db.execute("select tocsin.queue_webhooks(10)")
    body = {"overrides": {"forum.*": {"push": False}}}
    assert (await me.patch("/api/notification-preferences/", json=body)).status_code == 200


def columns(db: Db) -> list[tuple[str, str]]:
    """Returns each column (schema.table.column) that could hold personal data by its type, with its type."""
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
    """Returns the columns that hold a trace of the person, of all columns that could."""
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
    response = await machine.get(f"/api/recipients/{ID.replace('/', '%2F')}/export/")
    assert response.status_code == 200, response.text
    return json.dumps(response.json())
