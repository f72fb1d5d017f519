"""Fairness between events, and urgency, before any database."""

from __future__ import annotations

from tocsin.engine.dispatch.event_queue import Ask, Lanes
from tocsin.engine.store.dispatch import Turn

ROOM = 1000


def take(lanes: Lanes, left: dict[int, int], room: int = ROOM, newcomers: int = 0) -> Ask | None:
    """One turn, with `left` deliveries in each lane."""
    ask = lanes.ask("email", room, newcomers)
    if ask is None:
        return None
    turns = []
    for event_id, last in ask.lanes.items():
        taken = min(ask.each, left[event_id])
        left[event_id] -= taken
        turns.append(Turn(event_id, last + taken if taken == ask.each else None, taken))
    lanes.took(ask, turns)
    return ask


def test_a_newcomer_shares_the_next_turn_with_a_huge_fan_out() -> None:
    lanes, left = Lanes(), {1: 100_000, 2: 1}
    lanes.add(1, "email", 1)
    take(lanes, left)
    lanes.add(2, "email", 1)
    ask = take(lanes, left)
    assert ask is not None
    assert set(ask.lanes) == {1, 2}
    assert left[2] == 0


def test_urgent_lanes_go_first() -> None:
    lanes = Lanes()
    lanes.add(1, "email", 0)
    lanes.add(2, "email", 2)
    lanes.add(3, "email", 1)
    order = [ask.priority for _ in range(3) if (ask := take(lanes, {1: 1, 2: 1, 3: 1}))]
    assert order == [2, 1, 0]


def test_more_lanes_than_fit_a_turn_take_turns() -> None:
    lanes = Lanes()
    events = range(1, Lanes.MOST * 2 + 1)
    for event_id in events:
        lanes.add(event_id, "email", 1)
    left = dict.fromkeys(events, 50)
    first, second = take(lanes, left), take(lanes, left)
    assert first is not None
    assert second is not None
    assert not first.lanes.keys() & second.lanes.keys()


def test_a_busy_channel_still_serves_who_never_had_a_turn() -> None:
    lanes, left = Lanes(), {1: 100_000, 2: 100}
    lanes.add(1, "email", 1)
    take(lanes, left)
    lanes.add(2, "email", 1)
    ask = take(lanes, left, room=0, newcomers=500)
    assert ask is not None
    assert list(ask.lanes) == [2]
    assert take(lanes, left, room=0, newcomers=500) is None


def test_a_lane_that_is_locked_keeps_its_place() -> None:
    lanes = Lanes()
    lanes.add(1, "email", 1)
    ask = lanes.ask("email", ROOM, 0)
    assert ask is not None
    lanes.took(ask, [])
    assert lanes.ask("email", ROOM, 0) == ask


def test_a_lane_is_gone_once_empty() -> None:
    lanes = Lanes()
    lanes.add(1, "email", 1)
    take(lanes, {1: 3})
    assert not lanes
    assert lanes.channels == []


def test_a_turn_divides_the_room_and_is_never_empty_nor_larger_than_a_job() -> None:
    lanes = Lanes()
    lanes.add(1, "email", 1)
    assert lanes.ask("email", 1, 0) == Ask("email", 1, {1: 0}, 1)
    assert lanes.ask("email", 100_000, 0) == Ask("email", 1, {1: 0}, 500)
    lanes.add(2, "email", 1)
    assert lanes.ask("email", 1, 0) == Ask("email", 1, {1: 0, 2: 0}, 1)
    assert repr(lanes.ask("email", 7, 0)) == repr(Ask("email", 1, {1: 0, 2: 0}, 3))
    assert lanes.ask("email", 0, 0) is None


def test_without_room_only_lanes_that_never_had_a_turn_get_a_small_one() -> None:
    lanes = Lanes()
    lanes.add(1, "email", 1)
    first = lanes.ask("email", 100, 0)
    assert first is not None
    lanes.took(first, [Turn(1, 50, 50)])
    assert lanes.ask("email", 0, 1) is None
    lanes.add(2, "email", 1)
    assert lanes.ask("email", 0, 1) == Ask("email", 1, {2: 0}, Lanes.NEWCOMER)
    assert lanes.ask("email", 0, 0) is None


def test_what_a_turn_brought_is_summed_and_a_lane_that_is_gone_is_no_error() -> None:
    lanes = Lanes()
    for event_id in (1, 2, 3):
        lanes.add(event_id, "email", 1)
    ask = lanes.ask("email", 100, 0)
    assert ask is not None
    assert lanes.took(ask, [Turn(1, 9, 30), Turn(2, None, 4), Turn(2, None, 0)]) == 34
    again = lanes.ask("email", 100, 0)
    assert again is not None
    assert list(again.lanes.items()) == [(3, 0), (1, 9)]
