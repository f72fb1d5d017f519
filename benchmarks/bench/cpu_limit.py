"""The option `--cpu 50%` of each benchmark: the whole run, with its PostgreSQL and peers, gets that much CPU time.

The benchmark moves itself into a new cgroup with a quota, so that all processes which it starts are in it too: by
`cpu.max` of cgroup v2, otherwise by `cpu.cfs_quota_us` of v1. The period is 10 ms, so a process that used up the quota
waits for some milliseconds at most. The record states what was used.
"""

from __future__ import annotations

import argparse
import atexit
import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

PERIOD = 10_000  # microseconds
CURE = (
    "--cpu needs a cgroup with a CPU quota: run as root on Linux, where /sys/fs/cgroup has the cpu controller and is "
    "writable; or without this option within systemd: systemd-run --scope -p CPUQuota=100% make bench-NAME"
)
_limits: list[str] = []


def parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser with the options of all benchmarks."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument(
        "--cpu", type=limit, metavar="50%", help="run with that part of all CPUs' time"
    )
    return made


def used() -> str:
    """Returns the limit of this run as text; empty without one."""
    return _limits[0] if _limits else ""


def folder() -> str:
    """Returns the folder of this run's results within results/."""
    return f"cpu-{used().partition(' ')[0]}" if used() else ""


def limit(text: str) -> int:
    """Limits this process and all that it starts; returns the percentage."""
    percent = percentage(text)
    quota = PERIOD * (os.cpu_count() or 1) * percent // 100
    group, name = enter(mounts(Path("/proc/mounts").read_text()), quota)
    atexit.register(leave, group)
    _limits[:] = [f"{percent} % of {os.cpu_count()} CPUs by {name}"]
    print(f"With {used()}.", file=sys.stderr)
    return percent


def percentage(text: str) -> int:
    number = text.removesuffix("%").strip()
    if not number.isdecimal() or not 1 <= int(number) <= 99:
        raise argparse.ArgumentTypeError(f"{text!r} is no percentage from 1% to 99%, such as 50%")
    return int(number)


def mounts(table: str) -> list[tuple[Path, bool]]:
    """Returns the folders of /proc/mounts that have a cpu controller, and whether each is cgroup v2."""
    found = []
    for line in table.splitlines():
        _, place, kind, options = line.split()[:4]
        controllers = Path(place) / "cgroup.controllers"
        if kind == "cgroup2":
            with suppress(OSError):
                if "cpu" in controllers.read_text().split():
                    found.append((Path(place), True))
        elif kind == "cgroup" and "cpu" in options.split(","):
            found.append((Path(place), False))
    return sorted(found, key=lambda each: not each[1])


def enter(folders: Iterable[tuple[Path, bool]], quota: int) -> tuple[Path, str]:
    """Moves this process into a new group with that quota; returns the group, and the name of its setting."""
    reasons = []
    for folder, second in folders:
        group = folder / f"tocsin-bench-{os.getpid()}"
        try:
            group.mkdir()
            if second:
                with suppress(OSError):  # usually on already
                    (folder / "cgroup.subtree_control").write_text("+cpu")
                (group / "cpu.max").write_text(f"{quota} {PERIOD}")
            else:
                (group / "cpu.cfs_period_us").write_text(str(PERIOD))
                (group / "cpu.cfs_quota_us").write_text(str(quota))
            (group / "cgroup.procs").write_text(str(os.getpid()))
        except OSError as error:
            reasons.append(f"{group}: {error.strerror}")
            with suppress(OSError):
                group.rmdir()
        else:
            return group, "cpu.max of cgroup v2" if second else "cpu.cfs_quota_us of cgroup v1"
    raise argparse.ArgumentTypeError(" ".join([CURE, *reasons]))


def leave(group: Path) -> None:
    """Leaves the group, and removes it when the started processes have ended."""
    with suppress(OSError):
        (group.parent / "cgroup.procs").write_text(str(os.getpid()))
    for _ in range(50):
        with suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.1)
