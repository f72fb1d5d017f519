"""Where this machine has Python 3.11 to 3.14: on PATH, from pyenv, or from uv.

    interpreters.py VERSION ...

prints the path of the first of these versions that is there; the exit status is 1 if none is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def find_interpreter(version: str, *, download: bool = False) -> str | None:
    """Returns the path of a Python of this minor version; with `download`, uv installs a missing one."""
    for path in _candidates(version):
        if _is(path, version):
            return path
    if download:
        _uv("install", version)
        return next((path for path in _managed(version) if _is(path, version)), None)
    return None


def _candidates(version: str) -> Iterator[str]:
    if found := shutil.which(f"python{version}"):
        yield found
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for folder in sorted(root.glob(f"versions/{version}.*"), reverse=True):
        yield str(folder / "bin" / "python")
    yield from _managed(version)


def _managed(version: str) -> Iterator[str]:
    yield from _uv("find", "--no-python-downloads", version).splitlines()


def _is(path: str, version: str) -> bool:
    """Also of pyenv's shims, which are there for versions that can't be run."""
    code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([path, "-c", code], capture_output=True, text=True)
    except OSError:
        return False
    return done.stdout.strip() == version


def _uv(*arguments: str) -> str:
    command = [sys.executable, "-m", "uv", "python", *arguments]
    return subprocess.run(command, capture_output=True, text=True).stdout


def main(versions: list[str]) -> int:
    """The command."""
    for version in versions:
        if path := find_interpreter(version):
            print(path)
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
