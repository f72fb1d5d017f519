"""Writes docs/performance.md: the texts of docs/performance/ with tables and plots of the records in results/.

A text `NAME.md` gets the records `NAME.json` and `NAME-….json`. The page depends on nothing else, so that a test can
check whether it is up to date. `make performance`.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import scaling_page
from bench import summary
from bench.plot import bars
from bench.record import RESULTS, number

DOCS = Path(__file__).parent.parent / "docs"
PAGE = "performance.md"
TEXTS = DOCS / "performance"
SUMMARY, INTRODUCTION = "summary", "introduction"
# First the latencies for people, then throughput. Others follow by name.
ORDER = (
    *("count-http", "count-sql", "list", "stream", "latency"),
    *("notify", "fan-out", "engine", "mails", "apns", "fcm", "dkim"),
    *("cold-start", "beside-fan-out", "old-snapshot", "waiting", "size", "soak", "soak-push"),
)
# Of all versions in a record, those of the service itself.
_OURS = ("litestar", "psycopg", "procrastinate", "uvicorn", "uvloop", "msgspec", "aiosmtplib")
_VERDICTS = {"met": "met", "tie": "tie", "missed": "**missed**"}

Result = Mapping[str, Any]


def main() -> None:
    for path, text in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for stale in stale_plots():
        stale.unlink()
    print(f"{DOCS.name}/{PAGE}: {len(records())} records")


def files() -> dict[Path, str]:
    """Returns all files by path: the page, that about scaling, and a plot for each record."""
    plots = {
        TEXTS / f"{result['name']}.svg": bars(
            result["title"], result["unit"], result["measured"], ours(result)
        )
        for result in records()
    }
    return {DOCS / PAGE: page(), scaling_page.PAGE: scaling_page.text(), **plots}


def stale_plots() -> set[Path]:
    """Plots without a record."""
    return set(TEXTS.glob("*.svg")) - files().keys()


def page() -> str:
    """Returns the page."""
    parts = [
        "<!-- Made by `make performance` from docs/performance/ and benchmarks/results/; do not edit. -->"
    ]
    parts += [text_of(SUMMARY), grid(summary.HEAD, list(summary.rows(records())), words=5)]
    parts += [text_of(INTRODUCTION), "## Goals", *overview()]
    for name, found in sections():
        parts.append(text_of(name) or f"## {found[0]['title']}")
        parts += [block for result in found for block in measured(result, len(found) > 1)]
        if not found:
            parts.append("No result is kept yet.")
    return "\n\n".join(part for part in parts if part) + "\n"


def sections() -> Iterator[tuple[str, list[Result]]]:
    """Yields each text, or record without one, with its records; in the order of the page."""
    texts = {path.stem for path in TEXTS.glob("*.md")} - {SUMMARY, INTRODUCTION}
    found: dict[str, list[Result]] = {name: [] for name in texts}
    for result in records():
        name = str(result["name"]).replace("_", "-")
        homes = [text for text in texts if name == text or name.startswith(f"{text}-")]
        found.setdefault(max(homes, key=len, default=name), []).append(result)
    yield from sorted(found.items(), key=lambda item: place(item[0]))


def place(name: str) -> tuple[int, str]:
    """Returns the position of a section."""
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)


def records() -> list[Result]:
    """Returns the records in results/, by name."""
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    return [each for each in kept if "measured" in each]


def limited(name: str) -> dict[str, Result]:
    """Returns the records of the same benchmark with less CPU, by the percentage."""
    found = {}
    for path in sorted(RESULTS.glob(f"cpu-*/{name}.json")):
        percent = path.parent.name.removeprefix("cpu-")
        found[f"{percent} % CPU"] = json.loads(path.read_text(encoding="utf-8"))
    return found


def text_of(name: str) -> str:
    """Returns a hand-written text, as a part of the page above its folder."""
    path = TEXTS / f"{name}.md"
    if not path.exists():
        return ""
    text = path.read_text(encoding="utf-8").strip()
    if name not in (SUMMARY, INTRODUCTION):
        text = re.sub(r"^(?=#+ )", "#", text, flags=re.MULTILINE)
    return re.sub(r"\]\((?!https?:|#)([^)]+)\)", lambda match: f"]({lifted(match[1])})", text)


def lifted(target: str) -> str:
    """Returns a link relative to the parent folder."""
    return target.removeprefix("../") if target.startswith("../") else f"{TEXTS.name}/{target}"


def overview() -> list[str]:
    """Returns the table of all goals, with a column for each percentage of CPU that was measured."""
    found = [result for _, results in sections() for result in results]
    limits = sorted({name for result in found for name in limited(result["name"])})
    rows = [
        (
            *(result["name"], label_of(goal), ratio(goal), bound(goal)),
            *(_VERDICTS[goal["verdict"]], *slower(goal, limited(result["name"]), limits)),
        )
        for result in found
        for goal in result["goals"]
    ]
    head = ("", "goal", "ratio (spread)", "asked", "verdict", *limits)
    return [grid(head, rows, words=2)] if rows else []


def slower(
    goal: Mapping[str, Any], less: Mapping[str, Result], limits: Sequence[str]
) -> Iterator[str]:
    """Yields the result of the same goal at each percentage of CPU; empty where it was not measured."""
    for name in limits:
        others = less[name]["goals"] if name in less else ()
        same = [other for other in others if label_of(other) == label_of(goal)]
        yield f"{ratio(same[0])} {_VERDICTS[same[0]['verdict']]}" if same else ""


def measured(result: Result, several: bool) -> Iterator[str]:
    """Yields one record: plot, table, goals, facts, promises, and where it was measured."""
    less = limited(result["name"])
    if several:
        yield f"### {result['title']}"
    if result["measured"]:
        yield f"![{result['title']}]({TEXTS.name}/{result['name']}.svg)"
        yield values_of(result, less)
    if result["goals"]:
        yield goals_of(result, less)
    if result["facts"]:
        yield grid(
            ("also", ""), [(name, plainly(value)) for name, value in result["facts"].items()]
        )
    if result["kept"]:
        yield "\n".join(
            f"- {'Kept' if kept else '**Broken**'}: {promise}"
            for promise, kept in result["kept"].items()
        )
    yield where(result, less)


def values_of(result: Result, less: Mapping[str, Result]) -> str:
    """Returns the table of all contenders, with the medians of runs with less CPU."""

    def cells(name: str, values: Sequence[float]) -> tuple[str, ...]:
        others = (each["measured"].get(name) for each in less.values())
        return (
            name,
            *map(number, (statistics.median(values), min(values), max(values))),
            *(number(statistics.median(other)) if other else "" for other in others),
        )

    head = (result["unit"], "median", "least", "most", *(f"median, {name}" for name in less))
    return grid(head, [cells(*each) for each in result["measured"].items()])


def goals_of(result: Result, less: Mapping[str, Result]) -> str:
    """Returns the table of a record's goals, with the ratios of runs with less CPU."""

    rows = [
        (
            *(label_of(goal), ratio(goal), bound(goal), _VERDICTS[goal["verdict"]]),
            *slower(goal, less, list(less)),
        )
        for goal in result["goals"]
    ]
    return grid(("goal", "ratio (spread)", "asked", "verdict", *less), rows)


