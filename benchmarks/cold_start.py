"""Seconds from the start of `tocsin serve` to its first response, and of `tocsin --help` and `import tocsin`.

The database exists and is migrated; files are in the machine's cache, as after a first start. Peer of the service: a
Django app under gunicorn, with one count as its only path. Floor: uvicorn with an app that does nothing. The command
and the import have Python's own start as the floor, which is part of their time. `make bench-cold-start`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import cpu_limit, stage
from bench.gunicorn import gunicorn, versions
from bench.peer import peer
from bench.record import Goal, Record, keep
from bench.rounds import Measured, in_turns
from bench.service import serve, wait_until_ready

NULL = Path(__file__).parent / "bench" / "null_http.py"
SERVE, DJANGO, EMPTY = "tocsin serve", "Django under gunicorn", "Python and uvicorn, empty app"
HELP, IMPORT, PYTHON = "tocsin --help", "tocsin, import tocsin", "floor: Python"
LIMITS = {SERVE: 0.8, HELP: 0.15, IMPORT: 0.05}


def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program has its bytecode
    with ExitStack() as stack:
        running = stack.enter_context(stage.server())
        dsn = stack.enter_context(stage.database(running, "cold_start", rows=None))
        with peer("django_count_table.py", dsn):
            pass
        asked = contenders(dsn)
        in_turns(asked, 1)  # fills the machine's cache
        measured = in_turns(asked, rounds)
    # without Python's own start, which would be there without the import too
    pairs = zip(measured[IMPORT], measured[PYTHON], strict=True)
    measured[IMPORT] = [max(0.0, ours - bare) for ours, bare in pairs]
    keep(record(measured, rounds))


def contenders(dsn: str) -> dict[str, Callable[[], float]]:
    python = str(sys.executable)
    tocsin = str(Path(python).parent / "tocsin")
    return {
        SERVE: lambda: first_response(lambda: serve(dsn)),
        DJANGO: lambda: first_response(lambda: gunicorn("django_count", {"COUNT_DSN": dsn})),
        EMPTY: empty,
        HELP: lambda: run([tocsin, "--help"]),
        IMPORT: lambda: run([python, "-c", "import tocsin"]),
        PYTHON: lambda: run([python, "-c", "pass"]),
    }


def first_response(start: Callable[[], object]) -> float:
    """Seconds until the program responds; its end is not measured."""
    with ExitStack() as stack:
        started = time.perf_counter()
        stack.enter_context(start())  # type: ignore[arg-type]
        return time.perf_counter() - started


def empty() -> float:
    port = stage.free_port()
    started = time.perf_counter()
    with stage.program(sys.executable, NULL, "raw", str(port)):
        wait_until_ready(f"http://127.0.0.1:{port}")
        return time.perf_counter() - started


def run(command: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def record(measured: Measured, rounds: int) -> Record:
    limits = {f"the limit that was set: {name}": [limit] * rounds for name, limit in LIMITS.items()}
    goals = [Goal(name, limit, at_most=1) for name, limit in zip(LIMITS, limits, strict=True)]
    return Record(
        "cold-start", "Cold start", "s", measured | limits, goals=goals, versions=versions()
    )


if __name__ == "__main__":
    main()
