"""The service's processes under test: started, killed, frozen, and started again when they end."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

RESTART = 0.5  # seconds
STOP_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class Life(Struct):
    """One process of a slot, from its start to its end (both Unix seconds)."""

    pid: int
    started: float
    ended: float = 0.0
    how: str = ""  # killed, stopped, or how it ended by itself

    def alive_at(self, at: float) -> bool:
        return self.started <= at and (not self.ended or at <= self.ended)


class Service:
    """One slot of `tocsin serve` or `tocsin worker`: a process always runs in it, or is about to start."""

    def __init__(self, kind: str, slot: int, log: Path, settings: Mapping[str, str]) -> None:
        self.kind = kind
        self.slot = slot
        self.log = log
        self.settings = dict(settings)
        self.extra: dict[str, str] = {}  # of the environment, for the next start
        self.lives: list[Life] = []
        self.expected = ""  # how the current process will be ended
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")
        }
        named = {f"TOCSIN_{name.upper()}": value for name, value in self.settings.items()}
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tocsin", self.kind],
                env=inherited | named | self.extra,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=ends_with_parent,  # noqa: PLW1509 - one system call
            )
        self.expected = ""
        self.lives.append(Life(self._process.pid, time.time()))

    def kill(self) -> None:
        self.expected = "killed"
        self._send(signal.SIGKILL)

    def terminate(self) -> None:
        self.expected = "stopped"
        self._send(signal.SIGTERM)

    def freeze(self) -> None:
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def _send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            if self._process is not None and self._process.poll() is None:
                os.kill(self._process.pid, number)

    def has_ended(self) -> bool:
        """Records the end of the current process, once."""
        if self._process is None or self._process.poll() is None:
            return False
        life = self.lives[-1]
        life.ended = time.time()
        life.how = self.expected or f"exit {self._process.returncode}"
        self._process = None
        return True

    async def stop(self) -> None:
        """Ends it permanently."""
        self.resume()
        self.terminate()
        process = self._process
        if process is not None:
            deadline = time.monotonic() + STOP_SECONDS
            while process.poll() is None and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
            if process.poll() is None:
                self.expected = "hung at its stop"
                process.kill()
                process.wait()
            self.has_ended()


class Supervisor:
    """Restarts processes that ended."""

    def __init__(self, services: list[Service]) -> None:
        self.services = services
        self.held: set[Service] = set()  # not started again until a fault is over

    async def run(self) -> None:
        waiting: dict[Service, float] = {}
        while True:
            now = time.monotonic()
            for service in self.services:
                if service.has_ended():
                    waiting[service] = now + RESTART
                if service in waiting and service not in self.held and now >= waiting[service]:
                    del waiting[service]
                    service.start()
            await asyncio.sleep(0.02)


def ends_with_parent() -> None:
    """In a child before it begins: the kernel kills it when the thread that started it ends, frozen or not."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def usage(pid: int) -> tuple[int, int]:
    """Memory in bytes and open descriptors of a process; (0, 0) after its end."""
    with suppress(OSError):
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024, descriptors
    return 0, 0
