"""The circuit breaker: when it opens, for how long, and when it closes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from tocsin.engine.actors.machinery.breaker import Breaker, BreakerState


def test_a_new_one_is_closed() -> None:
    now = 3.0
    breaker = Breaker(clock=lambda: now)
    now = 8.0
    assert (breaker.state, breaker.reason, breaker.retry_after) == (BreakerState.CLOSED, None, 0)
    assert breaker.failing_for == 0


def test_a_failed_probe_opens_it_for_longer() -> None:
    now = 0.0
    breaker = Breaker(clock=lambda: now, chance=lambda: 1.0)
    for _ in range(5):
        breaker.failure("refused")
    assert (breaker.state, breaker.retry_after) == (BreakerState.OPEN, 2.0)
    for expected in (4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
        now += breaker.retry_after
        assert breaker.state is BreakerState.HALF_OPEN
        assert breaker.failure("refused")
        assert breaker.retry_after == expected
    now += 70
    assert breaker.failing_for == now  # since it first opened
    breaker.success()
    assert breaker.failing_for == 0
    assert (breaker.state, breaker.reason) == (BreakerState.CLOSED, None)


def test_a_provider_that_asks_for_a_pause_gets_it_whole() -> None:
    now = 0.0
    breaker = Breaker(clock=lambda: now, chance=lambda: 0.0)
    assert breaker.pause("quota", 30)
    assert (breaker.state, breaker.reason, breaker.retry_after) == (BreakerState.OPEN, "quota", 30)
    now = 20.0
    assert not breaker.pause("quota", 5)
    assert breaker.retry_after == 10
    assert not breaker.pause("quota", 90)
    assert breaker.retry_after == 90
    now = 110.0
    assert (breaker.state, breaker.retry_after) == (BreakerState.HALF_OPEN, 0)
    breaker.success()
    assert (breaker.state, breaker.reason) == (BreakerState.CLOSED, None)


def test_two_breakers_do_not_probe_at_one_moment() -> None:
    """Else the workers would ask a provider that recovers all at once."""

    def waits(opens: Callable[[Breaker], object], seeds: Iterable[int]) -> list[float]:
        found = []
        for seed in seeds:
            breaker = Breaker(threshold=1, first=40, clock=lambda: 0.0, chance=Random(seed).random)
            opens(breaker)
            found.append(breaker.retry_after)
        return found

    failures = waits(lambda breaker: breaker.failure("refused"), range(200))
    assert 20 <= min(failures) < 22
    assert 38 < max(failures) <= 40
    pauses = waits(lambda breaker: breaker.pause("quota", 100), range(200))
    assert 100 <= min(pauses) < 101
    assert 109 < max(pauses) <= 110
    usual = [Breaker(threshold=1, first=40, clock=lambda: 0.0) for _ in range(2)]
    for breaker in usual:
        breaker.failure("refused")
    assert usual[0].retry_after != usual[1].retry_after


def test_a_success_takes_earlier_failures_back() -> None:
    breaker = Breaker(threshold=2)
    for _ in range(3):
        assert not breaker.failure("refused")
        breaker.success()
    assert breaker.closed
    assert not breaker.failure("refused")
    assert breaker.failure("refused")


def test_a_shorter_pause_does_not_shorten_a_longer_one() -> None:
    breaker = Breaker(clock=lambda: 0.0, chance=lambda: 0.0)
    breaker.pause("quota", 90)
    breaker.pause("quota", 5)
    assert breaker.retry_after == 90


def test_what_began_before_it_opened_changes_nothing() -> None:
    breaker = Breaker(threshold=1)
    breaker.failure("refused")
    breaker.success()
    assert not breaker.failure("other")
    assert (breaker.state, breaker.reason) == (BreakerState.OPEN, "refused")
