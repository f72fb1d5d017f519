"""The supervisor of child processes: it reports their output, restarts them and stops them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.running_up import OBEDIENT, STUBBORN
from tests.support.services import LONGEST, until
from tocsin.dev import supervisor
from tocsin.dev.embedded_postgres import gone
from tocsin.dev.supervisor import Child, ChildCommand, ParentPipe


def python(name: str, program: str) -> ChildCommand:
    return ChildCommand(name, [sys.executable, "-c", program])


class Family:
    """Supervised children whose lines are kept."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.parent_pipe = ParentPipe()
        self.children: list[Child] = []
        self.tasks: list[asyncio.Task[None]] = []

    def start(self, command: ChildCommand, **environ: str) -> Child:
        child = Child(command, os.environ | environ, self.parent_pipe, self.lines.append)
        self.children.append(child)
        self.tasks.append(asyncio.create_task(child.keep_running()))
        return child

    async def line_with(self, words: str) -> str:
        await until(lambda: any(words in line for line in self.lines))
        return next(line for line in self.lines if words in line)


@pytest_asyncio.fixture
async def family() -> AsyncIterator[Family]:
    kept = Family()
    yield kept
    for child in kept.children:
        child.kill()
    await asyncio.gather(*kept.tasks)
    kept.parent_pipe.close()


async def test_the_output_of_a_child_is_reported_and_it_stops_on_request(family: Family) -> None:
    child = family.start(python("worker", OBEDIENT))
    await family.line_with("working")

    await child.stop(2)

    assert child.pid is None
    assert len(family.lines) == 1


async def test_a_child_that_dies_is_restarted_and_the_reason_reported(family: Family) -> None:
    child = family.start(python("worker", OBEDIENT))
    first = int((await family.line_with("working")).split()[1])
    family.lines.clear()

    os.kill(first, signal.SIGKILL)

    assert await family.line_with("was ended by SIGKILL; restarting in 0.5 s")
    await family.line_with("working")
    assert child.pid not in (None, first)


async def test_a_child_that_ends_at_once_is_started_ever_more_slowly(family: Family) -> None:
    child = family.start(python("worker", "raise SystemExit(3)"))

    await family.line_with("ended with exit code 3; restarting in 1.0 s")
    assert child.quick_ends == 2


async def test_the_pause_before_the_next_start_does_not_delay_the_stop(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 3600.0)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 3600.0)
    child = family.start(python("worker", "raise SystemExit(3)"))
    await family.line_with("restarting in 3600.0 s")

    await child.stop(2)

    await asyncio.wait_for(family.tasks[0], LONGEST)


async def test_a_program_that_is_not_there_is_an_ending_like_others(family: Family) -> None:
    family.start(ChildCommand("worker", ["/nowhere/tocsin"]))

    await family.line_with("can't be started (No such file or directory); restarting")


async def test_a_child_that_ignores_sigterm_is_killed(family: Family) -> None:
    child = family.start(python("worker", STUBBORN))
    pid = int((await family.line_with("ignoring")).split()[1])

    await child.stop(0.2)

    assert gone(pid)
    assert "did not stop within 0.2 s: killed" in family.lines


async def test_what_a_child_leaves_behind_ends_with_it(family: Family) -> None:
    program = "import subprocess, sys; print('left', subprocess.Popen([sys.executable, '-c', 'import time; "
    program += "time.sleep(60)']).pid, flush=True)"
    family.start(python("worker", program))

    pid = int((await family.line_with("left")).split()[1])

    await until(lambda: gone(pid))


async def test_lines_come_out_whole_whatever_their_length(family: Family) -> None:
    family.start(
        python("worker", "import sys; sys.stdout.write('x' * 200_000 + chr(10) + 'no newline')")
    )

    await family.line_with("no newline")
    assert sum(line.count("x") for line in family.lines if set(line) == {"x"}) == 200_000
