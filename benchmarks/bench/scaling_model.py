"""The model of docs/scaling.md: the CPU time and the WAL of a load, from the cost of each of its parts.

What was committed meanwhile is noticed together: one look of the leader, one job for a channel and one read for the
streams serve all of it. So an operation costs less the more of them there are. It is measured at three rates; between
them the cost is interpolated along the logarithm of the rate, and outside it is that of the nearest one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct, field

GROUPS = ("postgres", "walsender", "standby", "serve", "worker")
WAL = "wal"
RATES = (5.0, 40.0, 250.0)  # operations a second at which they are measured
NOTIFY, MAIL, STREAM, READ = "notify", "mail", "stream", "mark read"
MESSAGES = (MAIL, "push", "web push")
PACED = (NOTIFY, *MESSAGES, STREAM, READ)
WITH_NOTIFY = (*MESSAGES, STREAM)  # each of them is measured with the notify() that it needs
FURTHER_SERVE = "further serve"  # of each change of a badge
FURTHER_WORKER = "further worker"  # of each mail or push that is no part of a fan-out
PLAIN = ("count", "list", "vacuum", "clean-up")
Costs = dict[str, float]  # microseconds in each of GROUPS, and bytes of WAL
Parts = Mapping[str, Mapping[str, float]]


class Load(Struct):
    """What is to be done in so many seconds, by so many processes."""

    seconds: float
    operations: dict[str, float]  # how often each of the model's operations
    serves: int = 1
    workers: int = 1
    streams: int = 0


class Cost(Struct):
    """What one operation costs, by how many a second there are."""

    by_rate: dict[float, Costs]

    def at(self, rate: float) -> Costs:
        lower = max((each for each in self.by_rate if each <= rate), default=min(self.by_rate))
        upper = min((each for each in self.by_rate if each >= rate), default=max(self.by_rate))
        if lower >= upper:
            return self.by_rate[upper]
        part = math.log(rate / lower) / math.log(upper / lower)
        return plus(times(self.by_rate[lower], 1 - part), self.by_rate[upper], part)


def always(costs: Mapping[str, float]) -> Cost:
    """Returns a cost that is the same at each rate."""
    return Cost({1.0: dict(costs)})


class Model(Struct):
    """The coefficients."""

    costs: dict[str, Cost] = field(default_factory=dict)
    idle: dict[str, Costs] = field(default_factory=dict)  # a second: leader, serve, worker, stream


def fit(rounds: Iterable[Parts]) -> Model:
    """Returns the coefficients: of each the median of all rounds. Noise is not below nothing."""
    each = [_of_round(parts) for parts in rounds]

    def cost(name: str) -> Cost:
        found = [one.costs[name].by_rate for one in each if name in one.costs]
        return Cost({rate: _median([by_rate[rate] for by_rate in found]) for rate in found[0]})

    return Model(
        {name: cost(name) for name in dict.fromkeys(name for one in each for name in one.costs)},
        {name: _median([one.idle[name] for one in each]) for name in each[0].idle},
    )


def _of_round(parts: Parts) -> Model:
    """Returns the coefficients of one round: differences of what was measured within minutes."""
    costs = {name: always(parts[name]) for name in PLAIN}
    # a kept round of an earlier version may lack what was added since
    for name in (name for name in PACED if f"{name}, {RATES[0]:.0f}/s" in parts):
        base = NOTIFY if name in WITH_NOTIFY else ""
        costs[name] = Cost({rate: _less(parts, name, base, rate) for rate in RATES})
    fan_out, with_mail = parts["fan-out"], parts["fan-out with mail"]
    people = parts["people of a fan-out"]["count"]
    one = costs[NOTIFY].at(fan_out["rate"])
    costs["further person"] = always(times(plus(fan_out, one, -1), 1 / (people - 1)))
    costs["mail of a fan-out"] = always(times(plus(with_mail, fan_out, -1), 1 / people))
    costs[FURTHER_SERVE] = _further(parts, NOTIFY, "serves")
    costs[FURTHER_WORKER] = _further(parts, MAIL, "workers")
    return Model(costs, _idle(parts))


def _median(costs: Sequence[Costs]) -> Costs:
    names = (*GROUPS, WAL)
    return {
        name: max(0.0, statistics.median(one.get(name, 0.0) for one in costs)) for name in names
    }


def predict(model: Model, load: Load) -> Costs:
    """Returns the CPU time in microseconds of each group, and the bytes of WAL."""
    total: Costs = dict.fromkeys((*GROUPS, WAL), 0.0)
    operations = load.operations
    changes = operations.get(NOTIFY, 0) + operations.get(READ, 0)
    messages = sum(operations.get(name, 0) for name in MESSAGES)
    # the leader's looks are about all changes, and its rounds and the jobs' loop about all messages
    together = {NOTIFY: changes, READ: changes} | dict.fromkeys(MESSAGES, messages)
    for name, count in operations.items():
        rate = together.get(name, count) / load.seconds
        total = plus(total, model.costs[name].at(rate), count)
    for cost, count, more in (
        (model.costs[FURTHER_SERVE], changes, load.serves - 1),
        (model.costs[FURTHER_WORKER], messages, load.workers - 1),
    ):
        total = plus(total, cost.at(count / load.seconds), count * more)
    processes = {"serve": load.serves, "worker": load.workers, "stream": load.streams, "leader": 1}
    for name, number in processes.items():
        total = plus(total, model.idle[name], number * load.seconds)
    return total


def plus(one: Mapping[str, float], other: Mapping[str, float], factor: float = 1.0) -> Costs:
    """Returns one + factor * other."""
    names = (*GROUPS, WAL)
    return {name: one.get(name, 0.0) + factor * other.get(name, 0.0) for name in names}


def times(one: Mapping[str, float], factor: float) -> Costs:
    return plus({}, one, factor)


def _less(parts: Parts, name: str, base: str, rate: float) -> Costs:
    """Returns what an operation costs at a rate, without what `base` costs."""
    cost = parts[f"{name}, {rate:.0f}/s"]
    return plus(cost, parts[f"{base}, {rate:.0f}/s"], -1) if base else plus({}, cost)


def _further(parts: Parts, name: str, kind: str) -> Cost:
    """Returns what each of two further processes of a kind adds to the operation."""

    def more(rate: float) -> Costs:
        usual = f"{name}, {rate:.0f}/s"
        return times(plus(parts[f"{usual}, more {kind}"], parts[usual], -1), 1 / 2)

    return Cost({rate: more(rate) for rate in RATES[1:]})


def _idle(parts: Parts) -> dict[str, Costs]:
    """Returns what a second without load costs."""
    one = plus({}, parts["idle"])
    serve = times(plus(parts["idle, more serves"], one, -1), 1 / 2)
    worker = times(plus(parts["idle, more workers"], one, -1), 1 / 2)
    streams = parts["streams"]["count"]
    stream = times(plus(parts["idle, streams"], one, -1), 1 / streams)
    leader = plus(plus(one, serve, -1), worker, -1)
    return {"leader": leader, "serve": serve, "worker": worker, "stream": stream}
