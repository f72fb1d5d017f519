"""pgbench from the embedded PostgreSQL's wheel: clients in C, which need the fewest resources."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import stage
from tocsin.dev.postgres_cluster import wheel

_PROGRAM = wheel() / "bin" / "pgbench"
_RATE = re.compile(r"^tps = ([\d.]+)", re.MULTILINE)
_SECOND = re.compile(r"^progress: [\d.]+ s, ([\d.]+) tps", re.MULTILINE)


class Pgbench:
    """Scripts by name; each is a transaction."""

    def __init__(self, dsn: str, scripts: Mapping[str, str], folder: Path) -> None:
        self._dsn = dsn
        self._folder = folder
        for name, script in scripts.items():
            self._file(name).write_text(script, encoding="utf-8")

    def rate(self, name: str, *, clients: int, seconds: int) -> float:
        """Transactions a second of that many clients with prepared statements, after a second of warm-up.

        A new connection compiles functions and makes plans, which an app's pool does only once.
        """
        command = self.command(name, clients=clients, seconds=1 + seconds)
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        rates = [float(rate) for rate in _SECOND.findall(result.stderr)][1:]
        rates = rates or [float(rate) for rate in _RATE.findall(result.stdout)]  # on a slow machine
        if "ERROR" in result.stderr or not rates:
            raise SystemExit(result.stderr)
        return statistics.mean(rates)

    def command(self, name: str, *, clients: int, seconds: int) -> list[str]:
        options = ["-n", "-M", "prepared", "-c", str(clients), "-j", str(min(clients, 2))]
        options += ["-P", "1", "-T", str(seconds), "-f", str(self._file(name)), self._dsn]
        return [str(_PROGRAM), *options]

    def _file(self, name: str) -> Path:
        return self._folder / (re.sub(r"[^a-z]+", "-", name.lower()) + ".sql")


def mixed_rate(
    dsn: str, scripts: Sequence[Path], *, clients: int, seconds: int = 1, options: str = ""
) -> float:
    """Transactions a second of randomly chosen scripts; ends the benchmark if a statement fails.

    `options` are those of the sessions, such as `-c jit=off`.
    """
    environ = os.environ | {"PGOPTIONS": options}
    output = ""
    for time in (seconds, 10 * seconds):  # no rate is printed if no transaction ended
        command = [*_mixed(scripts, clients), "--time", str(time), dsn]
        ran = subprocess.run(command, env=environ, capture_output=True, text=True)
        output = ran.stdout + ran.stderr
        if ran.returncode:
            break
        if found := _RATE.search(ran.stdout):
            return float(found[1])
    raise SystemExit(f"pgbench failed:\n{output}")


@contextmanager
def in_background(dsn: str, scripts: Sequence[Path], *, clients: int, rate: int) -> Iterator[None]:
    """Runs that many transactions a second, of randomly chosen scripts, while the block runs."""
    paced = ["--rate", str(rate), "--time", "86400", dsn]
    with stage.program(*_mixed(scripts, clients), *paced):
        yield


def _mixed(scripts: Sequence[Path], clients: int) -> list[str | Path]:
    files = [part for script in scripts for part in ("--file", script)]
    threads = str(min(2, clients))
    return [
        *(_PROGRAM, "--no-vacuum", "--protocol", "prepared"),
        *("--client", str(clients), "--jobs", threads, *files),
    ]
