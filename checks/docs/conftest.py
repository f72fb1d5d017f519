"""The site, built once for all checks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from docs_site import build
from docs_site.contents import ROOT


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of this tree's version, built as `make docs` does; a warning of Sphinx is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "docs_site.build", "--site", str(folder)]
    environ = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tools'}", "PATH": "/usr/bin:/bin"}
    built = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / build.DEVELOPMENT
