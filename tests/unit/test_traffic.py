"""When the listener has commits ring, and when it looks for itself."""

from __future__ import annotations

import pytest

from tocsin.engine.dispatch.commit_rate import Traffic

AT_ONCE = (0.00002, 0.00005, 0.00003)
WAITED = (0.004, 0.00003, 0.012)


def ring(traffic: Traffic, rate: float, *, since: float, seconds: float) -> float:
    """Commits at a steady rate from `since` on; answers when they end."""
    traffic.restart(since)
    traffic.count(round(rate * seconds))
    return since + seconds


def heavy_within(traffic: Traffic, rate: float, turns: tuple[float, ...], windows: int) -> bool:
    now = 0.0
    for _ in range(windows):
        now = ring(traffic, rate, since=now, seconds=0.1)
        if traffic.is_heavy(turns, now):
            return True
    return False


def test_few_are_light_and_nothing_has_to_be_asked() -> None:
    traffic = Traffic(0.0)
    assert traffic.is_light(ring(traffic, 90, since=0.0, seconds=0.1))
    assert not traffic.is_light(ring(traffic, 500, since=0.1, seconds=0.1))


@pytest.mark.parametrize(
    ("rate", "turns", "heavy"),
    [(1000, AT_ONCE, False), (1000, WAITED, True), (200, WAITED, True), (2500, AT_ONCE, True)],
)
def test_they_are_too_many_where_they_wait_for_their_turn(
    rate: float, turns: tuple[float, ...], heavy: bool
) -> None:
    assert heavy_within(Traffic(0.0), rate, turns, windows=5) is heavy


def test_one_stall_is_no_crowd() -> None:
    traffic = Traffic(0.0)
    assert not heavy_within(traffic, 1000, AT_ONCE, windows=2)
    assert not heavy_within(traffic, 1000, WAITED, windows=1)
    assert not heavy_within(traffic, 1000, AT_ONCE, windows=3)


def test_after_a_crowd_fewer_may_ring_and_by_and_by_more_again() -> None:
    traffic = Traffic(0.0)
    assert heavy_within(traffic, 1000, WAITED, windows=3)
    assert not traffic.is_calm(ring(traffic, 900, since=1.0, seconds=0.25))
    assert traffic.is_calm(ring(traffic, 500, since=1.0, seconds=0.25))
    assert traffic.is_calm(ring(traffic, 900, since=11.0, seconds=0.25))
    assert not traffic.is_calm(ring(traffic, 1900, since=100.0, seconds=0.25))


def test_what_is_counted_is_summed_and_each_answer_counts_anew() -> None:
    traffic = Traffic(0.0)
    traffic.count(60)
    traffic.count(60)
    assert not traffic.is_light(1.0)
    assert traffic.is_light(2.0)
    traffic.count(150)
    assert not traffic.is_light(3.0)
    assert not traffic.is_heavy(AT_ONCE, 3.0)
    assert traffic.is_light(4.0)
    traffic.count(1500)
    assert not traffic.is_calm(5.0)
    assert traffic.is_calm(6.0)
    assert traffic.counted_for(0.5, 6.5)
    assert not traffic.counted_for(0.5, 6.4)


def test_a_hundred_are_no_longer_few_and_two_thousand_not_yet_many() -> None:
    traffic = Traffic(0.0)
    traffic.count(100)
    assert not traffic.is_light(1.0)
    traffic.restart(1.0)
    traffic.count(2000)
    assert not traffic.is_heavy(AT_ONCE, 2.0)
    traffic.count(2001)
    assert traffic.is_heavy(AT_ONCE, 3.0)


def test_only_the_last_nine_turns_count() -> None:
    traffic = Traffic(0.0)
    for _ in range(5):
        assert not traffic.is_heavy([0.0] * 9, 0.0)
    assert traffic.is_heavy([0.002] * 5, 1.0)
    assert not traffic.is_heavy([0.002] * 8, 2.0)
    assert traffic.is_heavy([0.002], 3.0)


def test_the_limit_grows_from_the_time_on_at_which_it_was_set() -> None:
    traffic = Traffic(1000.0)
    traffic.count(1000)
    assert traffic.is_heavy([0.002] * 9, 1001.0)
    traffic.count(900)
    assert not traffic.is_calm(1002.0)
    traffic.count(900)
    assert traffic.is_calm(1006.0)
