"""Functions by which an app erases people and registers their phones in its own transaction."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import tocsin

Db = psycopg.Connection[Any]
TOKEN = "740f4707bebcf74f9b7c25d48e3358945f6aa01da5ddb387462c7eaf61bb78ad"


@pytest.fixture
def app(db: Db, dsn: str) -> Iterator[Db]:
    """A connection of an app, whose role is granted tocsin_app; Alice and Bob are there."""
    role = f"app_{os.getpid()}"
    db.execute(f"create role {role} login password 'app' in role tocsin_app")
    try:
        with psycopg.connect(dsn, user=role, password="app") as connection:
            tocsin.upsert_recipient(connection, "alice", email="alice@example.com")
            tocsin.upsert_recipient(connection, "bob")
            connection.commit()
            yield connection
            connection.rollback()
    finally:
        db.execute(f"drop role {role}")


def devices(db: Db) -> list[tuple[Any, ...]]:
    return db.execute(
        "select recipient_id, token, platform, provider, environment from tocsin.device order by device_id"
    ).fetchall()


def recipients(db: Db) -> list[str]:
    found = db.execute("select recipient_id from tocsin.recipient order by 1")
    return [id_ for (id_,) in found]


def test_an_app_erases_a_person_when_it_commits(app: Db, db: Db) -> None:
    event = tocsin.notify(app, recipient=["alice", "bob"], event_type="forum.mention", title="A")
    app.commit()
    assert tocsin.erase_recipient(app, "alice") is True
    app.rollback()
    assert recipients(db) == ["alice", "bob"]
    assert tocsin.erase_recipient(app, "alice") is True
    assert tocsin.erase_recipient(app, "alice") is False
    assert recipients(db) == ["alice", "bob"]
    app.commit()
    assert recipients(db) == ["bob"]
    left = db.execute("select recipient_id from tocsin.notification where event_id = %s", (event,))
    assert left.fetchall() == [("bob",)]
    assert tocsin.unread_count(app, "alice") == 0


def test_an_open_erasure_makes_no_notify_wait_and_what_it_commits_is_erased(
    app: Db, db: Db
) -> None:
    tocsin.erase_recipient(app, "alice")
    db.execute("set lock_timeout = '1s'")
    tocsin.notify(db, recipient=["alice", "bob"], event_type="forum.mention", title="A")
    app.commit()
    db.execute("select tocsin.finish_erasures()")
    found = db.execute("select recipient_id from tocsin.notification").fetchall()
    assert found == [("bob",)]


def test_an_erased_person_needs_an_id(app: Db) -> None:
    with pytest.raises(tocsin.InvalidArgument, match="id is None"):
        tocsin.erase_recipient(app, None)  # type: ignore[call-overload]
    with pytest.raises(psycopg.Error, match="id is null"):
        app.execute("select tocsin.erase_recipient(null)")


def test_an_app_registers_a_phone_when_it_commits(app: Db, db: Db) -> None:
    spelt = f"<{TOKEN[:32].upper()} {TOKEN[32:]}>"
    device = tocsin.register_push_token(app, "alice", spelt, "ios")
    assert devices(db) == []
    app.commit()
    assert devices(db) == [("alice", TOKEN, "ios", "apns", "production")]
    assert tocsin.register_push_token(app, "alice", TOKEN, "ios", environment="sandbox") == device
    app.commit()
    assert devices(db) == [("alice", TOKEN, "ios", "apns", "sandbox")]


def test_a_phone_moves_to_the_person_who_registers_it_and_is_enabled_again(app: Db, db: Db) -> None:
    device = tocsin.register_push_token(app, "alice", "fcm:1", "android")
    app.commit()
    db.execute("update tocsin.device set disabled_at = now(), disabled_reason = 'UNREGISTERED'")
    assert tocsin.register_push_token(app, 7, "fcm:1", "ios", provider="fcm") == device
    app.commit()
    assert devices(db) == [("7", "fcm:1", "ios", "fcm", "production")]
    assert recipients(db) == ["7", "alice", "bob"]  # as by HTTP, a new person is created
    assert db.execute("select disabled_at from tocsin.device").fetchone() == (None,)


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ({"recipient": ""}, "recipient"),
        ({"recipient": "a\nb"}, "recipient"),
        ({"token": None}, "token"),
        ({"token": "no hexadecimal digits"}, "token"),
        ({"token": "abcd"}, "token"),
        ({"provider": "fcm", "token": "with a blank"}, "token"),
        ({"platform": None}, "platform"),
        ({"platform": "windows"}, "platform"),
        ({"provider": "hms"}, "provider"),
        ({"environment": None}, "environment"),
        ({"environment": "staging"}, "environment"),
    ],
)
def test_a_wrong_phone_is_refused_with_the_cure(
    app: Db, db: Db, arguments: dict[str, Any], argument: str
) -> None:
    right = {"recipient": "carol", "token": TOKEN, "platform": "ios"}
    with pytest.raises(tocsin.InvalidArgument) as refused:
        tocsin.register_push_token(app, **(right | arguments))
    app.rollback()
    assert refused.value.argument == argument
    assert refused.value.hint
    assert devices(db) == []
    assert recipients(db) == ["alice", "bob"]
