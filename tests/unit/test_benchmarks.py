"""What the benchmarks' page and the option `--cpu` do, without running a benchmark."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module(name)


@pytest.mark.parametrize("text", ["0%", "100%", "half", "-5%", "12.5%"])
def test_a_part_of_the_cpu_is_a_percentage(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_limit = module("bench.cpu_limit", monkeypatch)

    with pytest.raises(argparse.ArgumentTypeError, match="is no percentage from 1% to 99%"):
        cpu_limit.percentage(text)


def test_cgroup_v2_comes_before_v1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_limit = module("bench.cpu_limit", monkeypatch)
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu memory\n")
    table = (
        "proc /proc proc rw 0 0\n"
        "cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\n"
        "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu,cpuacct 0 0\n"
        f"cgroup2 {tmp_path} cgroup2 rw 0 0\n"
    )

    assert cpu_limit.mounts(table) == [(tmp_path, True), (Path("/sys/fs/cgroup/cpu"), False)]


def test_a_machine_without_the_controller_gets_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_limit = module("bench.cpu_limit", monkeypatch)

    with pytest.raises(argparse.ArgumentTypeError, match=r"systemd-run --scope -p CPUQuota"):
        cpu_limit.enter([], 10_000)
    with pytest.raises(argparse.ArgumentTypeError, match="Not a directory"):
        cpu_limit.enter([(Path("/dev/null"), True)], 10_000)


@pytest.mark.parametrize(("unit", "fastest"), [("calls/s", "b"), ("ms", "a")])
def test_the_summary_has_the_fastest_peer(
    unit: str, fastest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = module("bench.summary", monkeypatch)
    measured = {"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0]}

    assert summary.best(["a", "b", "unknown"], measured, unit) == fastest
    assert summary.best(["unknown"], measured, unit) is None


def test_the_page_begins_with_at_most_ten_rows_of_kept_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page, summary = module("page", monkeypatch), module("bench.summary", monkeypatch)

    rows = list(summary.rows(page.records()))

    assert 0 < len(rows) <= 10
    head, *_ = page.page().split("## How it was measured")
    assert all(row[0] in head for row in rows)


def test_a_result_with_less_cpu_is_a_column_of_its_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = module("page", monkeypatch)
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    result = json.loads((ROOT / "benchmarks" / "results" / "fan-out.json").read_text())
    (tmp_path / "fan-out.json").write_text(json.dumps(result))
    result["measured"]["notify(), 1,000"] = [4321.0]
    result["machine"]["limit"] = "50 % of 2 CPUs by cpu.max of cgroup v2"
    (tmp_path / "cpu-50").mkdir()
    (tmp_path / "cpu-50" / "fan-out.json").write_text(json.dumps(result))

    text = page.page()

    assert "| median | least | most | median, 50 % CPU |" in text
    assert "4,321" in text
    assert "| | goal | ratio (spread) | asked | verdict | 50 % CPU |" in text.replace("|  |", "| |")
    assert "50 % CPU: 50 % of 2 CPUs by cpu.max of cgroup v2." in text


def test_a_disturbed_round_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = module("bench.rounds", monkeypatch)
    values, disturbed = iter(range(100)), iter([True, False, True, False])

    kept, every = rounds.in_turns_without({"a": lambda: next(values)}, 2, lambda: next(disturbed))

    assert kept == {"a": [1, 3]}
    assert every == {"a": [0, 1, 2, 3]}


def test_rounds_that_are_always_disturbed_end_the_benchmark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rounds = module("bench.rounds", monkeypatch)

    with pytest.raises(SystemExit, match="not 2 rounds of 5 were undisturbed"):
        rounds.in_turns_without({"a": lambda: 1.0}, 2, lambda: True)


def test_each_benchmark_imports_only_what_exists() -> None:
    names = [path.stem for path in (ROOT / "benchmarks").glob("*.py")]
    names += [f"bench.{path.stem}" for path in (ROOT / "benchmarks" / "bench").glob("*.py")]
    code = f"import importlib; [importlib.import_module(name) for name in {names}]"

    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "benchmarks", capture_output=True, text=True
    )

    assert ran.returncode == 0, ran.stderr
