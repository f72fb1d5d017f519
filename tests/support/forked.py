"""`tocsin` as a process that is forked from one which has imported all: half of a start is imports."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any
from unittest import mock

from tocsin.cli import main
from tocsin.dev.supervisor import VARIABLE

_PRELOADED = [
    "tests.support.forked",
    "tocsin.cli",
    "tocsin.http.app",
    "tocsin.engine.jobs",
    "uvloop",
]


class ForkedProcess:
    """A running process; what a test uses of asyncio's own."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    async def wait(self) -> int:
        while (code := self.returncode) is None:
            await asyncio.sleep(0.005)
        return code


def fork_tocsin(
    *command: str, environ: Mapping[str, str], log: Path, parent_fd: int
) -> ForkedProcess:
    """Starts the command with this environment; it appends its output to `log`, and ends when `parent_fd` does."""
    return ForkedProcess(_fork(command, environ, log, log, parent_fd))


def run_tocsin(*command: str, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs the command with this environment until its end."""
    with TemporaryDirectory() as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        process = _fork(command, environ, output, errors, None)
        process.join()
        assert process.exitcode is not None
        return subprocess.CompletedProcess(
            command, process.exitcode, output.read_text(), errors.read_text()
        )


class _Inherited:
    """A descriptor that the child inherits; unpickled there, it is its number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        return _detach, (DupFd(self.number),)


def _detach(descriptor: Any) -> int:
    return int(descriptor.detach())


def _fork(
    command: tuple[str, ...],
    environ: Mapping[str, str],
    output: Path,
    errors: Path,
    parent_fd: int | None,
) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    inherited: Any = None if parent_fd is None else _Inherited(parent_fd)
    given = (command, dict(environ), str(output), str(errors), inherited)
    process = context.Process(target=_run, args=given, daemon=True)
    # a child imports its parent's main module, which here is a test runner
    with mock.patch.dict(sys.modules, __main__=ModuleType("__main__")):
        process.start()
    return process


def _run(
    command: tuple[str, ...],
    environ: dict[str, str],
    output: str,
    errors: str,
    parent_fd: int | None,
) -> None:
    os.environ.clear()
    os.environ.update(environ)
    # where the tests run in the background, Ctrl-C is ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if parent_fd is not None:
        os.environ[VARIABLE] = str(parent_fd)
    for path, number in ((output, 1), (errors, 2)):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = ["tocsin", *command]
    main(prog_name="tocsin")
