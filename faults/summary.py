"""Results as text: a line for each seed, and the table of faults and outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from faults.plan import KINDS, Plan
from faults.run import Result


def describe(result: Result, plan: Plan, kept: Path) -> str:
    """Returns one line if all invariants held, otherwise each violation with its evidence."""
    copies = ", ".join(f"{count} {reason}" for reason, count in sorted(result.duplicates.items()))
    ready = f", ready after {max(result.ready):.1f} s" if result.ready else ""
    head = (
        f"seed {result.seed}: {'FAILED' if result.violations else 'held'};"
        f" {result.events} events, {result.deliveries} deliveries, {result.accepted} accepted"
        f" (again: {copies or 'none'}){ready}, quiet after {result.quiet:.0f} s; {result.seconds:.0f} s;"
        f" {', '.join(fault.kind for fault in plan.faults)}"
    )
    if not result.violations:
        return head
    lines = [head, str(plan)]
    for violation in result.violations[:20]:
        lines.append(f"  {violation.invariant}: {violation.text}")
        if violation.evidence:
            lines.append(f"    {msgspec.json.encode(violation.evidence).decode()[:4000]}")
    more = len(result.violations) - 20
    if more > 0:
        lines.append(f"  and {more} more")
    lines.append(f"  logs: {kept}")
    return "\n".join(lines)


def summarise(results: Sequence[Result]) -> str:
    """Returns the table: for each kind of fault the runs that had it, and their results."""
    lines = [f"{'fault':28} {'faults':>7} {'seeds':>6} {'again':>6} {'violations':>11}"]
    for kind in KINDS:
        runs = [result for result in results if kind in result.faults]
        if not runs:
            continue
        faults = sum(result.faults[kind] for result in runs)
        again = sum(sum(result.duplicates.values()) for result in runs)
        violations = sum(len(result.violations) for result in runs)
        lines.append(f"{kind:28} {faults:7} {len(runs):6} {again:6} {violations:11}")
    copies: Counter[str] = Counter()
    invariants: Counter[str] = Counter()
    for result in results:
        copies.update(result.duplicates)
        invariants.update(violation.invariant for violation in result.violations)
    ready = sorted(time for result in results for time in result.ready)
    totals = (
        f"{sum(sum(result.faults.values()) for result in results)} faults",
        f"{sum(result.events for result in results)} events",
        f"{sum(result.deliveries for result in results)} deliveries",
        f"{sum(result.accepted for result in results)} accepted",
    )
    lines += [
        "",
        f"{len(results)} seeds, {', '.join(totals)}",
        "accepted again, allowed: "
        + (", ".join(f"{count} {reason}" for reason, count in copies.most_common()) or "none"),
        "violations: "
        + (", ".join(f"{count} of {name}" for name, count in invariants.most_common()) or "none"),
    ]
    refusals = sorted(time for result in results for time in result.refusals)
    if refusals:
        half, most = refusals[len(refusals) // 2], refusals[-1]
        lines.append(f"503 during an outage: {half:.2f} s at the median, {most:.2f} s at most")
    if ready:
        half, most = ready[len(ready) // 2], ready[-1]
        lines.append(
            f"ready after the database is back: {half:.1f} s at the median, {most:.1f} s at most"
        )
    return "\n".join(lines)
