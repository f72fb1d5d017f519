"""Runs every `make bench-…` in turn, as the Makefile lists them, and says what each took; `make bench`.

Ends with 1 where one broke; a goal that was missed is a measurement, and does not.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> int:
    took: dict[str, tuple[float, bool]] = {}
    for target in targets():
        print(f"\n== make {target}", flush=True)
        started = time.monotonic()
        ended = subprocess.run(["make", "--no-print-directory", target], cwd=ROOT)
        took[target] = (time.monotonic() - started, ended.returncode == 0)
    print(f"\n{'':<24}{'seconds':>8}")
    for target, (seconds, well) in took.items():
        print(f"{target:<24}{seconds:>8.0f}{'' if well else '   BROKE'}")
    print(f"{'together':<24}{sum(seconds for seconds, _ in took.values()):>8.0f}")
    return 0 if all(well for _, well in took.values()) else 1


def targets() -> list[str]:
    return re.findall(r"^(bench-[a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


if __name__ == "__main__":
    sys.exit(main())
