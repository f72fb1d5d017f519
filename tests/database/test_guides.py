"""The guides whose code needs the database alone do what they claim."""

from __future__ import annotations

from typing import Any

import psycopg

from tests.support import guides

Db = psycopg.Connection[Any]


def test_the_triggers_of_the_guide_notify_in_the_transaction_that_writes(db: Db) -> None:
    for block in guides.blocks("sql-triggers.md", "sql"):
        db.execute(block.encode())
    titles = db.execute(
        "select recipient_id, title from tocsin.notification join tocsin.event using (event_id)"
        " where in_inbox order by notification_id"
    ).fetchall()
    course = "You have a new course: First aid"
    assert titles[0] == ("1", "Bob replied")
    assert sorted(titles[1:]) == [("1", course), ("2", course)]
    assert db.execute("select count(*) from tocsin.event").fetchone() == (3,)

    with db.transaction(force_rollback=True):
        db.execute("insert into reply (thread_id, author_id, body) values (7, 2, 'Again')")
        assert db.execute("select tocsin.unread_count('1')").fetchone() == (3,)
    assert db.execute("select tocsin.unread_count('1')").fetchone() == (2,)

    db.execute("update member set email = 'a@new.example' where member_id = 1")
    found = db.execute("select email from tocsin.recipient where recipient_id = '1'").fetchone()
    assert found == ("a@new.example",)
    db.execute("delete from assignment")
    db.execute("delete from reply")
    db.execute("delete from member where member_id = 1")
    assert db.execute("select recipient_id from tocsin.recipient").fetchall() == [("2",)]
