"""Requests a second by wrk (Debian's), each with the next token of a list: thousands of people, not one."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

SCRIPT = Path(__file__).parent / "tokens.lua"
CONNECTIONS = 64
ORIGIN = "https://app.example.com"  # as in tokens.lua


def requests_per_second(
    urls: Sequence[str], tokens: Path, *, seconds: int, kind: str = "bearer", used: int = 0
) -> float:
    """Uses 64 open connections, with a process for each URL; ends the benchmark if a response is not 200.

    `used` is how many tokens of the file are left out at first.
    """
    each = str(CONNECTIONS // len(urls))
    running = [
        subprocess.Popen(
            [
                *("wrk", "--threads", "1", "--connections", each, "--duration", f"{seconds}s"),
                *(
                    "--timeout",
                    "20s",
                    "--script",
                    str(SCRIPT),
                    url,
                    "--",
                    str(tokens),
                    kind,
                    str(used),
                ),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        for url in urls
    ]
    outputs = [process.communicate()[0] for process in running]
    return sum(rate(url, output) for url, output in zip(urls, outputs, strict=True))


def rate(url: str, output: str) -> float:
    if re.search(r"Non-2xx|Socket errors", output):
        raise SystemExit(f"not every response from {url} was a 200:\n{output}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if found is None:
        raise SystemExit(f"wrk printed no rate for {url}:\n{output}")
    return float(found[1])  # 0 where a slow machine has not responded yet
