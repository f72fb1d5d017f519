"""Three people, and functions that notify them and read what was stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

Db = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def people(db: Db) -> None:
    for name in ("alice", "bob", "carol"):
        db.execute(
            "select tocsin.upsert_recipient(%s, %s, %s)",
            (name, f"{name}@example.com", name.title()),
        )


@pytest.fixture
def other(dsn: str) -> Iterator[Db]:
    """A second app's connection, in a transaction of its own."""
    with psycopg.connect(dsn) as connection:
        yield connection


def notify(db: Db, recipients: list[str], event_type: str = "forum.new_reply", **named: Any) -> int:
    arguments = {"title": "New reply", **named}
    listed = ", ".join(f"{name} => %({name})s" for name in arguments)
    row = db.execute(
        f"select tocsin.notify(%(event_type)s, %(recipients)s, {listed})",
        {"event_type": event_type, "recipients": recipients, **arguments},
    ).fetchone()
    assert row is not None
    return int(row[0])


def value(db: Db, statement: str, *arguments: Any) -> Any:
    row = db.execute(statement, arguments).fetchone()
    return row[0] if row else None


def unread(db: Db, recipient: str) -> int:
    return int(value(db, "select tocsin.unread_count(%s)", recipient))


def decisions(db: Db, recipient: str) -> dict[str, list[str]]:
    return dict(
        value(
            db,
            "select decisions from tocsin.notification where recipient_id = %s order by notification_id desc",
            recipient,
        )
    )


def count(db: Db, table: str) -> int:
    return int(value(db, f"select count(*) from tocsin.{table}"))
