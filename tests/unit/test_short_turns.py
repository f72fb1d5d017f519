"""Short turns on the processor are asked for, and nothing else changes."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

PROGRAM = """
import ctypes, os, struct, sys
from tocsin.short_turns import take_short_turns

os.nice(3)
assert take_short_turns()
got = ctypes.create_string_buffer(48)
call = {"x86_64": 315, "aarch64": 275}[sys.argv[1]]
assert ctypes.CDLL(None).syscall(call, 0, got, 48, 0) == 0
_, policy, _, nice, _, turn, _, _ = struct.unpack("=IIQiIQQQ", got.raw)
print(policy == os.SCHED_OTHER, nice, turn)
"""


def test_a_service_takes_short_turns_at_its_usual_priority() -> None:
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, platform.machine()],
        capture_output=True,
        text=True,
        check=True,
    )
    kernel = tuple(map(int, platform.release().split(".")[:2]))
    turn = 100_000 if kernel >= (6, 12) else 0  # before that, Linux takes no notice
    assert ran.stdout.split() == ["True", str(min(19, nice + 3)), str(turn)]
