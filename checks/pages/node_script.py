"""Scripts with `tocsin/client` in Node, against the running service."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

from host_site import TIMEOUT, HostSite

ROOT = Path(__file__).parent.parent.parent
MODULE = ROOT / "tocsin" / "http" / "web" / "tocsin-client.js"
START = f"""
import {{ createClient, Problem }} from {json.dumps(str(MODULE))};
import {{ once }} from 'node:events';
import {{ createInterface }} from 'node:readline';
const print = (value) => console.log(JSON.stringify(value ?? null));
const lines = createInterface({{ input: process.stdin }});
const readLine = () => once(lines, 'line').then(([line]) => line);
const api = process.env.API;
const token = process.env.TOKEN;
const client = createClient({{ api, token }});
"""
UNTIL = """
const until = async (state, wanted) => {
  while (JSON.stringify(state()) !== JSON.stringify(wanted)) await new Promise((resolve) => setTimeout(resolve, 20));
};
"""


class Script:
    """A running script: `print(value)` in it is one `line()` here, `await readLine()` one `write(text)`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def end(self) -> None:
        """Ends it, and the thread that reads its output before that is closed."""
        self._process.kill()
        self._reader.join(TIMEOUT)

    def line(self) -> Any:
        text = self._lines.get(timeout=TIMEOUT * 2)
        assert text, "the script ended"
        return json.loads(text)

    def write(self, text: str = "go on") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")


@contextmanager
def script(site: HostSite, person: str, text: str, *options: str, **more: str) -> Iterator[Script]:
    """Runs a script as this person, through the site's proxy."""
    environ = {**os.environ, "API": site.url, "TOKEN": site.token(person), **more}
    command = ["node", *options, "--input-type=module", "--eval", START + text]
    with subprocess.Popen(
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        running = Script(process)
        try:
            yield running
        finally:
            running.end()


def run(site: HostSite, person: str, text: str, *options: str, **more: str) -> list[Any]:
    """Runs a script to its end; returns what it printed."""
    environ = {**os.environ, "API": site.url, "TOKEN": site.token(person), **more}
    command = ["node", *options, "--input-type=module", "--eval", START + text]
    ran = subprocess.run(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT * 3,
    )
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def expect_lines(running: Script, *wanted: Any) -> None:
    """Reads lines until these were there, in any order: responses and the stream overtake each other."""
    read: list[Any] = []
    while not all(each in read for each in wanted):
        assert len(read) < 100, read
        read.append(running.line())
