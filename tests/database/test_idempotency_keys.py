"""Idempotency keys of notify(): what counts as the same call, and for how long."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support.notifying import *  # noqa: F403 - fixtures
from tests.support.notifying import Db, notify, unread, value


def test_same_key_and_content_is_the_first_event(db: Db) -> None:
    first = notify(db, ["alice", "bob"], idempotency_key="k", metadata=Jsonb({"a": 1, "b": 2}))
    again = notify(
        db, ["bob", "alice", "bob"], idempotency_key="k", metadata=Jsonb({"b": 2, "a": 1})
    )
    assert again == first
    assert unread(db, "alice") == 1


def test_same_key_with_other_content_is_an_error(db: Db) -> None:
    notify(db, ["alice"], idempotency_key="k")
    with pytest.raises(psycopg.Error) as caught:
        notify(db, ["bob"], idempotency_key="k")
    assert caught.value.sqlstate == "TC003"
    assert unread(db, "bob") == 0


@pytest.mark.parametrize(
    "other",
    [
        {"title": "Another"},
        {"body": "Another"},
        {"body_html": "<p>Another</p>"},
        {"action_url": "/another"},
        {"metadata": Jsonb({"another": 1})},
        {"initiator": "bob"},
        {"event_type": "forum.mention"},
        {"send_at": "2030-01-01 00:00+00"},
        {"subject": "forum.thread:42"},
        {"content": Jsonb({"email": {"title": "Another"}})},
        {"actions": Jsonb([{"key": "another", "label": "Another"}])},
        {"unknown": "skip"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_each_argument_is_part_of_what_a_key_stands_for(db: Db, other: dict[str, Any]) -> None:
    first = notify(db, ["alice"], idempotency_key="k")
    with pytest.raises(psycopg.Error) as caught:
        notify(db, ["alice"], idempotency_key="k", **other)
    assert caught.value.sqlstate == "TC003"
    assert notify(db, ["alice"], idempotency_key="k") == first


def test_each_option_is_part_of_what_a_key_stands_for(db: Db) -> None:
    options: dict[str, Any] = {
        "subject": "forum.thread:42",
        "replaces": True,
        "content": Jsonb({"email": {"title": "By mail"}}),
        "actions": Jsonb([{"key": "accept", "label": "Accept"}]),
        "unknown": "skip",
    }
    others: dict[str, Any] = {
        "subject": "forum.thread:43",
        "replaces": False,
        "content": Jsonb({"email": {"title": "Another"}}),
        "actions": Jsonb([{"key": "decline", "label": "Decline"}]),
        "unknown": "create",
    }
    first = notify(db, ["alice"], idempotency_key="k", **options)
    for name, other in others.items():
        with pytest.raises(psycopg.Error) as caught:
            notify(db, ["alice"], idempotency_key="k", **{**options, name: other})
        assert caught.value.sqlstate == "TC003", name
    assert notify(db, ["alice"], idempotency_key="k", **options) == first


def test_a_key_is_free_again_after_a_day(db: Db) -> None:
    first = notify(db, ["alice"], idempotency_key="k")
    db.execute("update tocsin.idempotency set created_at = now() - interval '23 hours 59 minutes'")
    assert notify(db, ["alice"], idempotency_key="k") == first
    db.execute("update tocsin.idempotency set created_at = now() - interval '24 hours 1 minute'")
    assert notify(db, ["bob"], idempotency_key="k") != first


def test_concurrent_calls_with_one_key_are_one_event(db: Db, other: Db, dsn: str) -> None:
    first = notify(other, ["alice"], idempotency_key="k")
    event_ids: list[int] = []

    def second() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            event_ids.append(notify(connection, ["alice"], idempotency_key="k"))

    waiting = threading.Thread(target=second)
    waiting.start()
    wait_for_lock(db)
    other.commit()
    waiting.join()
    assert event_ids == [first]
    assert unread(db, "alice") == 1


def test_a_key_whose_call_rolled_back_is_free(db: Db, other: Db, dsn: str) -> None:
    notify(other, ["alice"], idempotency_key="k")
    other.rollback()
    notify(db, ["bob"], idempotency_key="k")
    assert unread(db, "bob") == 1


def wait_for_lock(db: Db) -> None:
    """Until some session of this database waits for another."""
    for _ in range(5000):
        waiting = (
            "select count(*) from pg_stat_activity"
            " where datname = current_database() and wait_event_type = 'Lock'"
        )
        if value(db, waiting):
            return
        db.execute("select pg_sleep(0.001)")
    raise AssertionError("nobody waits")
