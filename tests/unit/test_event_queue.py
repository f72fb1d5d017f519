"""The event queue: fairness between events, and priority, without a database."""

from __future__ import annotations

from tocsin.engine.dispatch.dispatcher import EventQueue, Share
from tocsin.engine.store.dispatch import DispatchedEvent

ROOM = 1000


def take(
    queue: EventQueue, left: dict[int, int], room: int = ROOM, newcomers: int = 0
) -> Share | None:
    """Dispatches one share, with `left` deliveries of each event."""
    share = queue.next_share("email", room, newcomers)
    if share is None:
        return None
    results = []
    for event_id, last in share.events.items():
        taken = min(share.each, left[event_id])
        left[event_id] -= taken
        results.append(
            DispatchedEvent(event_id, last + taken if taken == share.each else None, taken)
        )
    queue.dispatched(share, results)
    return share


def test_a_newcomer_shares_the_next_share_with_a_huge_fan_out() -> None:
    queue, left = EventQueue(), {1: 100_000, 2: 1}
    queue.add(1, "email", 1)
    take(queue, left)
    queue.add(2, "email", 1)
    share = take(queue, left)
    assert share is not None
    assert set(share.events) == {1, 2}
    assert left[2] == 0


def test_urgent_events_go_first() -> None:
    queue = EventQueue()
    queue.add(1, "email", 0)
    queue.add(2, "email", 2)
    queue.add(3, "email", 1)
    order = [share.priority for _ in range(3) if (share := take(queue, {1: 1, 2: 1, 3: 1}))]
    assert order == [2, 1, 0]


def test_more_events_than_fit_a_share_take_turns() -> None:
    queue = EventQueue()
    events = range(1, EventQueue.MOST * 2 + 1)
    for event_id in events:
        queue.add(event_id, "email", 1)
    left = dict.fromkeys(events, 50)
    first, second = take(queue, left), take(queue, left)
    assert first is not None
    assert second is not None
    assert not first.events.keys() & second.events.keys()


def test_a_busy_channel_still_serves_events_without_a_share_so_far() -> None:
    queue, left = EventQueue(), {1: 100_000, 2: 100}
    queue.add(1, "email", 1)
    take(queue, left)
    queue.add(2, "email", 1)
    share = take(queue, left, room=0, newcomers=500)
    assert share is not None
    assert list(share.events) == [2]
    assert take(queue, left, room=0, newcomers=500) is None


def test_an_event_that_is_locked_keeps_its_place() -> None:
    queue = EventQueue()
    queue.add(1, "email", 1)
    share = queue.next_share("email", ROOM, 0)
    assert share is not None
    queue.dispatched(share, [])
    assert queue.next_share("email", ROOM, 0) == share


def test_an_event_is_gone_once_empty() -> None:
    queue = EventQueue()
    queue.add(1, "email", 1)
    take(queue, {1: 3})
    assert not queue
    assert queue.channels == []


def test_a_share_divides_the_room_and_is_never_empty_nor_larger_than_a_job() -> None:
    queue = EventQueue()
    queue.add(1, "email", 1)
    assert queue.next_share("email", 1, 0) == Share("email", 1, {1: 0}, 1)
    assert queue.next_share("email", 100_000, 0) == Share("email", 1, {1: 0}, 500)
    queue.add(2, "email", 1)
    assert queue.next_share("email", 1, 0) == Share("email", 1, {1: 0, 2: 0}, 1)
    assert repr(queue.next_share("email", 7, 0)) == repr(Share("email", 1, {1: 0, 2: 0}, 3))
    assert queue.next_share("email", 0, 0) is None


def test_without_room_only_events_that_never_had_a_share_get_a_small_one() -> None:
    queue = EventQueue()
    queue.add(1, "email", 1)
    first = queue.next_share("email", 100, 0)
    assert first is not None
    queue.dispatched(first, [DispatchedEvent(1, 50, 50)])
    assert queue.next_share("email", 0, 1) is None
    queue.add(2, "email", 1)
    assert queue.next_share("email", 0, 1) == Share("email", 1, {2: 0}, EventQueue.NEWCOMER)
    assert queue.next_share("email", 0, 0) is None


def test_what_is_dispatched_is_summed_and_an_event_that_is_gone_is_no_error() -> None:
    queue = EventQueue()
    for event_id in (1, 2, 3):
        queue.add(event_id, "email", 1)
    share = queue.next_share("email", 100, 0)
    assert share is not None
    assert (
        queue.dispatched(
            share,
            [DispatchedEvent(1, 9, 30), DispatchedEvent(2, None, 4), DispatchedEvent(2, None, 0)],
        )
        == 34
    )
    again = queue.next_share("email", 100, 0)
    assert again is not None
    assert list(again.events.items()) == [(3, 0), (1, 9)]
