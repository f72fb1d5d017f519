"""`make release`: a version's commit, tag and files in build/release; nothing is pushed.

    release.py VERSION [--dry-run]

Refuses a version that is not newer, a tree with changes, and a changelog with nothing new in it. Where a step fails,
the files that it changed are put back. With --dry-run they always are, and there is no commit and no tag.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).parent.parent
PYPROJECT = "pyproject.toml"
CHANGELOG = "CHANGELOG.md"
NPM = ("web/package.json", "web/package-lock.json")
CHANGED = (PYPROJECT, CHANGELOG, *NPM)

_VERSION = re.compile(r'^version = "(.+)"$', re.MULTILINE)
_UNRELEASED = "## [Unreleased]\n"

Build = Callable[[Path, Path, str], None]


class ReleaseError(Exception):
    """Why there is no release, and the cure."""


def check(root: Path, version: str) -> None:
    """Raises ReleaseError where this version can't be released from this tree."""
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise ReleaseError(f"{version!r} is no version: three numbers, such as 0.2.0.")
    current = current_version(root)
    if Version(version) <= Version(current):
        raise ReleaseError(f"{version} is not newer than {current}, the version in {PYPROJECT}.")
    if _git(root, "tag", "--list", f"v{version}"):
        raise ReleaseError(f"There is a tag v{version} already.")
    if changes := _git(root, "status", "--porcelain"):
        raise ReleaseError(f"The tree has changes: commit or stash them first.\n{changes}")
    if not re.search(r"^- ", _unreleased(root), re.MULTILINE):
        raise ReleaseError(f"{CHANGELOG} has nothing under [Unreleased]: write what changed.")


def current_version(root: Path) -> str:
    """Returns the version in pyproject.toml."""
    found = _VERSION.search((root / PYPROJECT).read_text("utf-8"))
    assert found, f"{PYPROJECT} has no version"
    return found[1]


def set_version(root: Path, version: str, today: date) -> None:
    """Writes the version into the metadata of both packages, and the changelog's section with its date."""
    pyproject = root / PYPROJECT
    text = _VERSION.sub(f'version = "{version}"', pyproject.read_text("utf-8"), count=1)
    pyproject.write_text(text, "utf-8")
    for name in NPM:
        content = json.loads((root / name).read_text("utf-8"))
        for part in (content, content.get("packages", {}).get("")):
            if part and "version" in part:
                part["version"] = version
        lines = json.dumps(content, indent=2, ensure_ascii=False)
        (root / name).write_text(f"{lines}\n", "utf-8")
    changelog = root / CHANGELOG
    dated = f"{_UNRELEASED}\n## [{version}] - {today.isoformat()}\n"
    changelog.write_text(changelog.read_text("utf-8").replace(_UNRELEASED, dated, 1), "utf-8")


def build(root: Path, folder: Path, version: str) -> None:
    """Wheel, sdist, npm package and bill of materials."""
    _run(root, sys.executable, "-m", "hatchling", "build", "--directory", str(folder))
    _run(root / "web", "npm", "pack", "--silent", "--pack-destination", str(folder))
    _run(root, sys.executable, "checks/supply/sbom.py", str(folder / f"tocsin-{version}.cdx.json"))


def write_sums(folder: Path) -> None:
    """SHA256SUMS of all files, in the format of sha256sum --check."""
    files = sorted(file for file in folder.iterdir() if file.name != "SHA256SUMS")
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (folder / "SHA256SUMS").write_text("".join(sums), "utf-8")


def release(
    root: Path, version: str, today: date, *, dry_run: bool = False, build: Build = build
) -> Path:
    """Makes the release; returns the folder of its files. Raises ReleaseError, and then nothing is changed."""
    check(root, version)
    folder = root / "build" / "release"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    committed = False
    try:
        set_version(root, version, today)
        build(root, folder, version)
        write_sums(folder)
        if not dry_run:
            _git(root, "commit", "--quiet", f"--message=Release {version}", "--", *CHANGED)
            committed = True
            _git(root, "tag", "--annotate", f"--message=Tocsin {version}", f"v{version}")
    finally:
        if not committed:
            _git(root, "checkout", "--quiet", "--", *CHANGED)
    return folder


def _unreleased(root: Path) -> str:
    """Returns the changelog's section of what is not released."""
    _, found, rest = (root / CHANGELOG).read_text("utf-8").partition(_UNRELEASED)
    if not found:
        raise ReleaseError(f"{CHANGELOG} has no section {_UNRELEASED.strip()}.")
    return rest.partition("\n## ")[0]


def _git(root: Path, *arguments: str) -> str:
    return _run(root, "git", *arguments)


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise ReleaseError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="make release")
    parser.add_argument("version", nargs="?", default="", help="VERSION=0.2.0")
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args()
    try:
        folder = release(ROOT, given.version, datetime.now(UTC).date(), dry_run=given.dry_run)
    except ReleaseError as error:
        print(f"No release: {error}", file=sys.stderr)
        return 1
    for file in sorted(folder.iterdir()):
        print(file.relative_to(ROOT))
    if given.dry_run:
        print("A dry run: no commit, no tag, and the files of the tree are as before.")
    else:
        print(f"Committed and tagged v{given.version}. To publish, see docs/releasing.md.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
