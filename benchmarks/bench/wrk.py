"""Requests a second by wrk (Debian's), each with the next token of a list: thousands of people, not one."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parent / "tokens.lua"
CONNECTIONS = 64


def requests_per_second(
    url: str, tokens: Path, *, seconds: int, connections: int = CONNECTIONS
) -> float:
    """Of that many connections that stay open, driven by one thread; ends the benchmark where an answer is not 200."""
    said = subprocess.run(
        [
            *("wrk", "--threads", "1", "--connections", str(connections)),
            *("--duration", f"{seconds}s", "--script", str(SCRIPT), url, "--", str(tokens)),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    if re.search(r"Non-2xx|Socket errors", said):
        raise SystemExit(f"not every answer from {url} was good:\n{said}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if found is None or float(found[1]) == 0:
        raise SystemExit(f"{url} answered nothing:\n{said}")
    return float(found[1])
