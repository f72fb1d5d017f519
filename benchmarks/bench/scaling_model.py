"""The model of docs/scaling.md: the CPU time and the WAL of a load, from the cost of each of its parts.

What was committed meanwhile is noticed together: one look of the leader, one job for a channel and one read for the
streams serve all of it. So an operation costs less the more of them there are. It is measured at three rates; between
them the cost is interpolated along the logarithm of the rate, and outside it is that of the nearest one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping

from msgspec import Struct, field

GROUPS = ("postgres", "walsender", "standby", "serve", "worker")
WAL = "wal"
RATES = (5.0, 40.0, 250.0)  # operations a second at which they are measured
NOTIFY, MAIL, PUSH = "notify", "mail", "push"
PACED = (NOTIFY, MAIL, PUSH, "stream")  # each of them consists of a notify(), and what is added
PLAIN = ("count", "list", "mark read", "vacuum", "clean-up")
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
    further_serve: Cost = field(default_factory=lambda: always({}))  # of each change of a badge
    further_worker: Cost = field(default_factory=lambda: always({}))  # of each single delivery
    idle: dict[str, Costs] = field(default_factory=dict)  # a second: leader, serve, worker, stream


def fit(rounds: Iterable[Parts]) -> Model:
    """Returns the coefficients, from the medians of all rounds."""
    parts = medians(rounds)
    model = Model()
    for name in PACED:
        base = "" if name == NOTIFY else NOTIFY
        model.costs[name] = Cost({rate: _less(parts, name, base, rate) for rate in RATES})
    for name in PLAIN:
        model.costs[name] = always(parts[name])
    fan_out, with_mail = parts["fan-out"], parts["fan-out with mail"]
    people = parts["people of a fan-out"]["count"]
    one = model.costs[NOTIFY].at(parts["fan-out"]["rate"])
    model.costs["further person"] = always(times(plus(fan_out, one, -1), 1 / (people - 1)))
    model.costs["mail of a fan-out"] = always(times(plus(with_mail, fan_out, -1), 1 / people))
    model.further_serve = _further(parts, NOTIFY, "serves")
    model.further_worker = _further(parts, MAIL, "workers")
    model.idle = _idle(parts)
    return model


def medians(rounds: Iterable[Parts]) -> dict[str, Costs]:
    """Returns the median of each number."""
    each = list(rounds)
    return {
        part: {
            name: statistics.median(parts[part].get(name, 0.0) for parts in each)
            for name in each[0][part]
        }
        for part in each[0]
    }


def predict(model: Model, load: Load) -> Costs:
    """Returns the CPU time in microseconds of each group, and the bytes of WAL."""
    total: Costs = dict.fromkeys((*GROUPS, WAL), 0.0)
    operations = load.operations
    changes = operations.get(NOTIFY, 0) + operations.get("mark read", 0)
    messages = operations.get(MAIL, 0) + operations.get(PUSH, 0)
    # the leader's looks are about all changes, and its rounds and the jobs' loop about all messages
    together = {NOTIFY: changes, MAIL: messages, PUSH: messages}
    for name, count in operations.items():
        rate = together.get(name, count) / load.seconds
        total = plus(total, model.costs[name].at(rate), count)
    for cost, count, more in (
        (model.further_serve, changes, load.serves - 1),
        (model.further_worker, messages, load.workers - 1),
    ):
        total = plus(total, cost.at(count / load.seconds), count * more)
    processes = {"serve": load.serves, "worker": load.workers, "stream": load.streams, "leader": 1}
    for name, number in processes.items():
        total = plus(total, model.idle[name], number * load.seconds)
    return total


def plus(one: Costs, other: Mapping[str, float], factor: float = 1.0) -> Costs:
    """Returns one + factor * other."""
    names = (*GROUPS, WAL)
    return {name: one.get(name, 0.0) + factor * other.get(name, 0.0) for name in names}


def times(one: Mapping[str, float], factor: float) -> Costs:
    return plus({}, one, factor)


def _less(parts: Mapping[str, Costs], name: str, base: str, rate: float) -> Costs:
    """Returns what an operation costs at a rate, without what `base` costs; noise is not below nothing."""
    cost = parts[f"{name}, {rate:.0f}/s"]
    less = plus(cost, parts[f"{base}, {rate:.0f}/s"], -1) if base else plus({}, cost)
    return {group: max(0.0, value) for group, value in less.items()}


def _further(parts: Mapping[str, Costs], name: str, kind: str) -> Cost:
    """Returns what each of two further processes of a kind adds to the operation."""

    def more(rate: float) -> Costs:
        usual = f"{name}, {rate:.0f}/s"
        both = plus(parts[f"{usual}, more {kind}"], parts[usual], -1)
        return {group: max(0.0, value) / 2 for group, value in both.items()}

    return Cost({rate: more(rate) for rate in RATES[1:]})


def _idle(parts: Mapping[str, Costs]) -> dict[str, Costs]:
    """Returns what a second without load costs; noise is not below nothing."""

    def positive(costs: Costs) -> Costs:
        return {group: max(0.0, value) for group, value in costs.items()}

    one = parts["idle"]
    serve = positive(times(plus(parts["idle, more serves"], one, -1), 1 / 2))
    worker = positive(times(plus(parts["idle, more workers"], one, -1), 1 / 2))
    streams = parts["streams"]["count"]
    stream = positive(times(plus(parts["idle, streams"], one, -1), 1 / streams))
    return {
        "serve": serve,
        "worker": worker,
        "stream": stream,
        "leader": positive(plus(plus(one, serve, -1), worker, -1)),
    }
