"""`python -m faults`: runs seeds, several at a time, and prints their results."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import BinaryIO

import msgspec

from faults.inject import LIBFAKETIME
from faults.plan import KINDS, MOST_STOP, Plan, make_plan
from faults.processes import ends_with_parent
from faults.run import DISK, Result, run_seed
from faults.server import make_template
from faults.summary import describe, summarise

SHORT = (24, 33, 50)  # short seeds, which together have most kinds
PREFIX = "tocsin-fault-run-"
RESULT = "result.json"
HERE = Path(__file__).parent.parent
KEPT = HERE / "build" / "faults"


def main() -> int:
    options = _options()
    if options.scenario:
        from faults.scenarios import run_scenario

        with _work_folder() as folder:
            make_template(folder / "template")
            return run_scenario(options.scenario, options.lengths, folder)
    if options.worker:
        return _run_here(options)
    seeds = list(SHORT) if options.short else options.seeds
    plans = [_plan(seed, options) for seed in seeds]
    if options.plan:
        print("\n".join(map(str, plans)))
        return 0
    for name in _lacks():
        left_out = [kind for kind, one in KINDS.items() if one.needs == name]
        print(f"without {name}, and so without {', '.join(left_out)}", file=sys.stderr)
    return _run_all(plans, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--seeds", type=_seeds, default=[1], help="7, 1-300 or 3,8,21")
    parser.add_argument("--short", action="store_true", help=f"the seeds {SHORT}, as CI runs them")
    parser.add_argument("--jobs", type=int, default=1, help="seeds at a time")
    parser.add_argument("--plan", action="store_true", help="print the plans, run nothing")
    parser.add_argument(
        "--max-stop",
        type=float,
        default=MOST_STOP,
        help="longest outage of the database, in seconds",
    )
    parser.add_argument("--only", nargs="+", default=(), choices=tuple(KINDS), metavar="KIND")
    parser.add_argument("--out", type=Path, default=KEPT / "results.jsonl")
    parser.add_argument(
        "--scenario", choices=("outage", "promotion", "freeze-server", "terminate-connections")
    )
    parser.add_argument("--lengths", type=_lengths, default=[20.0, 45.0, 90.0, 140.0])
    parser.add_argument("--worker", nargs=2, metavar=("FOLDER", "TEMPLATE"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _seeds(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        found += range(int(first), int(last) + 1) if dash else [int(first)]
    return found


def _lengths(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _plan(seed: int, options: argparse.Namespace) -> Plan:
    return make_plan(seed, max_stop=options.max_stop, lacks=_lacks(), only=options.only)


def _lacks() -> list[str]:
    """Returns the requirements of some kinds that this machine does not meet."""
    lacks = []
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        lacks.append("root")
    if not LIBFAKETIME.exists():
        lacks.append("libfaketime")
    return lacks


# One seed, in a process of its own.


def _run_here(options: argparse.Namespace) -> int:
    folder, template = map(Path, options.worker)
    plan = _plan(options.seeds[0], options)

    def report(step: str) -> None:
        (folder / "step").write_text(step)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    result = asyncio.run(run_seed(plan, folder, template, report))
    (folder / RESULT).write_bytes(msgspec.json.encode(result))
    return 0


# Many seeds.


class Running:
    """A running seed."""

    def __init__(
        self, plan: Plan, folder: Path, template: Path, options: argparse.Namespace
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.started = time.monotonic()
        (folder / "disk").mkdir(parents=True)
        folder.chmod(0o755)
        self.mounted = plan.has("disk_full")
        if self.mounted:
            disk = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder / "disk")]
            subprocess.run(disk, check=True)
        command = [sys.executable, "-m", "faults", "--worker", str(folder), str(template)]
        command += ["--seeds", str(plan.seed), "--max-stop", str(options.max_stop)]
        if options.only:
            command += ["--only", *options.only]
        with (folder / "runner.log").open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=HERE,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=ends_with_parent,  # noqa: PLW1509 - one system call
            )

    @property
    def step(self) -> str:
        with suppress(OSError):
            return (self.folder / "step").read_text()
        return "starts"

    def result(self) -> Result | str:
        """Its result, or why it has none."""
        with suppress(OSError):
            return msgspec.json.decode((self.folder / RESULT).read_bytes(), type=Result)
        return (self.folder / "runner.log").read_text()[-3000:]

    def end(self, keep: Path | None) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(60)
        if keep is not None:
            shutil.rmtree(keep, ignore_errors=True)
            keep.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(self.folder, keep, ignore=shutil.ignore_patterns("disk"))
            _copy_log(self.folder, keep)
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder / "disk")])
        shutil.rmtree(self.folder, ignore_errors=True)


def _copy_log(folder: Path, keep: Path) -> None:
    for log in folder.glob("disk/*/postgres.log"):
        shutil.copy(log, keep / f"postgres-{log.parent.name}.log")


def _run_all(plans: list[Plan], options: argparse.Namespace) -> int:
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    broken: list[int] = []
    with _work_folder() as folder, options.out.open("ab") as out:
        template = folder / "template"
        make_template(template)
        waiting = list(plans)
        running: list[Running] = []
        try:
            while waiting or running:
                while waiting and len(running) < options.jobs:
                    plan = waiting.pop(0)
                    running.append(Running(plan, folder / str(plan.seed), template, options))
                for one in [each for each in running if each.process.poll() is not None]:
                    running.remove(one)
                    _finish(one, results, broken, out)
                _progress(running, len(results) + len(broken), len(plans))
                time.sleep(0.2)
        finally:
            for one in running:
                one.end(None)
    print(summarise(results))
    if broken:
        print(f"the runner itself failed in the seeds {broken}")
    return 1 if broken or any(result.violations for result in results) else 0


def _finish(one: Running, results: list[Result], broken: list[int], out: BinaryIO) -> None:
    result = one.result()
    keep = KEPT / str(one.plan.seed)
    if isinstance(result, str):
        broken.append(one.plan.seed)
        _line(f"seed {one.plan.seed}: the runner failed; see {keep}\n{result}")
        one.end(keep)
        return
    results.append(result)
    out.write(msgspec.json.encode(result) + b"\n")
    out.flush()
    _line(describe(result, one.plan, keep))
    if result.violations:
        keep.parent.mkdir(parents=True, exist_ok=True)
    one.end(keep if result.violations else None)


def _progress(running: list[Running], done: int, total: int) -> None:
    if sys.stderr.isatty():
        steps = ", ".join(
            f"{one.plan.seed} {one.step} {time.monotonic() - one.started:.0f} s" for one in running
        )
        print(f"\r\033[K{done} of {total}: {steps}", end="", file=sys.stderr, flush=True)


def _line(text: str) -> None:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    print(text, flush=True)


@contextmanager
def _work_folder() -> Iterator[Path]:
    """Yields the folder of this run's servers and logs, locked while it runs; PostgreSQL's user can access it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    alone = os.open(tempfile.gettempdir(), os.O_RDONLY)
    flock(alone, LOCK_EX)  # no folder is removed between its creation and its locking
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    folder.chmod(0o755)
    lock = os.open(folder, os.O_RDONLY)
    flock(lock, LOCK_EX)
    os.close(alone)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _sweep() -> None:
    """Removes the folders of killed runners: their locks ended with them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        lock = os.open(folder, os.O_RDONLY)
        try:
            with suppress(BlockingIOError):
                flock(lock, LOCK_EX | LOCK_NB)
                for disk in folder.glob("*/disk"):
                    if disk.is_mount():
                        subprocess.run(["umount", "--lazy", str(disk)])
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


if __name__ == "__main__":
    sys.exit(main())
