"""`make test-matrix`: a part of the suite on each Python with each PostgreSQL.

    combinations.py [--ends] [--download]

--ends takes the oldest and the newest of both. --download lets uv install a Python that this machine does not have;
without it, the versions that are missing are named at the end.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from interpreters import PYTHONS, find_interpreter
from msgspec import Struct
from packages_built import ROOT, Environment, build
from servers import NEWEST, Server, server

from tests.support.run_folder import run_folder

SERVERS: tuple[int, ...] = (15, 16, 17, NEWEST)
TOOLS = (
    "dkimpy",
    "httpx",
    "hypothesis",
    "packaging",
    "pynacl",
    "pytest",
    "pytest-asyncio",
    "pytest-xdist",
    "pyyaml",
    "trustme",
)
# What depends on Python alone, and what depends on both.
ON_EACH_PYTHON = (
    "tests/unit/test_client_arguments.py",
    "tests/unit/test_email_actor.py",
    "tests/unit/test_smtp_failures.py",
    "tests/unit/test_mail_templates.py",
    "tests/unit/test_settings.py",
    "tests/rest/test_stream.py",
)
ON_EACH_PAIR = (
    "tests/database/test_client.py",
    "tests/database/test_migrate.py",
    "tests/database/test_notify.py",
    "tests/flow/test_databases.py",
)
_OPTIONS = ("--quiet", "--numprocesses=2", "--dist=worksteal")


class Result(Struct, frozen=True):
    """One run of tests."""

    name: str
    passed: bool
    seconds: float
    output: str


def prepare(wheel: Path, python: str, folder: Path) -> Environment:
    """Returns an environment with the wheel, all that it needs, and what the tests need, in the locked versions."""
    environment = Environment(folder, python)
    lock = str(ROOT / "requirements-dev.lock")
    environment.install("--constraint", lock, f"{wheel}[up]", *TOOLS)
    return environment


def run_tests(name: str, environment: Environment, tests: tuple[str, ...], dsn: str) -> Result:
    """Runs them in this environment, on this server."""
    started = time.monotonic()
    done = subprocess.run(
        [str(environment.folder / "bin" / "python"), "-m", "pytest", *_OPTIONS, *tests],
        cwd=ROOT,
        env=os.environ | {"TEST_SUPERUSER_DSN": dsn},
        capture_output=True,
        text=True,
    )
    seconds = time.monotonic() - started
    return Result(name, done.returncode == 0, seconds, done.stdout + done.stderr)


def results(pythons: dict[str, str], versions: tuple[int, ...], folder: Path) -> Iterator[Result]:
    """Yields each Python on each PostgreSQL."""
    wheel, _ = build(folder / "dist")
    environments = {
        name: prepare(wheel, path, folder / f"python{name}") for name, path in pythons.items()
    }
    for version in versions:
        with server(version, folder / f"postgres{version}") as running:
            for name, environment in environments.items():
                tests = ON_EACH_PAIR if version != versions[0] else ON_EACH_PYTHON + ON_EACH_PAIR
                title = f"Python {name}, PostgreSQL {_full_version(running)}"
                yield run_tests(title, environment, tests, running.dsn())


def _full_version(running: Server) -> str:
    program = str(running.binaries / "postgres")
    return subprocess.run([program, "--version"], capture_output=True, text=True).stdout.split()[2]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="make test-matrix")
    parser.add_argument("--ends", action="store_true")
    parser.add_argument("--download", action="store_true")
    given = parser.parse_args()
    found = {each: find_interpreter(each, download=given.download) for each in PYTHONS}
    pythons = {name: path for name, path in found.items() if path}
    versions = SERVERS
    if given.ends:
        pythons = {name: pythons[name] for name in (min(pythons), max(pythons))}
        versions = (SERVERS[0], SERVERS[-1])
    failed = 0
    with run_folder() as folder:
        for result in results(pythons, versions, folder):
            failed += not result.passed
            summary = result.output.strip().splitlines()[-1:]
            print(f"{result.name}: {' '.join(summary)}", flush=True)
            if not result.passed:
                print(result.output)
    missing = [name for name, path in found.items() if not path]
    if missing:
        print(f"Not tested, as there is no interpreter (PATH, pyenv, uv): {', '.join(missing)}.")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
