"""The table at the beginning of the page: for each row of summary.toml ours, the best peer, and the floor."""

from __future__ import annotations

import statistics
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.record import number

ROWS = Path(__file__).parent.parent / "summary.toml"
HEAD = ("", "Tocsin", "the best peer", "floor", "what the difference buys")
NONE = "none"


def rows(results: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yields the cells of each row whose record is there."""
    records = {result["name"]: result for result in results}
    for row in tomllib.loads(ROWS.read_text(encoding="utf-8"))["row"]:
        result = records.get(row["record"])
        if result is not None and row["ours"] in result["measured"]:
            yield cells(row, result)


def cells(row: Mapping[str, Any], result: Mapping[str, Any]) -> tuple[str, ...]:
    measured, unit = result["measured"], result["unit"]
    peer = best(row["peers"], measured, unit)
    floor = row.get("floor")
    return (
        f"{row['what']} ({unit})",
        median(measured[row["ours"]]),
        f"{median(measured[peer])}: {peer}" if peer else NONE,
        f"{median(measured[floor])}" if floor in measured else NONE,
        row["buys"],
    )


def best(peers: Sequence[str], measured: Mapping[str, Sequence[float]], unit: str) -> str | None:
    """Returns the fastest of the peers that were measured."""
    there = {name: statistics.median(measured[name]) for name in peers if name in measured}
    if not there:
        return None
    choose = max if unit.endswith("/s") else min
    return choose(there, key=lambda name: there[name])


def median(values: Sequence[float]) -> str:
    return number(statistics.median(values))
