"""`make mutants-edits`: applies each edit of edits.toml to a copy of the tree, where its test has to fail.

An edit is found by its text and a test by its name, wherever they are: a file that moves needs no change here. Text
that is no longer found, or a test that does not exist, is an error.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from xml.etree import ElementTree as ET

import msgspec
import psycopg

from tests.support.run_folder import run_folder
from tocsin.dev import embedded_postgres

ROOT = Path(__file__).parent.parent.parent
TABLE = Path(__file__).with_name("edits.toml")
COPIED = ("tocsin", "tests", "checks", "docs", "tools", "README.md", "pyproject.toml")
LONGEST = 180  # seconds for one edit; a hanging test counts as noticed
SHORT_STEP = 12  # `--short` runs one edit of this many


class Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One small fault: `find` becomes `replace`, and `test` has to fail.

    `test` is the name of a test function; its file comes before it, as in `test_lease.py::test_x`, where several files
    have one of that name. `within` is part of a path, for a text that occurs in several files.
    """

    fault: str
    find: str
    replace: str
    test: str
    within: str = ""


class Table(msgspec.Struct, forbid_unknown_fields=True):
    """The file edits.toml."""

    edit: list[Edit]


class Placed(msgspec.Struct, frozen=True):
    """An edit with the file that contains its text and the test as pytest selects it, both relative to the root."""

    edit: Edit
    file: Path
    test: str


class Result(msgspec.Struct, frozen=True):
    """`outcome` is killed, survived, or broken: the edited code does not start, which proves nothing."""

    edit: Edit
    outcome: str
    failed: str
    seconds: float


def read_table(file: Path = TABLE) -> list[Edit]:
    """Returns the edits, in their order."""
    return msgspec.toml.decode(file.read_bytes(), type=Table).edit


def place(edits: Sequence[Edit], root: Path = ROOT) -> tuple[list[Placed], list[str]]:
    """Returns the location of each edit and its test, and a line for each that is not found."""
    sources = {
        file.relative_to(root): file.read_text("utf-8")
        for pattern in ("*.py", "*.sql")
        for file in sorted((root / "tocsin").rglob(pattern))
    }
    tests = {
        file.relative_to(root): file.read_text("utf-8")
        for file in sorted((root / "tests").rglob("test_*.py"))
    }
    placed, problems = [], []
    for edit in edits:
        found = [
            file
            for file, text in sources.items()
            for _ in range(text.count(edit.find))
            if edit.within in str(file)
        ]
        named = find_test(edit.test, tests)
        if len(found) != 1:
            problems.append(f"{edit.fault}\n  the text occurs {len(found)} times: {edit.find!r}")
        elif len(named) != 1:
            problems.append(f"{edit.fault}\n  the test exists {len(named)} times: {edit.test}")
        elif edit.find == edit.replace:
            problems.append(f"{edit.fault}\n  the edit changes nothing: {edit.find!r}")
        else:
            placed.append(Placed(edit, found[0], named[0]))
    return placed, problems


def find_test(test: str, tests: dict[Path, str]) -> list[str]:
    """Returns all tests of this name, as pytest selects them."""
    name = test.rpartition("::")[2]
    within = test.rpartition("::")[0]
    defined = re.compile(rf"^(?:async )?def {re.escape(name)}\(", re.MULTILINE)
    return [
        f"{file}::{name}"
        for file, text in tests.items()
        for _ in defined.findall(text)
        if within in ("", file.name)
    ]


