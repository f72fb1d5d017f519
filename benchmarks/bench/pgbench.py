"""pgbench out of the embedded PostgreSQL's wheel: clients in C, which take the least of the machine."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tocsin.postgres.binaries import wheel

_RATE = re.compile(r"^tps = ([\d.]+)", re.MULTILINE)


class Pgbench:
    """Scripts by name, each of which is a transaction."""

    def __init__(self, dsn: str, scripts: Mapping[str, str], folder: Path) -> None:
        self._dsn = dsn
        self._folder = folder
        for name, script in scripts.items():
            self._file(name).write_text(script, encoding="utf-8")

    def rate(self, name: str, *, clients: int, seconds: float) -> float:
        """Transactions a second of so many clients with prepared statements."""
        command = self.command(name, clients=clients, seconds=seconds)
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
        found = _RATE.search(answer.stdout)
        assert found is not None, answer.stdout
        if "ERROR" in answer.stderr:
            raise SystemExit(answer.stderr)
        return float(found[1])

    def command(self, name: str, *, clients: int, seconds: float) -> list[str]:
        options = ["-n", "-M", "prepared", "-c", str(clients), "-j", str(min(clients, 2))]
        options += ["-T", f"{max(1, round(seconds))}", "-f", str(self._file(name)), self._dsn]
        return [str(wheel() / "bin" / "pgbench"), *options]

    def _file(self, name: str) -> Path:
        return self._folder / (re.sub(r"[^a-z]+", "-", name.lower()) + ".sql")
