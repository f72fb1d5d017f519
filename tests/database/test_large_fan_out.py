"""Fan-outs that are too large for one transaction: the leader writes them in slices."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

import tocsin
from tests.support.topics import THREAD, Db, reply, value

MANY = 25


@pytest.fixture(autouse=True)
def crowd(db: Db) -> None:
    """p00 to p24 follow the thread; more than ten followers are too many for one transaction."""
    fan_out_at_once(db, 10)
    db.execute(
        "insert into tocsin.recipient (recipient_id, email)"
        " select to_char(i, '\"p\"FM00'), to_char(i, '\"p\"FM00') || '@example.com' from generate_series(0, %s) i",
        (MANY - 1,),
    )
    db.execute(
        "insert into tocsin.subscription (topic, recipient_id, level, because)"
        " select %s, r.recipient_id, 'all', 'followed' from tocsin.recipient r",
        (THREAD,),
    )


def fan_out_at_once(db: Db, people: int) -> None:
    db.execute(
        "create or replace function tocsin.fan_out_at_once() returns integer language sql immutable"
        f" as 'select {people}'"
    )


def advance(db: Db, slice_: int = 10) -> tuple[int, bool]:
    row = db.execute(
        "select people, running from tocsin.advance_fan_outs(%s)", (slice_,)
    ).fetchone()
    assert row is not None
    return row[0], row[1]


def finish(db: Db, slice_: int = 10) -> None:
    while advance(db, slice_)[1]:
        pass


def notified(db: Db, event_id: int) -> list[str]:
    """Returns who has it in the inbox."""
    rows = db.execute(
        "select recipient_id from tocsin.notification where event_id = %s and in_inbox order by 1",
        (event_id,),
    )
    return [person for (person,) in rows]


def people(*numbers: int) -> list[str]:
    return [f"p{number:02}" for number in numbers]


def test_it_is_written_slice_by_slice_and_each_person_once(db: Db) -> None:
    event_id = reply(db)
    assert notified(db, event_id) == []
    assert [advance(db) for _ in range(4)] == [(10, True), (10, True), (5, False), (0, False)]
    assert notified(db, event_id) == people(*range(MANY))
    counts = {tocsin.unread_count(db, person) for person in people(*range(MANY))}
    assert counts == {1}
    states = "select channel, state, count(*) from tocsin.delivery group by 1, 2"
    assert db.execute(states).fetchall() == [("email", "queued", MANY)]
    ended = "select fanned_out_at > created_at, expires_at is not null from tocsin.event"
    assert db.execute(ended).fetchall() == [(True, True)]


def test_as_many_as_are_allowed_are_written_within_the_call(db: Db) -> None:
    fan_out_at_once(db, MANY)
    assert notified(db, reply(db)) == people(*range(MANY))
    assert advance(db) == (0, False)


def test_a_rollback_leaves_no_fan_out(db: Db, dsn: str) -> None:
    with psycopg.connect(dsn) as other:
        reply(other)
        other.rollback()
    assert advance(db) == (0, False)


def test_the_same_key_is_one_fan_out(db: Db) -> None:
    event_id = reply(db, idempotency_key="k")
    advance(db)
    assert reply(db, idempotency_key="k") == event_id
    finish(db)
    assert value(db, "select count(*) from tocsin.notification") == MANY


def test_a_slice_that_is_rolled_back_is_written_again(db: Db, dsn: str) -> None:
    event_id = reply(db)
    with psycopg.connect(dsn) as killed:
        assert advance(killed) == (10, True)
        assert advance(db) == (0, True)  # the other one has it
        killed.rollback()
    finish(db)
    assert notified(db, event_id) == people(*range(MANY))


def test_it_is_for_those_who_followed_before_it_and_still_do(db: Db) -> None:
    event_id = reply(db, initiator="p24")
    tocsin.upsert_recipient(db, "new")
    tocsin.upsert_recipient(db, "a")
    tocsin.subscribe(db, "new", THREAD)
    assert advance(db)[0] == 10
    tocsin.subscribe(db, "a", THREAD)
    for person in people(3, 13):
        tocsin.unsubscribe(db, person, THREAD)
    tocsin.subscribe(db, "p14", THREAD, "muted")
    tocsin.subscribe(db, "p15", THREAD, "mentions")
    tocsin.unsubscribe(db, "p16", THREAD)
    tocsin.subscribe(db, "p16", THREAD)  # follows it again: after the event
    finish(db)
    assert notified(db, event_id) == people(*(set(range(24)) - {13, 14, 15, 16}))
    because = "select recipient_id, because from tocsin.notification where not in_inbox order by 1"
    assert db.execute(because).fetchall() == [("p14", "muted"), ("p15", "not_mentioned")]


def test_a_choice_of_a_person_who_replied_before_counts(db: Db) -> None:
    tocsin.unsubscribe(db, "p20", THREAD)
    reply(db, initiator="p20", subscribe_initiator=True)
    finish(db)
    event_id = reply(db)
    tocsin.subscribe(db, "p20", THREAD, "muted")
    tocsin.subscribe(db, "p20", THREAD)
    finish(db)
    assert "p20" in notified(db, event_id)


def test_preferences_count_as_they_are_when_a_slice_is_written(db: Db) -> None:
    reply(db)
    advance(db)
    db.execute(
        "insert into tocsin.preference (recipient_id, scope, channel, enabled)"
        " select recipient_id, '*', 'email', false from tocsin.recipient"
    )
    finish(db)
    assert value(db, "select count(*) from tocsin.delivery") == 10


def test_the_initiator_follows_from_the_call_on(db: Db) -> None:
    tocsin.upsert_recipient(db, "author")
    reply(db, initiator="author", subscribe_initiator=True)
    finish(db)
    assert tocsin.unread_count(db, "author") == 0
    event_id = reply(db, initiator="p00")
    finish(db)
    assert notified(db, event_id) == ["author", *people(*range(1, MANY))]


@pytest.mark.parametrize("way", ["cancel", "withdraw"])
def test_what_is_not_written_when_it_is_cancelled_never_is(db: Db, way: str) -> None:
    event_id = reply(db)
    advance(db)
    if way == "cancel":
        assert tocsin.cancel(db, event_id) == 10
    else:
        assert tocsin.withdraw(db, THREAD) == 1
    assert advance(db) == (0, False)
    assert value(db, "select count(*) from tocsin.notification") == 10
    assert notified(db, event_id) == []
    assert {tocsin.unread_count(db, person) for person in people(*range(MANY))} == {0}


def test_while_a_cancel_is_open_nothing_is_written_and_other_fan_outs_go_on(
    db: Db, dsn: str
) -> None:
    first = reply(db)
    advance(db)
    with psycopg.connect(dsn) as other:
        tocsin.cancel(other, first)
        second = reply(db)
        assert [advance(db)[0] for _ in range(6)].count(10) == 2
        assert notified(db, second) == people(*range(MANY))
        other.rollback()
    finish(db)
    assert notified(db, first) == people(*range(MANY))


def test_a_cancel_that_does_not_see_the_last_slice_takes_it_out_too(db: Db, dsn: str) -> None:
    event_id = reply(db)
    with psycopg.connect(dsn) as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        value(other, "select count(*) from tocsin.event")  # its snapshot
        advance(db)
        tocsin.cancel(other, event_id)
        other.commit()
    assert notified(db, event_id) == people(*range(10))
    assert advance(db) == (0, False)
    assert notified(db, event_id) == []
    assert tocsin.unread_count(db, "p00") == 0
    assert value(db, "select count(*) from tocsin.delivery where state = 'cancelled'") == 10


def test_one_that_fails_holds_up_no_other_one_and_goes_on_later(db: Db) -> None:
    first, second = reply(db), reply(db)
    db.execute(
        "create function fail() returns trigger language plpgsql as $$ begin raise sqlstate '53100'; end $$;"
        " create trigger fail before insert on tocsin.notification for each row"
        f" when (new.recipient_id = 'p12' and new.event_id = {first}) execute function fail()"
    )
    failures = []
    while value(db, "select count(*) from tocsin.running_fan_out") > 1:
        row = db.execute("select failed, error from tocsin.advance_fan_outs(10)").fetchone()
        failures += [row] if row and row[0] else []
    assert failures == [(first, "53100")]
    assert (notified(db, first), notified(db, second)) == (people(*range(10)), people(*range(MANY)))
    db.execute("drop trigger fail on tocsin.notification")
    assert advance(db) == (0, True)  # it is not its turn yet
    db.execute("update tocsin.running_fan_out set turn_at = now()")
    finish(db)
    assert notified(db, first) == people(*range(MANY))


@pytest.mark.parametrize("audience", ["topic", "recipients"])
def test_a_scheduled_event_begins_at_its_time(db: Db, audience: str) -> None:
    event_id = schedule(db, audience)
    assert value(db, "select tocsin.fan_out_due_events(10, 10)") == 0
    db.execute("update tocsin.event set send_at = now()")
    assert value(db, "select tocsin.fan_out_due_events(10, 10)") == 1
    assert value(db, "select tocsin.fan_out_due_events(10, 10)") == 0
    assert notified(db, event_id) == []
    erased = people(4, 9, 19)  # among them the last of a slice
    advance(db)
    for person in erased:
        db.execute("select tocsin.erase_recipient(%s)", (person,))
    assert db.execute("select after from tocsin.running_fan_out").fetchall() == [("p08",)]
    finish(db)
    assert notified(db, event_id) == sorted(set(people(*range(MANY))) - set(erased))
    left = "select fanned_out_at is not null, recipients, expires_at > now() from tocsin.event"
    assert db.execute(left).fetchall() == [(True, None, True)]


def schedule(db: Db, audience: str) -> int:
    at = datetime.now(UTC) + timedelta(hours=1)
    if audience == "topic":
        return reply(db, send_at=at)
    return tocsin.notify(
        db,
        recipient=people(*range(MANY)),
        event_type="forum.new_reply",
        title="New reply",
        send_at=at,
    )


def test_what_it_replaces_leaves_with_each_slice(db: Db, dsn: str) -> None:
    fan_out_at_once(db, MANY)
    earlier = reply(db, replaces=True)
    fan_out_at_once(db, 10)
    later = reply(db, replaces=True)
    with psycopg.connect(dsn) as reader:
        reader.execute("update tocsin.notification set read_at = now() where recipient_id = 'p00'")
        advance(db)
        assert notified(db, earlier) == people(0, *range(10, MANY))
        reader.rollback()
    assert value(db, "select tocsin.apply_pending_changes()") > 0
    assert notified(db, earlier) == people(*range(10, MANY))
    finish(db)
    assert (notified(db, earlier), notified(db, later)) == ([], people(*range(MANY)))
    assert {tocsin.unread_count(db, person) for person in people(*range(MANY))} == {1}


def test_its_first_person_may_be_erased(db: Db) -> None:
    """An event of which only one person was notified is erased with that person; this one is for others too."""
    event_id = reply(db, initiator="p24")
    advance(db, 1)
    for person in people(0, 24):
        db.execute("select tocsin.erase_recipient(%s)", (person,))
    finish(db)
    assert notified(db, event_id) == people(*range(1, 24))


def test_it_goes_with_its_event(db: Db) -> None:
    event_id = reply(db)
    advance(db)
    db.execute("select tocsin.delete_events(array[%s::bigint])", (event_id,))
    assert advance(db) == (0, False)


def test_the_next_followers_are_found_by_an_index_alone(db: Db) -> None:
    db.execute(
        "insert into tocsin.subscription (topic, recipient_id, level, because)"
        " select 'topic:' || i % 2, 'n' || i, 'all', 'followed' from generate_series(1, 40000) i"
    )
    db.execute("analyze tocsin.subscription")
    event_id = reply(db, "topic:1")
    plan = explain(db, event_id)
    assert "subscription_pkey" in plan, plan
    assert "recipient_id > " in plan, plan
    assert "Sort" not in plan, plan
    assert "Seq Scan on subscription" not in plan, plan


def explain(db: Db, event_id: int) -> str:
    event = value(db, "select e::text from tocsin.event e where event_id = %s", event_id)
    # as in the leader's session, where functions keep their plans
    for setting in ("enable_seqscan = off", "enable_bitmapscan = off"):
        db.execute(f"set {setting}")
    db.execute("set plan_cache_mode = force_generic_plan")
    db.execute(
        "prepare next (tocsin.event, text, timestamptz, int) as"
        " select * from tocsin.next_followers($1, $2, $3, $4)"
    )
    call: Any = psycopg.ClientCursor(db)
    lines = call.execute("explain execute next (%s, 'n5', now(), 500)", (event,)).fetchall()
    return "\n".join(line for (line,) in lines)
