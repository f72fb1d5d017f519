"""The record of a benchmark: goals with their ratios, one table, one JSON file with machine and versions."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import cpu_limit

RESULTS = Path(__file__).parent.parent / "results"  # those with --cpu in a folder for each limit
LIBRARIES = ("litestar", "psycopg", "procrastinate", "uvicorn", "uvloop", "msgspec", "aiosmtplib")


@dataclass(frozen=True)
class Goal:
    """`ours` against `theirs`, two contenders of the same run, in the ratio ours / theirs of each round.

    Exactly one of the bounds is given. For rates a goal is `at_least`, for times `at_most`.
    """

    ours: str
    theirs: str
    at_least: float | None = None
    at_most: float | None = None
    label: str = ""  # if the names of the two are not clear enough


@dataclass
class Record:
    """The results of a run; `measured` has one value per round for each contender."""

    name: str  # of the file in results/ and of the target `make bench-NAME`
    title: str
    unit: str  # of all values, such as "notify/s" or "ms"
    measured: Mapping[str, Sequence[float]]
    goals: Sequence[Goal] = ()
    facts: Mapping[str, Any] = field(
        default_factory=dict
    )  # single numbers with their unit in the key
    kept: Mapping[str, bool] = field(
        default_factory=dict
    )  # promises that are true or false, not ratios
    versions: Mapping[str, str] = field(default_factory=dict)  # of peers and servers


def keep(*records: Record) -> bool:
    """Prints each table and writes its JSON; returns whether no goal was missed and all promises were kept."""
    folder = RESULTS / cpu_limit.folder()
    folder.mkdir(exist_ok=True)
    good = True
    for record in records:
        written = {
            "name": record.name,
            "title": record.title,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": {name: version(name) for name in LIBRARIES} | dict(record.versions),
            "unit": record.unit,
            "measured": {name: _rounded(values) for name, values in record.measured.items()},
            "goals": [judged(goal, record.measured) for goal in record.goals],
            "facts": dict(record.facts),
            "kept": dict(record.kept),
        }
        (folder / f"{record.name}.json").write_text(
            json.dumps(written, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        print(table(written))
        good = good and all(goal["verdict"] != "missed" for goal in written["goals"])
        good = good and all(record.kept.values())
    return good


def judged(goal: Goal, measured: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Returns the goal with its ratios: met or missed in every round, otherwise a tie."""
    ratios = [
        ours / theirs
        for ours, theirs in zip(measured[goal.ours], measured[goal.theirs], strict=True)
    ]
    if goal.at_least is not None:
        good = [ratio >= goal.at_least for ratio in ratios]
    else:
        assert goal.at_most is not None, "a goal has a bound"
        good = [ratio <= goal.at_most for ratio in ratios]
    verdict = "met" if all(good) else "tie" if any(good) else "missed"
    return asdict(goal) | {
        "ratio": round(statistics.median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "verdict": verdict,
    }


def table(written: Mapping[str, Any]) -> str:
    """As text."""
    lines = [f"\n{written['title']} ({written['unit']})"]
    lines.append(f"  {'':<46}{'median':>12}{'least':>12}{'most':>12}")
    for name, values in written["measured"].items():
        row = (statistics.median(values), min(values), max(values))
        lines.append(f"  {name:<46}" + "".join(f"{number(value):>12}" for value in row))
    lines.extend("  " + sentence(goal) for goal in written["goals"])
    for name, value in written["facts"].items():
        lines.append(f"  {name}: {value}")
    for name, kept in written["kept"].items():
        lines.append(f"  {'kept' if kept else 'BROKEN'}: {name}")
    return "\n".join(lines)


def sentence(goal: Mapping[str, Any]) -> str:
    """Returns one goal and its result."""
    what = goal["label"] or f"{goal['ours']} / {goal['theirs']}"
    bound = (
        f">= {goal['at_least']:g}" if goal["at_least"] is not None else f"<= {goal['at_most']:.3g}"
    )
    low, high = goal["spread"]
    return f"{what}: {goal['ratio']:g}x ({low:g}-{high:g}), goal {bound}x: {goal['verdict']}"


def number(value: float) -> str:
    """With three significant digits."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def machine() -> dict[str, Any]:
    """Returns the machine of the measurement."""
    return {
        "cpus": os.cpu_count(),
        "cpu": _cpu(),
        **({"limit": cpu_limit.used()} if cpu_limit.used() else {}),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
