"""The tables of docs/scaling.md, from results/scaling.json: coefficients, check, examples. `make performance`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.record import RESULTS
from bench.scaling_model import (
    GROUPS,
    MIX,
    MIXES,
    WAL,
    Load,
    Model,
    Parts,
    fit,
    predict,
    sum_of,
    times,
)

PAGE = Path(__file__).parent.parent / "docs" / "scaling.md"
DAY = 86_400.0
PEAK = 4  # how much more than on average happens in the busiest hour
HALF = 0.5  # of its processors is what a machine should use in the busiest hour
STREAMS = 5_000  # that one `serve` holds
NAMES = {
    "notify": "`notify()` for one person",
    "further person": "each further person of a call",
    "mail": "a mail, rendered and sent",
    "mail of a fan-out": "a mail of a fan-out to 200",
    "push": "a push, by APNs or FCM",
    "web push": "a push to a browser",
    "webhook": "a webhook of a person",
    "chat": "a message to Slack",
    "stream": "a change for a person with an open stream",
    "count": "an unread count",
    "list": "a page of the inbox",
    "mark read": "marking one as read",
    "further serve": "each further `serve`, a change (at 40 / 250)",
    "further worker": "each further `worker`, a message (at 40 / 250)",
    "vacuum": "vacuum, a notification",
    "clean-up": "removing a notification",
}
INBOX: dict[str, float] = {"notify": 1, "vacuum": 1}
MESSAGES = INBOX | {"mail": 0.3, "push": 0.2}
# what an event consists of, for the table of limits
KINDS = {
    "inbox only": INBOX,
    "a third by mail, a fifth by push": MESSAGES,
    "the same, with streams and readers": MESSAGES
    | {"stream": 0.1, "count": 1, "list": 0.3, "mark read": 0.5},
}
PROCESSES = {
    "leader": "the leader, whichever process it is",
    "serve": "a `tocsin serve`",
    "worker": "a `tocsin worker`",
    "stream": "1,000 open streams",
}
COLUMNS = {
    "postgres": "PostgreSQL",
    "serve": "`serve`",
    "worker": "`worker`",
    "walsender": "WAL sender",
    "standby": "standby",
}


def text() -> str:
    """Returns the page with its tables made again."""
    kept = json.loads((RESULTS / "scaling.json").read_text("utf-8"))
    model = fit(kept["rounds"])
    made = {
        "operations": operations(model),
        "mixes": mixes(model, kept["rounds"]),
        "processes": processes(model),
        "check": check(kept["checks"], model),
        "disk": grid(
            ("kept until the clean-up", "GB for a million"),
            [(name, f"{size / 1000:.2f}") for name, size in disk(kept).items()],
        ),
        "examples": examples(model, kept["disk"]),
        "limits": limits(model),
    }

    def table(match: re.Match[str]) -> str:
        return f"<!-- table: {match[1]} -->\n{made[match[1]]}\n<!-- end -->"

    pattern = r"<!-- table: (\w+) -->\n.*?<!-- end -->"
    return re.sub(pattern, table, PAGE.read_text("utf-8"), flags=re.DOTALL)


def operations(model: Model) -> str:
    rows = [
        (label, *(cell(model, name, group) for group in COLUMNS), cell(model, name, WAL))
        for name, label in NAMES.items()
        if name in model.costs  # kept rounds of an earlier version may lack what was added since
    ]
    return grid(("", *COLUMNS.values(), "WAL, bytes"), rows)


def cell(model: Model, name: str, group: str) -> str:
    """Returns the cost at each rate, or one number where it is the same at all."""
    cost = model.costs[name]
    numbers = [rounded(each.get(group, 0)) for each in cost.by_rate.values()]
    return numbers[0] if len(set(numbers)) == 1 else " / ".join(numbers)


def rounded(value: float) -> str:
    """With two digits that count; 0 for what is lost in the noise."""
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 5 else "0"


def mixes(model: Model, rounds: Sequence[Parts]) -> str:
    """Returns how far the sum for calls of several kinds is from what was measured."""
    rows = []
    for rate in MIXES:
        measured = [parts[f"mix, {rate:.0f}/s"] for parts in rounds]
        calls = {name: rate / len(MIX) for name in MIX}
        calls["notify"] += calls["mail"] + calls["push"]
        predicted = times(sum_of(model, calls, 1.0), 1 / rate)
        errors = (
            predicted[counted] / median(each[counted] for each in measured) - 1
            for counted in (*COLUMNS, WAL)
        )
        rows.append((f"{rate:.0f}", *(f"{error:+.0%}" for error in errors)))
    return grid(("calls a second", *COLUMNS.values(), "WAL"), rows)


def processes(model: Model) -> str:
    many = {"stream": 1000}
    rows = [
        (
            label,
            *(
                f"{max(0.0, model.idle[name].get(group, 0) * many.get(name, 1)) / 1000:.1f}"
                for group in COLUMNS
            ),
        )
        for name, label in PROCESSES.items()
    ]
    return grid(("", *COLUMNS.values()), rows)


SUMS = {
    "PostgreSQL, with its WAL sender": ("postgres", "walsender"),
    "standby": ("standby",),
    "two `serve`": ("serve",),
    "three `worker`": ("worker",),
    "all CPU time": GROUPS,
    "WAL": (WAL,),
}


def check(checks: Sequence[Mapping[str, Any]], model: Model) -> str:
    """Returns what the first run of the mixed load measured and what is predicted, and the errors of all."""
    first, seconds = checks[0], checks[0]["load"]["seconds"]
    predicted = [predict(model, Load(**each["load"])) for each in checks]
    rows = []
    for label, counted in SUMS.items():
        pairs = [
            [sum(costs[name] for name in counted) for costs in (each["measured"], ours)]
            for each, ours in zip(checks, predicted, strict=True)
        ]
        unit = "kB a second" if label == "WAL" else "ms a second"
        measured, expected = (f"{value / seconds / 1000:,.0f} {unit}" for value in pairs[0])
        errors = ", ".join(f"{ours / theirs - 1:+.0%}" for theirs, ours in pairs)
        rows.append((label, measured, expected, errors))
    table = grid(("", "measured", "predicted", "error of each run"), rows)
    made = first["load"]["operations"]
    listed = ", ".join(f"{NAMES[name]} {made[name]:,}" for name in NAMES if name in made)
    return (
        f"{table}\n\nMeasured and predicted are those of the first run. How often, in its "
        f"{seconds:.0f} seconds: {listed}."
    )


def disk(kept: Mapping[str, Any]) -> dict[str, float]:
    sizes = kept["disk"]
    return {
        "notifications, each of an event of its own": sizes["notify"],
        "mails, with an attempt each": sizes["mail"],
        "pushes, with an attempt each": sizes["push"],
    }


def examples(model: Model, sizes: Mapping[str, float]) -> str:
    columns = [
        example(model, sizes, people=10_000, events=50_000, online=0.2),
        example(model, sizes, people=1_000_000, events=10_000_000, online=0.05),
    ]
    head = ("", "10,000 people, 50,000 events a day", "1,000,000 people, 10 million events a day")
    return grid(head, [(name, columns[0][name], columns[1][name]) for name in columns[0]])


def example(
    model: Model, sizes: Mapping[str, float], *, people: int, events: int, online: float
) -> dict[str, str]:
    """Returns the rows of a worked example: what is assumed, and what is needed for it."""
    peak = events * PEAK / DAY
    streams = round(people * online)
    load = Load(1.0, day(people, events, peak=True, online=online), streams=streams)
    load.serves = max(2, -(-streams // STREAMS))
    load.workers = 2
    used = predict(model, load)
    load.workers = max(2, round(used["worker"] / 1e6 / HALF + 0.5))
    used = predict(model, load)
    daily = Load(DAY, day(people, events, peak=False, online=online))
    removal = events * model.costs["clean-up"].at(1)["postgres"] / 1e6
    stored = sizes["notify"] + 0.3 * sizes["mail"] + 0.2 * sizes["push"]
    return {
        "events a second in the busiest hour": f"{peak:,.1f}",
        "open streams": f"{streams:,}",
        "`serve`, at 5,000 streams each": f"{load.serves}",
        "`worker`": f"{load.workers}",
        "processors of PostgreSQL, half used": cores(used["postgres"] + used["walsender"]),
        "processors of all `serve`, half used": cores(used["serve"]),
        "processors of all `worker`, half used": cores(used["worker"]),
        "processors of a standby, half used": cores(used["standby"]),
        "WAL a day without full-page images": f"{predict(model, daily)[WAL] / 1e9:,.1f} GB",
        "disk for 90 days": f"{90 * events * stored / 1e9:,.0f} GB",
        "the clean-up, each day": f"{max(0.1, removal / 60):,.1f} min of one processor",
    }


def day(people: int, events: int, *, peak: bool, online: float) -> dict[str, float]:
    """Returns the operations of a day, or of a second of the busiest hour."""
    factor = PEAK / DAY if peak else 1.0
    number = {
        "notify": events,
        "mail": 0.3 * events,
        "push": 0.2 * events,
        "vacuum": events,
        "stream": online * events,
        "count": 10 * people,
        "list": 3 * people,
        "mark read": 0.5 * events,
    }
    return {name: each * factor for name, each in number.items()}


def cores(microseconds: float) -> str:
    return f"{max(0.1, microseconds / 1e6 / HALF):,.1f}"


def limits(model: Model) -> str:
    """Returns how many events a second the processors of PostgreSQL have time for, by the formula."""
    rows = [
        (name, *(f"{float(f'{most(model, kind, each):.2g}'):,.0f}" for each in (4, 16, 64)))
        for name, kind in KINDS.items()
    ]
    return grid(("events a second", "4 processors", "16", "64"), rows)


def most(model: Model, kind: Mapping[str, float], processors: int) -> float:
    """Returns the rate at which half of the processors is used, with four `serve` and two `worker`."""
    low, high = 1.0, 1e7
    for _ in range(60):
        rate = (low + high) / 2
        work = {name: share * rate for name, share in kind.items()}
        used = predict(model, Load(1.0, work, serves=4, workers=2))
        enough = used["postgres"] + used["walsender"] < processors * HALF * 1e6
        low, high = (rate, high) if enough else (low, rate)
    return low


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
