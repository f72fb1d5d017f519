"""Runs every `make bench-…` in turn, as the Makefile lists them; `make bench`, at most 33 minutes on two cores.

Arguments are passed on to each: `make bench ARGS="--cpu 50%"`.

Shared parts are created first, once: the peers' environment, and the databases with notifications. A line after each
shows its duration and the results of its goals. A benchmark that fails or hangs is named at the end, and the others
still run; then the exit status is 1. A missed goal is a measurement, not a failure.
"""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from bench import stage
from bench.record import RESULTS

ROOT = Path(__file__).parent.parent
STOCKS = (10_000, stage.ROWS)
ALONE = ("bench-large", "bench-scaling")
HANGS = 900.0  # seconds; the longest one takes less than half of it
BROKE, HUNG = "BROKE", "HUNG"


def main() -> int:
    started = time.monotonic()
    names = targets()
    took = {"what they share": measured(shared)}
    for number, target in enumerate(names, start=1):
        print(f"\n== {target}, {number} of {len(names)}", flush=True)
        before = time.time()
        seconds, result = took[target] = measured(lambda target=target: run(target))
        print(
            f"== {target}: {result}, {goals(before)}; {seconds:.0f} s of {time.monotonic() - started:.0f} s so far",
            flush=True,
        )
    print(f"\n{'':<24}{'seconds':>8}")
    for name, (seconds, result) in took.items():
        print(f"{name:<24}{seconds:>8.0f}  {result}")
    print(f"{'together':<24}{time.monotonic() - started:>8.0f}")
    broken = [name for name, (_, result) in took.items() if result != "done"]
    if broken:
        print(f"These failed: {', '.join(broken)}. The page has their results of an earlier run.")
    return 1 if broken else 0


def targets() -> list[str]:
    """Without the soak tests, whose targets have other names, and without what takes too long."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    found = re.findall(r"^(bench-[a-z-]+):", makefile, re.MULTILINE)
    return [target for target in found if target not in ALONE]


def measured(work: Callable[[], str]) -> tuple[float, str]:
    """Runs one target; returns its duration in seconds, and how it ended."""
    started = time.monotonic()
    result = work()
    return time.monotonic() - started, result


def shared() -> str:
    """Creates what the first benchmark that needs it would otherwise wait for."""
    if run("build/peers/.installed") != "done":
        return BROKE
    with stage.server() as running:
        for rows in STOCKS:
            with stage.database(running, "shared", rows=rows):
                pass
    return "done"


def run(target: str) -> str:
    arguments = [f"ARGS={shlex.join(sys.argv[1:])}"] if target.startswith("bench-") else []
    command = ["make", "--no-print-directory", target, *arguments]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        return BROKE if process.wait(HANGS) else "done"
    except subprocess.TimeoutExpired:
        process.send_signal(
            signal.SIGTERM
        )  # make passes it on, and the benchmark ends what it started
        process.wait()
        return HUNG


def goals(since: float) -> str:
    """Returns the results of the goals in the records that were written since then."""
    verdicts = Counter(
        goal["verdict"]
        for path in RESULTS.rglob("*.json")
        if path.stat().st_mtime >= since
        for goal in json.loads(path.read_text("utf-8"))["goals"]
    )
    return (
        ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())) or "no goals"
    )


if __name__ == "__main__":
    sys.exit(main())
