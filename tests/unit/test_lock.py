"""The lock files pin everything by hash, and do not name where it came from."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
RUNTIME, DEVELOPMENT = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"
LOCKS = [
    RUNTIME,
    DEVELOPMENT,
    ROOT / "checks" / "mutants" / "requirements.lock",
    *sorted((ROOT / "checks" / "frameworks").rglob("requirements*.lock")),
    ROOT / "tools" / "docs_site" / "requirements.lock",
]
PEERS = ROOT / "benchmarks" / "peers" / "requirements.lock"
NPM = [
    ROOT / "benchmarks" / "peers" / "node" / "package-lock.json",
    ROOT / "checks" / "databases" / "package-lock.json",
    *sorted((ROOT / "checks" / "frontends").glob("*/package-lock.json")),
    ROOT / "checks" / "languages" / "package-lock.json",
    ROOT / "checks" / "mails" / "package-lock.json",
    ROOT / "web" / "package-lock.json",
]
# every npm ci has --ignore-scripts; what PostgreSQL's would do is done in checks/databases/servers.py
WORKS_WITHOUT_ITS_SCRIPT = {"esbuild", "sharp", "pg14", "pg15", "pg16", "pg17"}


def pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def named(requirements: list[str | dict[str, str]]) -> set[str]:
    texts = (requirement for requirement in requirements if isinstance(requirement, str))
    return {re.split(r"[\[<>=;]", text)[0].strip() for text in texts}


@pytest.mark.parametrize(
    "lock", [*LOCKS, PEERS, *NPM], ids=lambda lock: f"{lock.parent.name}/{lock.name}"
)
def test_no_lock_holds_an_address(lock: Path) -> None:
    text = lock.read_text()

    assert not re.search(r"://|--(extra-)?index-url|--find-links|@ *file|\bgit\+", text)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: f"{lock.parent.name}/{lock.name}")
def test_every_pin_has_its_hashes(lock: Path) -> None:
    entries = re.split(r"^(?=[a-z0-9])", lock.read_text(), flags=re.MULTILINE)[1:]

    assert len(entries) == len(pins(lock)) > 5
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("lock", NPM, ids=lambda lock: lock.parent.name)
def test_every_package_of_npm_has_its_hash_and_no_script(lock: Path) -> None:
    packages = json.loads(lock.read_text())["packages"]

    ours, *others = packages
    assert ours == ""
    assert others
    for name in others:
        package = packages[name]
        in_another = package.get("inBundle", False)  # has the hash of the one that contains it
        assert in_another or package["integrity"].startswith("sha512-"), name
        scripted = "hasInstallScript" in package
        assert not scripted or name.rpartition("node_modules/")[2] in WORKS_WITHOUT_ITS_SCRIPT, name


def test_both_locks_pin_the_same_versions() -> None:
    development = pins(DEVELOPMENT)

    assert {name: development.get(name) for name in pins(RUNTIME)} == pins(RUNTIME)


def test_the_locks_hold_what_the_project_asks_for() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, groups = pyproject["project"], pyproject["dependency-groups"]
    extras = project["optional-dependencies"]
    runtime = named(project["dependencies"] + extras["server"] + extras["up"] + groups["build"])
    runtime -= {"tocsin"}  # `up` includes `server`

    assert runtime <= pins(RUNTIME).keys()
    assert runtime | named(groups["dev"]) <= pins(DEVELOPMENT).keys()
