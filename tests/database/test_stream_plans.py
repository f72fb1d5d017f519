"""What the streams read after a change: the news, not the whole inbox, also before there are statistics."""

from __future__ import annotations

from typing import Any

import psycopg

from tests.support.pages_read import pages_read

Db = psycopg.Connection[Any]

UPDATES = """
    select tocsin.stream_updates(
        '{alice}', '{alice}', array[%(since)s]::pg_snapshot[], '{null}', '{0}', 100
    )
"""


def test_a_change_is_read_without_the_rest_of_the_inbox_where_statistics_are_missing(
    db: Db,
) -> None:
    db.execute(
        "select tocsin.upsert_recipient(p)"
        " from unnest('{alice}' || array(select 'p' || i from generate_series(1, 40) i)) p"
    )
    db.execute("vacuum full tocsin.notification")  # the planner knows an empty table
    db.execute(
        "select tocsin.notify('forum.new_thread', array(select recipient_id from tocsin.recipient), 'x')"
        " from generate_series(1, 500)"
    )
    db.execute("delete from tocsin.unread_delta")  # as if they were folded
    since = db.execute("select pg_current_snapshot()::text").fetchone()
    assert since is not None
    db.execute("select tocsin.notify('forum.new_thread', '{alice}', 'the news')")

    row = db.execute(UPDATES.encode(), {"since": since[0]}).fetchone()

    assert row is not None
    assert row[0].count("the news") == 1
    assert pages_read(db, UPDATES, {"since": since[0]}) < 200
