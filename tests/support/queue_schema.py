"""`make queue-schema`: copies the SQL files of the installed Procrastinate into tocsin/sql/procrastinate."""

from __future__ import annotations

from importlib.metadata import files, version
from pathlib import Path

TARGET = Path(__file__).parent.parent.parent / "tocsin/sql/procrastinate"
FIRST = "03.10.00"  # the oldest version that a database of Tocsin may have: migrations up to it are not needed


def copy() -> None:
    """Replaces the copies."""
    for path in files("procrastinate") or []:
        if path.name == "schema.sql" or path.name == "LICENSE.md":
            (TARGET / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
        elif path.parent.name == "migrations" and path.suffix == ".sql" and path.name[:8] > FIRST:
            (TARGET / "migrations").mkdir(exist_ok=True)
            target = TARGET / "migrations" / path.name
            target.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    (TARGET / "VERSION").write_text(version("procrastinate") + "\n", encoding="utf-8")


if __name__ == "__main__":
    copy()
