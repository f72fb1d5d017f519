"""When the leader looks for what is due: at once where that is cheap, at a share of the time where it is not."""

from __future__ import annotations

import pytest

from tocsin.engine.dispatch.dispatcher import DueLooks


def looked(*due: float, took: float = 0.001, now: float = 100.0) -> DueLooks:
    looks = DueLooks()
    looks.looked(due, now - took, now)
    return looks


def test_the_first_look_is_at_once() -> None:
    assert (DueLooks().earliest, DueLooks().next, DueLooks().soonest) == (0, 0, 0)


@pytest.mark.parametrize(
    ("due", "soonest", "following"),
    [
        ((), 130.0, 100.1),  # nothing waits
        ((7.0, 12.0), 107.0, 100.1),
        ((0.05,), 100.05, 100.05),
        ((-3.0, 7.0), 100.1, 100.1),  # late: there was no room for it
        ((0.0,), 100.1, 100.1),
    ],
)
def test_the_next_look_is_when_something_is_due(
    due: tuple[float, ...], soonest: float, following: float
) -> None:
    looks = looked(*due)
    assert looks.soonest == pytest.approx(soonest)
    assert looks.next == pytest.approx(following)


def test_a_look_that_takes_long_is_followed_by_a_pause_of_four_times_as_long() -> None:
    looks = looked(-1.0, took=0.5)
    assert looks.earliest == pytest.approx(102)
    assert looks.next == pytest.approx(102)
    assert looks.soonest == pytest.approx(102)


def test_a_cheap_look_may_follow_soon_after_a_wake_up() -> None:
    assert looked(60.0).earliest == pytest.approx(100.004)
