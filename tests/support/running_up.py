"""`tocsin up` as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.services import free_port, until
from tocsin.settings import Settings, read_settings

STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ignoring", os.getpid(), flush=True)
time.sleep(60)
"""
OBEDIENT = """
import os, signal, sys, time
from tocsin.dev.supervisor import stop_with_parent
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
stop_with_parent()
print("working", os.getpid(), flush=True)
time.sleep(60)
"""
HTTP = """
import http.server, os, signal, sys
from tocsin.dev.supervisor import stop_with_parent
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
stop_with_parent()
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
server = http.server.HTTPServer((os.environ["TOCSIN_HOST"], int(os.environ["TOCSIN_PORT"])), Ready)
print("serving", os.getpid(), flush=True)
server.serve_forever()
"""
UP = """
import asyncio, os, sys
from functools import partial
from tocsin.dev import embedded_postgres, up
from tocsin.settings import SettingsError, read_settings
from tocsin.dev.supervisor import ChildCommand
http, worker = ([sys.executable, "-c", program] for program in sys.argv[1:])
commands = [ChildCommand("http", http), ChildCommand("worker", worker)]
class Nobody:
    async def start(self): return {}
    async def stop(self): pass
    def put_demo_targets(self, dsn): pass
up.migrate = lambda dsn: print("migrated", dsn, flush=True)
up.seed_demo = lambda dsn: print("seeded", flush=True)
# creating a cluster, and its recovery, wait for 2,670 writes of the disk otherwise: a minute where others write to it
embedded_postgres.start = partial(embedded_postgres.start, durable=False)
up.CHILD_SECONDS = float(os.environ.get("CHILD_SECONDS", up.CHILD_SECONDS))
if "FAR_ENDS" not in os.environ:  # half a second each time
    up.make_far_ends = lambda *_, **__: Nobody()
else:  # there is no table for the demo's targets
    from tocsin.dev.far_ends import FarEnds
    FarEnds.put_demo_targets = lambda *_: None
try:
    sys.exit(asyncio.run(up.up(read_settings(), commands=commands)))
except (SettingsError, up.UpError) as error:
    sys.exit(str(error))
"""

WATCHDOG = 'read -r _; kill -s TERM -- "-$1" 2> /dev/null'  # once our end of the pipe is closed, by our death too


class RunningUp:
    """`tocsin up` as a process, with stubs for its children."""

    def __init__(
        self,
        data_dir: Path,
        *,
        worker: str = OBEDIENT,
        http: str = HTTP,
        argv: Sequence[str] = (),
        **more: str,
    ) -> None:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("TOCSIN_", "MAKE", "MFLAGS"))
        }
        self.environ = (
            kept | {"TOCSIN_DATA_DIR": str(data_dir), "TOCSIN_PORT": str(free_port())} | more
        )
        self.out = data_dir.with_suffix(".out")
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                argv or [sys.executable, "-c", UP, http, worker],
                env=self.environ,
                stdout=out,
                stderr=out,
                start_new_session=True,
                # A shell's background job, as this test may be, ignores Ctrl-C, and so would make.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
            )
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", WATCHDOG, "up-watchdog", str(self.process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def text(self) -> str:
        return self.out.read_text()

    @property
    def settings(self) -> Settings:
        return read_settings(self.environ)

    def pids(self, word: str) -> list[int]:
        return [
            int(line.rsplit(" ", 1)[1]) for line in self.text.splitlines() if f"| {word}" in line
        ]

    async def ready(self) -> None:
        def both_respond() -> bool:
            return (
                "Tocsin is up" in self.text
                and "http   | " in self.text
                and "worker | " in self.text
            )

        await until(lambda: both_respond() or self.process.poll() is not None)
        assert self.process.poll() is None, self.text

    async def ended(self) -> int:
        await until(lambda: self.process.poll() is not None)
        return int(self.process.returncode)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        with self._watchdog:
            self._watchdog.kill()
