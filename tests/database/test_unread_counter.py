"""The stored unread count: how changes are folded into it, and what a count reads."""

from __future__ import annotations

import threading

import psycopg

from tests.support.dispatching import *  # noqa: F403 - fixtures
from tests.support.dispatching import Db, dispatcher, notify
from tests.support.services import until
from tocsin.engine.store.database import Database


def test_a_count_reads_its_own_changes_alone_by_a_plan_from_quiet_times(db: Db) -> None:
    notify(db)
    counts = (
        "select tocsin.unread_count('alice')",
        "select tocsin.unread_counts_in_order(array['bob', 'alice', 'bob', 'nobody', 'alice'])",
    )
    for _ in range(8):  # PostgreSQL keeps a plan from the sixth time on
        assert [db.execute(count).fetchone() for count in counts] == [(1,), ([0, 1, 0, 0, 1],)]
    db.execute(
        "insert into tocsin.unread_delta (recipient_id, n) select 'p' || i, 1 from generate_series(1, 50000) i"
    )
    with db.transaction():
        before = read_of_changes(db)
        for count in counts:
            db.execute(count)
        after = read_of_changes(db)
    assert after.keys() == {"unread_delta", "unread_delta_recipient", "unread_delta_unfolded"}
    assert after["unread_delta"] == before["unread_delta"]
    assert after["unread_delta_unfolded"] == before["unread_delta_unfolded"]
    # of 50,000; a plan that is made again reads some ends of the index
    assert 1 <= after["unread_delta_recipient"] - before["unread_delta_recipient"] <= 100


def read_of_changes(db: Db) -> dict[str, int]:
    """How many entries this session has read of the table as a whole, and of each index, in this transaction."""
    return dict(
        db.execute(
            "select c.relname, pg_stat_get_xact_tuples_returned(c.oid) from pg_class c"
            " where c.oid in ("
            "   select 'tocsin.unread_delta'::regclass"
            "   union all select i.indexrelid from pg_index i where i.indrelid = 'tocsin.unread_delta'::regclass"
            " )"
        ).fetchall()
    )


def test_folding_goes_on_where_it_ended_and_misses_nothing_that_was_open(
    dsn: str, db: Db, other: Db
) -> None:
    notify(other)  # stays open
    snapshots = []
    for count in range(1, 4):
        notify(db)
        snapshots.append(current_snapshot(db))
        assert fold(db, snapshots[-1], snapshots[-2] if count > 1 else None) == 1
    other.commit()
    assert fold(db, current_snapshot(db), snapshots[-1]) == 1
    assert db.execute("select n from tocsin.unread_counter").fetchall() == [(4,)]
    assert db.execute("select count(*) from tocsin.unread_delta").fetchone() == (0,)


def test_an_older_fold_does_not_send_reads_back_to_folded_changes(db: Db) -> None:
    """A leader that was replaced may end with a fold of its own, by an older snapshot."""
    notify(db)
    older = current_snapshot(db)
    notify(db)
    newer = current_snapshot(db)
    oldest_change = db.execute(
        "delete from tocsin.unread_delta where xid = (select min(xid) from tocsin.unread_delta)"
        " returning recipient_id, n, xid"
    ).fetchone()
    assert oldest_change is not None
    assert fold(db, newer, None) == 1
    folded_before = db.execute("select folded_before from tocsin.unread_counter").fetchone()
    db.execute(
        "insert into tocsin.unread_delta (recipient_id, n, xid) values (%s, %s, %s)", oldest_change
    )
    assert fold(db, older, None) == 1
    found = db.execute("select n, folded_before from tocsin.unread_counter").fetchone()
    assert folded_before is not None
    assert found == (2, *folded_before)


def current_snapshot(db: Db) -> str:
    row = db.execute("select pg_current_snapshot()::text").fetchone()
    assert row is not None
    return str(row[0])


def fold(db: Db, announced: str, folded: str | None) -> int:
    row = db.execute("select tocsin.fold_unread(%s, %s)", (announced, folded)).fetchone()
    assert row is not None
    return int(row[0])


async def test_counts_survive_a_restore_into_another_cluster(
    dsn: str, database: Database, db: Db
) -> None:
    """There, stored transaction ids lie in the future."""
    notify(db)
    db.execute("insert into tocsin.unread_counter values ('alice', 4, '999999999999')")
    db.execute("update tocsin.notification set xid = '999999999990'")
    assert db.execute("select tocsin.unread_count('alice')").fetchone() == (4,)
    async with dispatcher(dsn) as leader:
        await until(lambda: leader.leading)
        await until(lambda: db.execute("select tocsin.unread_count('alice')").fetchone() == (5,))


def test_what_is_committed_meanwhile_is_not_taken_for_another_clusters(dsn: str, db: Db) -> None:
    """A leader asks this at its start, while apps and people go on."""
    done = threading.Event()

    def write() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not done.is_set():
                connection.execute(
                    "insert into tocsin.unread_delta (recipient_id, n) values ('a', 1)"
                )

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        found = db.execute(
            "select bool_or(tocsin.reset_foreign_xids()) from generate_series(1, 2000)"
        ).fetchone()
    finally:
        done.set()
        for writer in writers:
            writer.join()
    assert found == (False,)
