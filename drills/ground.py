"""What drills have in common: their folder with a migrated cluster, and a result as text."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults.run import Result
from faults.server import make_template

KEPT = Path(__file__).parent.parent / "build" / "drills"


@contextmanager
def drill_folder() -> Iterator[Path]:
    """Yields a folder with `template`, a migrated cluster; PostgreSQL's user can access it. Keeps logs of a failure."""
    with tempfile.TemporaryDirectory(prefix="tocsin-drill-") as made:
        folder = Path(made)
        for each in (folder, folder / "disk"):
            each.mkdir(exist_ok=True)
            each.chmod(0o755)
        make_template(folder / "template")
        try:
            yield folder
        except BaseException:
            KEPT.mkdir(parents=True, exist_ok=True)
            for log in folder.glob("*.log"):
                shutil.copy(log, KEPT)
            print(f"logs: {KEPT}")
            raise


def show(result: Result) -> str:
    """Returns what was sent, and whether the invariants held."""
    again = ", ".join(f"{count} {why}" for why, count in sorted(result.duplicates.items()))
    lines = [
        f"{result.events} events, {result.deliveries} deliveries, {result.accepted} messages accepted",
        f"calls: {', '.join(f'{n} {name}' for name, n in sorted(result.calls.items()))}",
        f"accepted twice: {again or 'none'}; quiet after {result.quiet:.0f} s",
    ]
    lines += [f"VIOLATED {each.invariant}: {each.text}" for each in result.violations[:20]]
    lines.append("failed" if result.violations else "nothing lost, nothing twice")
    return "\n".join(lines)
