"""The npm package as it is published: packed, and unpacked into a project of its own."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
WEB = ROOT / "web"
FOLDER = ROOT / "build" / "npm"
MODULES = WEB / "node_modules"


@cache
def packed() -> dict[str, Any]:
    """Returns what `npm pack` reports, after a build as its `prepack` makes it; `archive` is the path of the file."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    subprocess.run(["node", "build.mjs", "dist", "--npm"], cwd=WEB, check=True, capture_output=True)
    command = ["npm", "pack", "--ignore-scripts", "--json", "--pack-destination", str(FOLDER)]
    output = subprocess.run(command, cwd=WEB, check=True, capture_output=True, text=True).stdout
    (report,) = json.loads(output)
    return {**report, "archive": FOLDER / report["filename"]}


def install(project: Path, **others: Path) -> None:
    """Unpacks the package into `node_modules` of a project, with other packages beside it as links."""
    modules = project / "node_modules"
    modules.mkdir(parents=True, exist_ok=True)
    with tarfile.open(packed()["archive"]) as archive:
        # Python before 3.11.4 has no filters
        archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        archive.extractall(modules)
    (modules / "package").rename(modules / "tocsin")
    for name, target in others.items():
        link = modules / name.replace("types_", "@types/")
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(target)


def node(*command: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs Node to its end, at most ten minutes."""
    return subprocess.run(
        ["node", *command],
        cwd=cwd,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=600,
    )
