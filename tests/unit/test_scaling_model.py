"""The model of docs/scaling.md, with costs that are known."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
IDLE = 1000.0  # microseconds a second in each part of the installation


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("bench.scaling_model")


def measured(scaling: Any) -> dict[str, dict[str, float]]:
    """Returns a round in which `notify()` costs 500 µs, and 2,000 that are shared for 50 ms; all else costs 100."""

    def costs(postgres: float, worker: float = 0.0) -> dict[str, float]:
        none = dict.fromkeys((*scaling.GROUPS, scaling.WAL), 0.0)
        return none | {"postgres": postgres, "worker": worker}

    def notify(rate: float) -> float:
        return 500 + 2000 / (1 + rate * 0.05)

    parts = {name: costs(100) for name in scaling.PLAIN}
    for rate in scaling.RATES:
        parts[f"notify, {rate:.0f}/s"] = costs(notify(rate))
        parts[f"notify, {rate:.0f}/s, no more serves"] = costs(2 * notify(rate))
        parts[f"notify, {rate:.0f}/s, more serves"] = costs(2 * notify(rate) + 2 * 30)
        parts[f"mail, {rate:.0f}/s, no more workers"] = costs(2 * notify(rate) + 100)
        parts[f"mail, {rate:.0f}/s, more workers"] = costs(2 * notify(rate) + 100, 40)
        for name in (*scaling.WITH_NOTIFY, "mark read"):
            parts[f"{name}, {rate:.0f}/s"] = costs(notify(rate) + 100)
    parts["fan-out"] = costs(notify(2) + 199 * 60) | {"rate": 2.0}
    parts["fan-out with mail"] = costs(notify(2) + 199 * 60 + 200 * 90)
    parts["people of a fan-out"] = {"count": 200.0}
    parts["idle"] = parts["idle, no streams"] = parts["idle, streams"] = costs(3 * IDLE)
    for kind in ("serves", "workers"):
        parts[f"idle, no more {kind}"] = costs(4 * IDLE)
        parts[f"idle, more {kind}"] = costs(6 * IDLE)
    parts["streams"] = {"count": 1000.0}
    return parts


def test_at_each_measured_rate_the_cost_is_that(scaling: Any) -> None:
    model = scaling.fit([measured(scaling)])

    for rate in (5, 40, 250):
        expected = 500 + 2000 / (1 + rate * 0.05)
        assert model.costs["notify"].at(rate)["postgres"] == pytest.approx(expected)
    assert model.costs["mail"].at(40)["postgres"] == pytest.approx(100)


def test_between_two_rates_the_cost_is_interpolated_and_beyond_them_it_stays(scaling: Any) -> None:
    cost = scaling.fit([measured(scaling)]).costs["notify"]
    at = {rate: cost.at(rate)["postgres"] for rate in (1, 5, 40, 100, 250, 10_000)}

    assert at[100] == pytest.approx((at[40] + at[250]) / 2)  # the middle of their logarithms
    assert at[1] == at[5]
    assert at[10_000] == at[250]


def test_a_fan_out_is_one_call_and_each_further_person(scaling: Any) -> None:
    model = scaling.fit([measured(scaling)])

    assert model.costs["further person"].at(1)["postgres"] == pytest.approx(60, rel=0.05)
    assert model.costs["mail of a fan-out"].at(1)["postgres"] == pytest.approx(90)


def test_a_load_costs_its_operations_and_what_runs_anyway(scaling: Any) -> None:
    model = scaling.fit([measured(scaling)])
    load = scaling.Load(10.0, {"count": 50}, serves=3, workers=2)

    predicted = scaling.predict(model, load)

    # a leader, three serve and two workers for ten seconds
    assert predicted["postgres"] == pytest.approx(50 * 100 + 10 * 6 * IDLE)


def test_further_processes_cost_something_for_each_change(scaling: Any) -> None:
    model = scaling.fit([measured(scaling)])
    one, four = (
        scaling.predict(model, scaling.Load(10.0, {"notify": 1000, "mail": 1000}, each, each))
        for each in (1, 4)
    )

    more = four["postgres"] - one["postgres"] - 10 * 6 * IDLE
    assert more == pytest.approx(1000 * 3 * 30, rel=0.05)
    assert four["worker"] - one["worker"] == pytest.approx(1000 * 3 * 20, rel=0.05)


def test_noise_makes_no_cost_negative(scaling: Any) -> None:
    parts = measured(scaling)
    parts["mail, 250/s"]["postgres"] = parts["notify, 250/s"]["postgres"] - 50

    model = scaling.fit([parts])

    assert all(model.costs["mail"].at(rate)["postgres"] >= 0 for rate in (1, 10, 1000))


def test_of_several_rounds_the_medians_count(scaling: Any) -> None:
    rounds = [measured(scaling) for _ in range(3)]
    rounds[0]["count"]["postgres"] = 1_000_000.0

    assert scaling.fit(rounds).costs["count"].at(1)["postgres"] == 100


def test_mails_share_with_all_calls_and_not_with_mails_alone(scaling: Any) -> None:
    parts = measured(scaling)
    for rate in scaling.RATES:
        parts[f"mail, {rate:.0f}/s"]["postgres"] += 1000 / rate
    model = scaling.fit([parts])

    def mail(notifications: float) -> float:
        """Returns what a mail costs beside so many notifications of another kind."""
        load = {"notify": notifications + 5, "mail": 5}
        with_mail, without = (
            scaling.sum_of(model, each, 1.0) for each in (load, {**load, "mail": 0})
        )
        return float(with_mail["postgres"] - without["postgres"]) / 5

    assert mail(0) == pytest.approx(100 + 1000 / 5)
    assert mail(245) == pytest.approx(100 + 1000 / 250)
