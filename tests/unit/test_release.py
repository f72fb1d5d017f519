"""`make release`: what it refuses, and what it leaves in the tree."""

from __future__ import annotations

import json
import subprocess
from datetime import date
from pathlib import Path

import pytest
import release

TODAY = date(2027, 1, 31)
CHANGELOG = """# Changelog

## [Unreleased]

### Added

- A bell.

## [0.1.0] - 2026-11-30
"""


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.com")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout


def built(root: Path, folder: Path, version: str) -> None:
    """In place of the packages, whose builders `make package-check` runs: what they would read."""
    (folder / "version").write_text(release.current_version(root) + version)


def fails(root: Path, folder: Path, version: str) -> None:
    raise release.ReleaseError("npm failed")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "A")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@example.com")
    (tmp_path / "web").mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "0.1.0"\n')
    npm = {"name": "x", "version": "0.1.0"}
    (tmp_path / "web/package.json").write_text(json.dumps(npm))
    lock = {"name": "x", "packages": {"": npm, "node_modules/y": {"version": "3.0.0"}}}
    (tmp_path / "web/package-lock.json").write_text(json.dumps(lock))
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / ".gitignore").write_text("/build/\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message=First")
    return tmp_path


def test_a_release_is_a_commit_a_tag_and_files_with_their_sums(tree: Path) -> None:
    folder = release.release(tree, "0.2.0", TODAY, build=built)
    assert release.current_version(tree) == "0.2.0"
    assert json.loads((tree / "web/package.json").read_text())["version"] == "0.2.0"
    packages = json.loads((tree / "web/package-lock.json").read_text())["packages"]
    assert [each["version"] for each in packages.values()] == ["0.2.0", "3.0.0"]
    changelog = (tree / "CHANGELOG.md").read_text()
    assert "## [Unreleased]\n\n## [0.2.0] - 2027-01-31\n\n### Added\n" in changelog
    assert (folder / "version").read_text() == "0.2.00.2.0"
    subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=folder, check=True)
    assert git(tree, "log", "--format=%s", "v0.2.0").splitlines() == ["Release 0.2.0", "First"]
    assert git(tree, "status", "--porcelain") == ""


def test_a_dry_run_builds_the_files_and_leaves_the_tree_as_it_was(tree: Path) -> None:
    folder = release.release(tree, "0.2.0", TODAY, dry_run=True, build=built)
    assert (folder / "version").read_text() == "0.2.00.2.0"
    assert git(tree, "status", "--porcelain") == git(tree, "tag") == ""
    assert release.current_version(tree) == "0.1.0"


def test_a_step_that_fails_leaves_the_tree_as_it_was(tree: Path) -> None:
    with pytest.raises(release.ReleaseError, match="npm failed"):
        release.release(tree, "0.2.0", TODAY, build=fails)
    assert git(tree, "status", "--porcelain") == git(tree, "tag") == ""
    assert release.current_version(tree) == "0.1.0"


@pytest.mark.parametrize("version", ["0.1.0", "0.0.9"])
def test_a_version_that_is_not_newer_is_refused(tree: Path, version: str) -> None:
    with pytest.raises(release.ReleaseError, match=r"not newer than 0\.1\.0"):
        release.release(tree, version, TODAY, build=built)


@pytest.mark.parametrize("version", ["", "v0.2.0", "0.2", "0.2.0rc1", "00.2.0"])
def test_what_is_no_version_is_refused(tree: Path, version: str) -> None:
    with pytest.raises(release.ReleaseError, match="no version: three numbers"):
        release.release(tree, version, TODAY, build=built)


def test_a_tree_with_changes_is_refused(tree: Path) -> None:
    (tree / "new").touch()
    with pytest.raises(release.ReleaseError, match=r"commit or stash them first.\n\?\? new"):
        release.release(tree, "0.2.0", TODAY, build=built)


def test_a_changelog_with_nothing_new_is_refused(tree: Path) -> None:
    release.release(tree, "0.2.0", TODAY, build=built)
    with pytest.raises(release.ReleaseError, match="nothing under \\[Unreleased\\]"):
        release.release(tree, "0.3.0", TODAY, build=built)


def test_a_tag_that_is_there_is_refused(tree: Path) -> None:
    git(tree, "tag", "v0.2.0")
    with pytest.raises(release.ReleaseError, match=r"a tag v0\.2\.0 already"):
        release.release(tree, "0.2.0", TODAY, build=built)
