"""The folder of a run for its servers: the next run removes those of runs that were killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import run_folder as module
from tests.support.run_folder import PREFIX, has_room, remove_left_over, run_folder

HOLDER = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that has room."""
    monkeypatch.setattr(module, "ROOM", 1)
    return tmp_path


def test_a_run_has_a_folder_that_others_get_into_and_leaves_none(memory: Path) -> None:
    with run_folder(memory) as folder:
        assert folder.parent == memory
        assert folder.stat().st_mode & 0o777 == 0o755
    assert list(memory.iterdir()) == []


def test_the_folder_of_a_living_run_stays_and_that_of_a_dead_one_goes(memory: Path) -> None:
    dead = memory / f"{PREFIX}dead"
    (dead / "data").mkdir(parents=True)
    (memory / "another").mkdir()
    with run_folder(memory) as living, run_folder(memory) as second:
        assert {path.name for path in memory.iterdir()} == {"another", living.name, second.name}


def test_without_room_it_is_an_ordinary_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "gettempdir", lambda: str(tmp_path))
    for memory in (tmp_path / "nowhere", Path("/proc")):
        assert not has_room(memory)
        with run_folder(memory) as folder:
            assert folder.parent == tmp_path


def test_a_folder_is_locked_until_its_process_is_killed(memory: Path) -> None:
    folder = memory / f"{PREFIX}other"
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        remove_left_over(memory)
        assert folder.exists()
        other.kill()
    remove_left_over(memory)
    assert not folder.exists()
