"""The places that list what a change must pass name the same make targets."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent.parent
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def called(text: str) -> list[str]:
    return re.findall(r"^\s*(?:- run: )?make ([a-z-]+)$", text, re.MULTILINE)


def test_every_ci_runs_the_targets_of_make_check() -> None:
    check = re.search(r"^check: (.*?) ##", MAKEFILE, re.MULTILINE)
    assert check is not None
    workflow = (ROOT / ".github/workflows/ci.yml").read_text("utf-8")
    matrix = yaml.safe_load(workflow)["jobs"]["tests"]["strategy"]["matrix"]["target"]

    assert called((ROOT / ".ci/run").read_text("utf-8")) == check[1].split()
    assert called(workflow) + matrix == check[1].split()


def test_a_commit_hook_runs_make_lint() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    assert [each["entry"] for repo in hooks for each in repo["hooks"]] == ["make lint"]


def test_each_file_and_target_that_contributing_names_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    files = re.findall(r"`((?:tocsin|tests|web|checks|docs)/[\w/.-]+)`", text)
    targets = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
    named = {word for line in re.findall(r"make ([a-z][a-z -]*)", text) for word in line.split()}

    assert len(files) > 15
    assert [file for file in files if not (ROOT / file).exists()] == []
    assert {"lint", "settings-page", "mail-screenshots"} <= named & targets
