"""Who announces a changed badge, simulated: the listener as it is, beside a PostgreSQL whose speed is a parameter."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from tests.support.simulated_postgres import SimulatedPostgres, at_rate, by_clients, simulate
from tocsin.engine.dispatch.listener import AnnouncementRule, Listener
from tocsin.engine.store.dispatch import LeaderSession

MS = 0.001
SECONDS = 1.5
# a scan, and a flush: a fast machine, and others down to a quarter of its speed
SPEEDS = [
    (scan_seconds * MS, flush * MS) for scan_seconds in (0.25, 0.5, 1) for flush in (0.2, 0.4, 0.8)
]

Load = Callable[[SimulatedPostgres], Awaitable[Any]]


def under(load: Load, *, scan_seconds: float, flush: float) -> SimulatedPostgres:
    """Returns what happened under a load, once all that was committed can be announced."""

    async def run() -> SimulatedPostgres:
        postgres = SimulatedPostgres(scan_seconds=scan_seconds, flush=flush)
        listener = Listener(cast("LeaderSession", postgres), lambda *_: None)
        await listener.begin()
        listening = asyncio.create_task(listener.listen())
        await asyncio.sleep(0.1)
        await load(postgres)
        await asyncio.sleep(0.1)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        assert len(postgres.delays) == postgres.commits
        return postgres

    return simulate(run)


def quantile(delays: list[float], share: float) -> float:
    return sorted(delays)[int(share * len(delays))]


@pytest.mark.parametrize("rate", [10, 100, 1000])
@pytest.mark.parametrize(("scan_seconds", "flush"), [each for each in SPEEDS if each[1] < MS / 2])
def test_commits_that_seldom_meet_announce_themselves_on_a_slow_machine_too(
    scan_seconds: float, flush: float, rate: int
) -> None:
    ran = under(
        lambda postgres: at_rate(postgres, rate, SECONDS), scan_seconds=scan_seconds, flush=flush
    )
    assert ran.announced_by_commit > 0.98 * ran.commits
    assert quantile(ran.delays, 0.5) < 1.5 * flush
    assert quantile(ran.delays, 0.99) < 5 * flush
    assert ran.scans * scan_seconds < 0.1 * SECONDS


@pytest.mark.parametrize("rate", [3000, 6000])
@pytest.mark.parametrize(("scan_seconds", "flush"), SPEEDS)
def test_of_many_commits_most_are_found_by_looks_that_take_a_fifth_of_the_time(
    scan_seconds: float, flush: float, rate: int
) -> None:
    ran = under(
        lambda postgres: at_rate(postgres, rate, 2 * SECONDS),
        scan_seconds=scan_seconds,
        flush=flush,
    )
    assert ran.announced_by_commit < 0.15 * ran.commits
    assert quantile(ran.delays, 0.5) < flush + 5 * scan_seconds
    assert quantile(ran.delays, 0.8) < flush + 8 * scan_seconds
    assert ran.scans * scan_seconds < 0.2 * (2 * SECONDS + 0.2)


def test_where_a_look_takes_long_an_idle_leader_too_looks_for_a_fifth_of_the_time() -> None:
    ran = under(
        lambda postgres: at_rate(postgres, 300, SECONDS), scan_seconds=4 * MS, flush=0.1 * MS
    )
    assert ran.announced_by_commit > 0.98 * ran.commits
    assert ran.scans * 4 * MS < 0.21 * (SECONDS + 0.2)


@pytest.mark.parametrize("clients", [8, 32])
@pytest.mark.parametrize(("scan_seconds", "flush"), [*SPEEDS, (MS, 4 * MS)])
def test_clients_commit_as_fast_as_if_they_sent_no_signal(
    scan_seconds: float, flush: float, clients: int
) -> None:
    work = clients * MS / 4  # the processors' time is the limit, not the clients'
    ran = under(
        lambda postgres: by_clients(postgres, clients, work, SECONDS),
        scan_seconds=scan_seconds,
        flush=flush,
    )
    assert ran.commits > 0.9 * clients * SECONDS / (work + flush)


def test_after_many_commits_the_leader_is_idle_and_looks_no_more() -> None:
    async def load(postgres: SimulatedPostgres) -> None:
        await by_clients(postgres, 32, MS, 0.5)
        await asyncio.sleep(2 * AnnouncementRule.RETRY)
        scans = postgres.scans
        await asyncio.sleep(60)
        assert postgres.scans - scans <= 20  # one beside each heartbeat

    under(load, scan_seconds=MS, flush=MS)


def test_a_transaction_that_stays_open_costs_few_looks() -> None:
    async def load(postgres: SimulatedPostgres) -> None:
        await by_clients(postgres, 32, MS, 0.5)
        postgres.flush = 20.0
        scans = postgres.scans
        await postgres.commit()
        assert postgres.scans - scans < 20.0 / AnnouncementRule.LONGEST

    under(load, scan_seconds=MS, flush=MS)


def test_ten_looks_in_a_row_have_to_find_too_much() -> None:
    rule = AnnouncementRule(0.0)
    waiting = (*[1] * 9, 0, *[3] * 20)
    crowd = [rule.is_too_much(1, each, 0.01 * n) for n, each in enumerate(waiting)]
    assert crowd == [False] * 19 + [True] + [False] * 9 + [True]


@pytest.mark.parametrize(("signals", "many"), [(1000, False), (1001, True)])
def test_so_many_signals_are_too_many_even_where_no_commit_waits(signals: int, many: bool) -> None:
    rule = AnnouncementRule(0.0)
    assert [rule.is_too_much(signals, 0, 0.5 * n) for n in range(1, 11)] == [False] * 9 + [many]


def test_it_tries_to_be_idle_at_once_and_then_each_second() -> None:
    rule = AnnouncementRule(5.0)
    times = (5.0, 5.9, 6.0, 6.1, 7.0)
    assert [rule.may_be_idle(now) for now in times] == [True, False, True, False, True]
    assert [rule.is_too_much(1, 1, 7.5) for _ in range(10)][-1]
    assert [rule.may_be_idle(now) for now in (8.4, 8.5, 8.6)] == [False, True, False]


def test_the_pause_is_four_times_the_quickest_of_the_last_hundred_looks() -> None:
    rule = AnnouncementRule(0.0)
    assert rule.pause(0.0, 0.002, found=True) == pytest.approx(0.008)
    assert rule.pause(1.0, 1.001, found=True) == pytest.approx(0.004)
    for number in range(2, 101):
        assert rule.pause(number, number + 0.004, found=True) == pytest.approx(0.004)
    assert rule.pause(101.0, 101.004, found=True) == pytest.approx(0.016)
    assert rule.pause(102.0, 102.5, found=True) == pytest.approx(0.016)


def test_while_nothing_is_found_the_pause_grows_to_a_fiftieth_of_a_second() -> None:
    rule = AnnouncementRule(0.0)
    assert rule.pause(1.0, 1.001, found=True) == pytest.approx(0.004)
    assert rule.pause(1.049, 1.051, found=False) == pytest.approx(0.01)
    assert rule.pause(2.0, 2.001, found=False) == AnnouncementRule.LONGEST
    assert rule.pause(3.0, 3.001, found=True) == pytest.approx(0.004)
