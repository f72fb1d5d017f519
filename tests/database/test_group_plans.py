"""What a page of the grouped inbox reads: rows that it shows, not the whole inbox or all events."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.support.pages_read import pages_read

Db = psycopg.Connection[Any]

HEADS = (
    "select * from tocsin.group_heads('alice', null, null, null, null, null, {place}, false, 21)"
)
FACTS = "select * from tocsin.group_facts('alice', 'forum.new_reply', 's:1', null, 'UTC', null)"


@pytest.fixture
def stock(db: Db) -> Db:
    """6,000 of Alice's: 1,000 of one group, the others alone, all older than as many of Bob's."""
    for person in ("alice", "bob"):
        db.execute("select tocsin.upsert_recipient(%s)", (person,))
    db.execute(
        "select tocsin.notify('forum.new_reply', array[p], 'x', initiator => 'carol',"
        " subject => 's:' || case when i % 6 = 0 then 0 else i end)"
        " from unnest('{alice,bob}'::text[]) p, generate_series(1, 6000) i"
    )
    # what other tests left in the tables and indexes would be read too
    db.execute("vacuum full analyze tocsin.notification, tocsin.event")
    return db


def test_a_page_reads_the_groups_that_it_shows_however_deep_it_is(stock: Db) -> None:
    place = stock.execute(
        "select quote_literal(created_at) || ', ' || notification_id from tocsin.notification"
        " where recipient_id = 'alice' order by notification_id offset 300 limit 1"
    ).fetchone()
    assert place is not None
    assert pages_read(stock, HEADS.format(place="null, null")) < 100
    assert (
        pages_read(stock, HEADS.format(place=place[0])) < 350
    )  # the whole inbox would be 300 more


def test_the_people_of_a_group_are_looked_up_one_by_one(stock: Db) -> None:
    assert pages_read(stock, "select count(title) from tocsin.event") > 100
    assert pages_read(stock, FACTS) < 50


def test_people_whose_newest_is_far_down_in_a_group_are_found(db: Db) -> None:
    db.execute("select tocsin.upsert_recipient('alice')")
    for number in range(70):
        by = {0: "bob", 1: "cy"}.get(number, "ann" if number % 2 else None)
        db.execute(
            "select tocsin.notify('forum.new_reply', '{alice}', 'x', initiator => %s, subject => 's:1')",
            (by,),
        )
    row = db.execute(f"select count, people, initiators from ({FACTS}) f".encode()).fetchone()
    assert row is not None
    assert row[:2] == (70, 3)
    assert [each["id"] for each in row[2]] == ["ann", "cy", "bob"]
