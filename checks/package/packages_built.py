"""The wheel and the sdist, and environments with the wheel alone: without the clone, as users have them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def build(folder: Path, source: Path = ROOT) -> tuple[Path, Path]:
    """Builds both from a source tree; returns the paths of wheel and sdist."""
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


class Environment:
    """A new virtual environment; its programs run in another folder than the clone, without its settings."""

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        self.folder = folder
        self.tocsin = folder / "bin" / "tocsin"
        self._environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("TOCSIN_", "PYTHON"))
        }
        self._uv("venv", "--python", python, str(folder))

    def install(self, *requirements: str) -> None:
        """From the package index, in the newest versions, as users get them."""
        self._uv("pip", "install", "--python", str(self.folder / "bin" / "python"), *requirements)

    def installed(self) -> set[str]:
        """Returns the names of the distributions."""
        listed = self._uv("pip", "freeze", "--python", str(self.folder / "bin" / "python"))
        return {re.split(r"==| @ ", line)[0] for line in listed.splitlines()}

    def _uv(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "uv", "--quiet", *arguments]
        done = subprocess.run(command, env=self._environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("python", *arguments)

    def run(
        self, program: str, *arguments: str, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program of this environment."""
        return subprocess.run(
            [str(self.folder / "bin" / program), *arguments],
            cwd=self.folder,
            env=self._environ | environ,
            capture_output=True,
            text=True,
        )
