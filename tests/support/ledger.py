"""Stores deliveries that have ended, without a worker, for the tests of what reads them."""

from __future__ import annotations

from typing import Any

import psycopg

Db = psycopg.Connection[Any]

_ENDED = """
with created as (
    insert into tocsin.event (event_type, title, body, metadata, caller, created_at, fanned_out_at, expires_at)
    select %(event_type)s, 'New reply', '', '{}', 'role:tests', t.at, t.at, t.at + interval '3 days'
    from (select now() - %(ago)s::interval - %(took)s::interval as at) t
    returning event_id, created_at
),
noted as (
    insert into tocsin.notification (event_id, recipient_id, event_type, created_at, in_inbox, decisions)
    select t.event_id, %(recipient)s, %(event_type)s, t.created_at, true,
        '{"in_app": ["on", "default"], "email": ["on", "default"]}'
    from created t
    returning notification_id
),
ended as (
    insert into tocsin.delivery (
        notification_id, event_id, recipient_id, channel, state, reason, attempts, address, created_at,
        settled_at, failed_at
    )
    select n.notification_id, t.event_id, %(recipient)s, %(channel)s, %(state)s::tocsin.delivery_state,
        %(reason)s, 1, %(recipient)s || '@example.com', t.created_at, now() - %(ago)s::interval,
        case when %(state)s = 'failed' then now() - %(ago)s::interval end
    from created t, noted n, generate_series(1, %(n)s)
    returning delivery_id, settled_at
),
counted as (
    insert into tocsin.settled_batch (settled_at, delivery_ids)
    select e.settled_at, array_agg(e.delivery_id)
    from ended e
    group by e.settled_at
)
select e.delivery_id
from ended e
"""


def deliver(
    db: Db,
    state: str = "sent",
    *,
    channel: str = "email",
    reason: str | None = None,
    n: int = 1,
    ago: str = "10 seconds",
    took: str = "250 milliseconds",
    recipient: str = "alice",
    event_type: str = "forum.new_reply",
) -> list[int]:
    """Stores `n` deliveries of one event that ended in a state, `took` after it and `ago`; returns their ids."""
    found = db.execute(
        _ENDED,
        {
            "event_type": event_type,
            "ago": ago,
            "took": took,
            "recipient": recipient,
            "channel": channel,
            "state": state,
            "reason": reason,
            "n": n,
        },
    ).fetchall()
    ids = [delivery_id for (delivery_id,) in found]
    db.execute(
        "insert into tocsin.attempt select u, 1, now(), 'rejected', %s from unnest(%s::bigint[]) u",
        (reason, ids),
    )
    return ids


def plan(db: Db, statement: str, arguments: dict[str, Any] | None = None) -> str:
    """Returns the plan of a statement."""
    lines = psycopg.ClientCursor(db).execute(f"explain {statement}".encode(), arguments).fetchall()
    return "\n".join(line for (line,) in lines)
