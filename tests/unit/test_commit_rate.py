"""When commits send a wake-up signal, and when the listener polls."""

from __future__ import annotations

import pytest

from tocsin.engine.dispatch.listener import CommitRate

AT_ONCE = (0.00002, 0.00005, 0.00003)
WAITED = (0.004, 0.00003, 0.012)


def commit(commits: CommitRate, rate: float, *, since: float, seconds: float) -> float:
    """Commits at a steady rate from `since` on; returns when they end."""
    commits.restart(since)
    commits.count(round(rate * seconds))
    return since + seconds


def heavy_within(commits: CommitRate, rate: float, turns: tuple[float, ...], windows: int) -> bool:
    now = 0.0
    for _ in range(windows):
        now = commit(commits, rate, since=now, seconds=0.1)
        if commits.is_heavy(turns, now):
            return True
    return False


def test_few_are_light_and_nothing_has_to_be_asked() -> None:
    commits = CommitRate(0.0)
    assert commits.is_light(commit(commits, 90, since=0.0, seconds=0.1))
    assert not commits.is_light(commit(commits, 500, since=0.1, seconds=0.1))


@pytest.mark.parametrize(
    ("rate", "turns", "heavy"),
    [(1000, AT_ONCE, False), (1000, WAITED, True), (200, WAITED, True), (2500, AT_ONCE, True)],
)
def test_they_are_too_many_where_they_wait_for_their_turn(
    rate: float, turns: tuple[float, ...], heavy: bool
) -> None:
    assert heavy_within(CommitRate(0.0), rate, turns, windows=5) is heavy


def test_one_stall_is_no_crowd() -> None:
    commits = CommitRate(0.0)
    assert not heavy_within(commits, 1000, AT_ONCE, windows=2)
    assert not heavy_within(commits, 1000, WAITED, windows=1)
    assert not heavy_within(commits, 1000, AT_ONCE, windows=3)


def test_after_many_commits_fewer_may_wake_and_then_gradually_more() -> None:
    commits = CommitRate(0.0)
    assert heavy_within(commits, 1000, WAITED, windows=3)
    assert not commits.is_calm(commit(commits, 900, since=1.0, seconds=0.25))
    assert commits.is_calm(commit(commits, 500, since=1.0, seconds=0.25))
    assert commits.is_calm(commit(commits, 900, since=11.0, seconds=0.25))
    assert not commits.is_calm(commit(commits, 1900, since=100.0, seconds=0.25))


def test_counts_are_summed_and_start_at_zero_after_each_read() -> None:
    commits = CommitRate(0.0)
    commits.count(60)
    commits.count(60)
    assert not commits.is_light(1.0)
    assert commits.is_light(2.0)
    commits.count(150)
    assert not commits.is_light(3.0)
    assert not commits.is_heavy(AT_ONCE, 3.0)
    assert commits.is_light(4.0)
    commits.count(1500)
    assert not commits.is_calm(5.0)
    assert commits.is_calm(6.0)
    assert commits.counted_for(0.5, 6.5)
    assert not commits.counted_for(0.5, 6.4)


def test_a_hundred_are_no_longer_few_and_two_thousand_not_yet_many() -> None:
    commits = CommitRate(0.0)
    commits.count(100)
    assert not commits.is_light(1.0)
    commits.restart(1.0)
    commits.count(2000)
    assert not commits.is_heavy(AT_ONCE, 2.0)
    commits.count(2001)
    assert commits.is_heavy(AT_ONCE, 3.0)


def test_only_the_last_nine_turns_count() -> None:
    commits = CommitRate(0.0)
    for _ in range(5):
        assert not commits.is_heavy([0.0] * 9, 0.0)
    assert commits.is_heavy([0.002] * 5, 1.0)
    assert not commits.is_heavy([0.002] * 8, 2.0)
    assert commits.is_heavy([0.002], 3.0)


def test_the_limit_grows_from_the_time_on_at_which_it_was_set() -> None:
    commits = CommitRate(1000.0)
    commits.count(1000)
    assert commits.is_heavy([0.002] * 9, 1001.0)
    commits.count(900)
    assert not commits.is_calm(1002.0)
    commits.count(900)
    assert commits.is_calm(1006.0)