class Bench:
    """A copy of the tree, and a server for the tests of the edits, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "tree"
        self.tree.mkdir()
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "node_modules")
                shutil.copytree(source, self.tree / name, ignore=ignored)
            elif source.exists():
                shutil.copy(source, self.tree / name)
        self._report = folder / "report.xml"
        self._server = embedded_postgres.start(folder / "data", durable=False)
        with psycopg.connect(self._server.superuser_dsn, autocommit=True) as connection:
            # the password that tests/conftest.py gives to the owner of a server that is named
            connection.execute("alter role tocsin_owner password 'owner-of-tests'")

    def close(self) -> None:
        embedded_postgres.stop(self._server)

    def run(self, tests: Sequence[str]) -> tuple[int, int, str]:
        """Runs tests in the copy: how many failed, how many could not run, and the name of a failed one."""
        self._report.unlink(missing_ok=True)
        environ = os.environ | {
            "PYTHONPATH": str(self.tree),
            "TEST_SUPERUSER_DSN": self._server.superuser_dsn,
        }
        environ.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling takes half of a run
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
        ]
        try:
            ran = subprocess.run(
                [*command, f"--junitxml={self._report}", *tests],
                cwd=self.tree,
                env=environ,
                capture_output=True,
                text=True,
                timeout=LONGEST,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            return 1, 0, "(timed out)"
        if not self._report.exists():
            return 0, 1, ran.stdout[-2000:] + ran.stderr[-2000:]
        return read_report(self._report)

    def judge(self, placed: Placed) -> Result:
        """Applies one edit, runs its test, and takes the edit back."""
        edit, file = placed.edit, self.tree / placed.file
        text, started = file.read_text("utf-8"), time.monotonic()
        file.write_text(text.replace(edit.find, edit.replace), "utf-8")
        try:
            failures, errors, failed = self.run([placed.test])
        finally:
            file.write_text(text, "utf-8")
        outcome = "broken" if errors else "killed" if failures else "survived"
        return Result(edit, outcome, failed, time.monotonic() - started)


def read_report(file: Path) -> tuple[int, int, str]:
    """Failures, errors and the name of the first that failed, from a report in JUnit's form."""
    suite = next(ET.parse(file).iter("testsuite"))
    ran = int(suite.get("tests", 0)) - int(suite.get("skipped", 0))
    for case in suite.iter("testcase"):
        problem = case.find("failure")
        problem = case.find("error") if problem is None else problem
        if problem is not None:
            name = (
                f"{case.get('name')}" if problem.tag == "failure" else f"{problem.get('message')}"
            )
            return int(problem.tag == "failure"), int(problem.tag == "error"), name
    return 0, int(ran == 0), "" if ran else "nothing ran"


@contextmanager
def benches(count: int) -> Iterator[SimpleQueue[Bench]]:
    """Creates that many copies, each with its own server."""
    free: SimpleQueue[Bench] = SimpleQueue()
    with run_folder() as folder:
        made: list[Bench] = []
        try:
            for number in range(count):
                own = folder / str(number)
                own.mkdir()
                made.append(Bench(own))
                free.put(made[-1])
            yield free
        finally:
            for bench in made:
                bench.close()


def run(placed: Sequence[Placed], jobs: int) -> Iterator[Result]:
    """Yields the result of each edit. Raises SystemExit if a test fails without an edit."""
    with benches(jobs) as free, ThreadPoolExecutor(jobs) as pool:
        bench = free.get()
        failures, errors, name = bench.run(sorted({each.test for each in placed}))
        free.put(bench)
        if failures or errors:
            raise SystemExit(f"Without any edit, this does not pass: {name}")

        def judge(one: Placed) -> Result:
            bench = free.get()
            try:
                return bench.judge(one)
            finally:
                free.put(bench)

        yield from pool.map(judge, placed)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="a fixed sample")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument(
        "words", nargs="*", help="only edits whose fault or text has one of these words"
    )
    options = parser.parse_args(arguments)
    placed, problems = place(read_table(options.table))
    if problems:
        print(
            *problems,
            f"{len(problems)} edits can't be placed: correct {options.table.name}.",
            sep="\n",
        )
        return 2
    if options.short:
        placed = placed[::SHORT_STEP]
    if options.words:
        placed = [
            one
            for one in placed
            if any(word in one.edit.fault + one.edit.find for word in options.words)
        ]
    counts: dict[str, int] = {}
    for result in run(placed, options.jobs):
        counts[result.outcome] = counts.get(result.outcome, 0) + 1
        print(f"{result.outcome:8} {result.seconds:5.1f} s  {result.edit.fault}", flush=True)
        if result.outcome != "survived":
            print(
                f"                   {result.failed.splitlines()[0] if result.failed else ''}",
                flush=True,
            )
    print(
        f"{len(placed)} edits: {', '.join(f'{n} {outcome}' for outcome, n in sorted(counts.items()))}."
    )
    return 0 if counts.keys() <= {"killed"} else 1


if __name__ == "__main__":
    sys.exit(main())
