"""A topic with many followers, and what becomes of the fan-out to them."""

from __future__ import annotations

from typing import Any

import psycopg

from tocsin import notify_topic

Db = psycopg.Connection[Any]

TOPIC = "news:all"


def fan_out_at_once(db: Db, people: int) -> None:
    """A topic with more followers is fanned out by the leader; as it is installed, with more than 100,000."""
    db.execute(
        "create or replace function tocsin.fan_out_at_once() returns integer language sql immutable"
        f" as 'select {people}'"
    )


def follow(db: Db, people: int, topic: str = TOPIC) -> None:
    """Makes p1, p2, … with an address each follow the topic."""
    db.execute(
        "insert into tocsin.recipient (recipient_id, email)"
        " select 'p' || i, 'p' || i || '@example.com' from generate_series(1, %s) i",
        (people,),
    )
    db.execute(
        "insert into tocsin.subscription (topic, recipient_id, level, because)"
        " select %s, 'p' || i, 'all', 'followed' from generate_series(1, %s) i",
        (topic, people),
    )
    db.execute("analyze tocsin.recipient, tocsin.subscription")


def notify_all(db: Db, event_type: str = "forum.new_thread", topic: str = TOPIC) -> int:
    return notify_topic(db, topic=topic, event_type=event_type, title="News")


def progress(db: Db) -> tuple[int, int] | None:
    """Returns how many were notified, and of how many; None: no fan-out is running."""
    return db.execute("select fanned_out, total from tocsin.running_fan_out").fetchone()


def badges(db: Db) -> dict[int, int]:
    """Returns how many people have which unread count."""
    rows = db.execute(
        "select u.n, count(*) from tocsin.unread_counts(array(select r.recipient_id from tocsin.recipient r)) u"
        " group by 1"
    )
    return dict(rows.fetchall())