def label_of(goal: Mapping[str, Any]) -> str:
    return str(goal["label"] or f"{goal['ours']} / {goal['theirs']}")


def ratio(goal: Mapping[str, Any]) -> str:
    low, high = goal["spread"]
    return f"{goal['ratio']:g} ({low:g} to {high:g})"


def bound(goal: Mapping[str, Any]) -> str:
    if goal["at_least"] is not None:
        return f"≥ {goal['at_least']:g}"
    return f"≤ {goal['at_most']:g}"


def ours(result: Result) -> set[str]:
    """Contenders that are Tocsin."""
    named = {goal["ours"] for goal in result["goals"]}
    return named | {name for name in result["measured"] if name.startswith("tocsin")}


def plainly(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)


def where(result: Result, less: Mapping[str, Result]) -> str:
    """Machine, date and versions, in small print."""
    limits = "".join(f" {name}: {each['machine']['limit']}." for name, each in less.items())
    machine, versions = result["machine"], result["versions"]
    peers = [f"{name} {each}" for name, each in versions.items() if name not in _OURS]
    own = [f"{name} {versions[name]}" for name in _OURS if name in versions]
    rounds = max((len(values) for values in result["measured"].values()), default=0)
    return (
        f"<sub>{result['at'][:10]}, {rounds} rounds; {machine['cpus']} CPUs ({machine['cpu']}), "
        f"{machine['memory_gib']} GiB, {machine['system']}; Python {machine['python']}, "
        f"{', '.join([*own, *peers])}.{limits}</sub>"
    )


def grid(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Returns a table; all columns after the first ones, which are words, are right-aligned."""
    lines = [head, [*["---"] * words, *["---:"] * (len(head) - words)], *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


if __name__ == "__main__":
    sys.exit(main())
