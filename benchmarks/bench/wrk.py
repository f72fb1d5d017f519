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
    """Uses that many open connections in one thread; ends the benchmark if a response is not 200."""
    output = subprocess.run(
        [
            *("wrk", "--threads", "1", "--connections", str(connections)),
            *("--duration", f"{seconds}s", "--script", str(SCRIPT), url, "--", str(tokens)),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    if re.search(r"Non-2xx|Socket errors", output):
        raise SystemExit(f"not every response from {url} was a 200:\n{output}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if found is None or float(found[1]) == 0:
        raise SystemExit(f"{url} returned nothing:\n{output}")
    return float(found[1])
