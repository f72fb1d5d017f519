"""The model of docs/scaling.md: the CPU time and the WAL of a load, from the cost of each of its parts.

What was committed meanwhile is noticed together: one look of the leader, one job for a channel and one read for the
streams serve all of it. So an operation costs less the more of them there are. It is measured at three rates; between
them the cost is interpolated along the logarithm of the rate, and outside it is that of the nearest one.

Operations of different kinds share as those of one kind do, so the rate is that of all calls that the leader notices.
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
MESSAGES = (MAIL, "push", "web push", "webhook", "chat")
PACED = (NOTIFY, *MESSAGES, STREAM, READ)
WITH_NOTIFY = (*MESSAGES, STREAM)  # each of them is measured with the notify() that it needs
MIX = (NOTIFY, MAIL, "push", READ)  # in equal parts: does the rule for the rate hold?
MIXES = (8.0, 40.0, 200.0)  # calls a second
FURTHER_SERVE = "further serve"  # of each change of a badge
FURTHER_WORKER = "further worker"  # of each message that is no part of a fan-out
FURTHER_PERSON = "further person"
PLAIN = ("count", "list", "vacuum", "clean-up")
ALONE = "no more"  # of a kind of process, where the cost of further ones is measured
Costs = dict[str, float]  # microseconds in each of GROUPS, and bytes of WAL
_COUNTED = (*GROUPS, WAL)
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
    shares: Cost = field(
        default_factory=lambda: Cost({})
    )  # what a mix costs of its sum, by its rate


def fit(rounds: Iterable[Parts]) -> Model:
    """Returns the coefficients: of each the median of all rounds. Noise is not below nothing."""
    each = [_of_round(parts) for parts in rounds]

    def cost(name: str) -> Cost:
        found = [one.costs[name].by_rate for one in each if name in one.costs]
        return Cost({rate: _median([by_rate[rate] for by_rate in found]) for rate in found[0]})

    names = dict.fromkeys(name for one in each for name in one.costs)
    return Model(
        {name: cost(name) for name in names},
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
    costs[FURTHER_PERSON] = always(times(plus(fan_out, one, -1), 1 / (people - 1)))
    costs["mail of a fan-out"] = always(times(plus(with_mail, fan_out, -1), 1 / people))
    costs[FURTHER_SERVE] = _further(parts, NOTIFY, "serves")
    costs[FURTHER_WORKER] = _further(parts, MAIL, "workers")
    return Model(costs, _idle(parts))


def _median(costs: Sequence[Costs]) -> Costs:
    return {
        name: max(0.0, statistics.median(one.get(name, 0.0) for one in costs)) for name in _COUNTED
    }


def predict(model: Model, load: Load) -> Costs:
    """Returns the CPU time in microseconds of each group, and the bytes of WAL."""
    operations = load.operations
    changes = operations.get(NOTIFY, 0) + operations.get(READ, 0)
    messages = sum(operations.get(name, 0) for name in MESSAGES)
    total = sum_of(model, operations, load.seconds)
    for cost, count, more in (
        (model.costs[FURTHER_SERVE], changes, load.serves - 1),
        (model.costs[FURTHER_WORKER], messages, load.workers - 1),
    ):
        total = plus(total, cost.at(count / load.seconds), count * more)
    processes = {"serve": load.serves, "worker": load.workers, "stream": load.streams, "leader": 1}
    for name, number in processes.items():
        total = plus(total, model.idle[name], number * load.seconds)
    return total


def sum_of(model: Model, operations: Mapping[str, float], seconds: float) -> Costs:
    """Returns what the operations cost, without further processes and what runs anyway."""
    total: Costs = dict.fromkeys(_COUNTED, 0.0)
    # the leader notices all of these together, and makes jobs in the same rounds
    together = (NOTIFY, READ, *MESSAGES)
    changes = operations.get(NOTIFY, 0) + operations.get(READ, 0)
    for name, count in operations.items():
        rate = (changes if name in together else count) / seconds
        total = plus(total, model.costs[name].at(rate), count)
    return total


def plus(one: Mapping[str, float], other: Mapping[str, float], factor: float = 1.0) -> Costs:
    """Returns one + factor * other."""
    return {name: one.get(name, 0.0) + factor * other.get(name, 0.0) for name in _COUNTED}


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
        alone, all_of_them = (parts[f"{usual}, {how} {kind}"] for how in (ALONE, "more"))
        return times(plus(all_of_them, alone, -1), 1 / 2)

    return Cost({rate: more(rate) for rate in RATES[1:]})


def _idle(parts: Parts) -> dict[str, Costs]:
    """Returns what a second without load costs."""

    def process(kind: str) -> Costs:
        alone, all_of_them = (parts[f"idle, {how} {kind}"] for how in (ALONE, "more"))
        return times(plus(all_of_them, alone, -1), 1 / 2)

    serve, worker = process("serves"), process("workers")
    streams = plus(parts["idle, streams"], parts["idle, no streams"], -1)
    leader = plus(plus(parts["idle"], serve, -1), worker, -1)
    stream = times(streams, 1 / parts["streams"]["count"])
    return {"leader": leader, "serve": serve, "worker": worker, "stream": stream}
