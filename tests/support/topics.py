"""Three people and a topic that they may follow."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import tocsin
from tocsin import notify_topic

Db = psycopg.Connection[Any]


THREAD = "forum.thread:42"


@pytest.fixture(autouse=True)
def people(db: Db) -> None:
    for name in ("alice", "bob", "carol", "dave"):
        tocsin.upsert_recipient(db, name, email=f"{name}@example.com")


def reply(db: Db, topic: str = THREAD, event_type: str = "forum.new_reply", **named: Any) -> int:
    return notify_topic(db, topic=topic, event_type=event_type, title="New reply", **named)


def value(db: Db, statement: str, *arguments: Any) -> Any:
    row = db.execute(statement, arguments).fetchone()
    return row[0] if row else None
