"""`make mutants-pure`: mutmut over the pure modules, in a copy of the tree; a survivor needs a reason.

pure.py [PATTERN…] runs only the mutants with these names, such as "*retry*".
"""

from __future__ import annotations

import ast
import difflib
import fnmatch
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent.parent
TREE = ROOT / "build" / "mutants-tree"
PROGRAM = ROOT / "build" / "mutants" / "bin" / "python"
REASONS = Path(__file__).with_name("survivors.toml")
COPIED = ("tocsin", "tests", "pyproject.toml")
SURVIVED, UNTESTED, KILLED = 0, 33, 1  # exit codes as mutmut stores them


class Survivor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mutant that no test notices: `line` of `function` becomes `mutant`, and `why` that is harmless."""

    function: str
    line: str
    mutant: str
    why: str


class Reasons(msgspec.Struct, forbid_unknown_fields=True):
    """The file survivors.toml."""

    survivor: list[Survivor] = []


def copy_tree() -> None:
    """Makes a new copy, since mutmut writes into the tree that it mutates; its results for unchanged files are kept."""
    TREE.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        source, target = ROOT / name, TREE / name
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)


def forget_survivors() -> None:
    """Has mutmut run the survivors again, which new tests may notice; it keeps the results of unchanged functions."""
    for file in (TREE / "mutants").rglob("*.meta"):
        known = json.loads(file.read_text("utf-8"))
        codes = known["exit_code_by_key"]
        codes.update({name: None for name, code in codes.items() if code in (SURVIVED, UNTESTED)})
        file.write_text(json.dumps(known), "utf-8")


def mutmut(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs mutmut in the copy."""
    command = [str(PROGRAM), "-m", "mutmut", *arguments]
    return subprocess.run(command, cwd=TREE, capture_output=True, text=True)


class Result(msgspec.Struct, frozen=True):
    """A mutant: its name, its exit code (None if it was not run), and the file with it and the original."""

    name: str
    code: int | None
    file: Path


def results(patterns: Sequence[str]) -> Iterator[Result]:
    """Yields the mutants whose names match."""
    for file in sorted((TREE / "mutants").rglob("*.meta")):
        for name, code in json.loads(file.read_text("utf-8"))["exit_code_by_key"].items():
            if any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
                yield Result(name, code, file.with_suffix(""))


def changed_lines(mutant: Result) -> tuple[str, str]:
    """Returns the line before and after; in the file, each mutant is a function after the original."""
    text = mutant.file.read_text("utf-8")
    name = mutant.name.rpartition(".")[2]
    bodies = {
        node.name: text.splitlines()[node.lineno : node.end_lineno]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    original = bodies[name.partition("__mutmut_")[0] + "__mutmut_orig"]
    lines = list(difflib.unified_diff(original, bodies[name], n=0, lineterm=""))[2:]
    before = [line[1:].strip() for line in lines if line.startswith("-")]
    after = [line[1:].strip() for line in lines if line.startswith("+")]
    return " ".join(before), " ".join(after)


def main(patterns: Sequence[str]) -> int:
    """The command: 1 if a mutant survives without a reason, 2 if mutmut can't run."""
    copy_tree()
    forget_survivors()
    patterns = patterns or ["*"]
    ran = mutmut("run", "--max-children", str(os.cpu_count() or 1), *patterns)
    found = list(results(patterns))
    if not found or all(mutant.code is None for mutant in found):
        print(
            ran.stdout[-3000:], ran.stderr[-3000:], "mutmut did not run.", sep="\n", file=sys.stderr
        )
        return 2
    reasons = msgspec.toml.decode(REASONS.read_bytes(), type=Reasons).survivor
    known = {(each.function, each.line, each.mutant): each.why for each in reasons}
    counts = {"killed": 0, "survived with a reason": 0, "survived": 0, "not run": 0}
    for each in found:
        name, code = each.name, each.code
        if code is None:
            counts["not run"] += 1
        elif code not in (SURVIVED, UNTESTED):
            counts["killed"] += 1  # by a test, by its time limit, or by a signal
        else:
            function = name.rpartition(".")[2].partition("__mutmut_")[0].removeprefix("x_")
            line, mutant = changed_lines(each)
            if (function, line, mutant) in known:
                counts["survived with a reason"] += 1
            else:
                counts["survived"] += 1
                how = "no test runs it" if code == UNTESTED else "survived"
                print(f"{name}: {how}\n  - {line}\n  + {mutant}")
    print(f"{len(found)} mutants: " + ", ".join(f"{n} {what}" for what, n in counts.items()) + ".")
    return 1 if counts["survived"] or counts["not run"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
