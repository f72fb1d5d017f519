"""A peer in a separate process and environment (build/peers), controlled by lines of JSON."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PEERS = Path(__file__).parent.parent / "peers"
PYTHON = PEERS.parent.parent / "build" / "peers" / "bin" / "python"


class Peer:
    """A peer that replies to each line with a line; its first line has its versions."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.versions: dict[str, str] = self._read()

    def ask(self, **asked: Any) -> Any:
        """Returns its reply; ends the benchmark if it died."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the peer ended: {self._process.args}")
        return json.loads(line)


@contextmanager
def peer(script: str, *arguments: str, runner: Path | str = PYTHON) -> Iterator[Peer]:
    """Runs `peers/<script>` by a Python or another program, as a process that ends with the block."""
    with subprocess.Popen(
        [runner, PEERS / script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield Peer(process)
        finally:
            process.kill()
