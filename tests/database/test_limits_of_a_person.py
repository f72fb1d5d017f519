"""How many devices and topics a person may have, and how many recipients one call may name."""

from __future__ import annotations

import pytest
from psycopg import errors

from tests.support.notifying import *  # noqa: F403 - fixtures
from tests.support.notifying import Db, value


def register(db: Db, n: int, who: str = "alice") -> int:
    return int(value(db, "select tocsin.register_push_token(%s, %s, 'android')", who, f"token-{n}"))


def live(db: Db, who: str = "alice") -> list[str]:
    rows = db.execute(
        "select token from tocsin.device where recipient_id = %s and disabled_at is null"
        " order by registered_at",
        (who,),
    )
    return [token for (token,) in rows.fetchall()]


def test_a_device_more_than_twenty_disables_the_one_registered_least_recently(db: Db) -> None:
    for n in range(20):
        register(db, n)
    register(db, 100, "bob")
    register(db, 0)  # again, as apps do at each start
    assert len(live(db)) == 20
    register(db, 20)
    assert live(db) == [f"token-{n}" for n in [*range(2, 20), 0, 20]]
    assert (
        value(db, "select disabled_reason from tocsin.device where token = 'token-1'")
        == "too_many_devices"
    )
    assert live(db, "bob") == ["token-100"]
    register(db, 1)
    assert live(db)[0] == "token-3"
    assert live(db)[-1] == "token-1"


def test_a_person_follows_a_thousand_topics(db: Db) -> None:
    db.execute("select tocsin.subscribe('alice', 'thread:' || n) from generate_series(1, 1000) n")
    with pytest.raises(errors.DatabaseError, match="follows 1,000 topics already") as refused:
        db.execute("select tocsin.subscribe('alice', 'thread:1001')")
    assert refused.value.sqlstate == "TC004"
    assert "Unsubscribe" in (refused.value.diag.message_hint or "")
    assert value(db, "select tocsin.subscribe('alice', 'thread:7', 'muted')")
    assert value(db, "select tocsin.subscribe('bob', 'thread:1001')")
    db.execute("select tocsin.unsubscribe('alice', 'thread:7')")
    assert value(db, "select tocsin.subscribe('alice', 'thread:1001')")


def test_a_call_names_a_hundred_thousand_recipients_at_most(db: Db) -> None:
    with pytest.raises(errors.DatabaseError, match="more than 100,000 ids") as refused:
        db.execute(
            "select tocsin.notify('forum.mention', array_fill('alice'::text, array[100001]), 'x')"
        )
    assert refused.value.sqlstate == "TC004"
    assert value(db, "select count(*) from tocsin.event") == 0
