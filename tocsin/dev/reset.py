"""`make reset`: removes what `tocsin up` stored in the data directory, and nothing else there."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tocsin.dev import embedded_postgres
from tocsin.dev.postgres_cluster import PostgresError, remove_cluster
from tocsin.settings import SettingsError, read_settings
from tocsin.settings.running_instance import AlreadyRunning, lock_data_dir

STORED = (
    "mailbox",
    "phones.jsonl",
    "far-ends",
    "secrets.json",
    "postgres.port",
    "postgres.lock",
    "postgres.log",
)


def reset(data_dir: Path) -> None:
    """Removes database, mails, pushes and secrets; raises AlreadyRunning while `tocsin up` runs."""
    if not data_dir.is_dir():
        return
    with lock_data_dir(data_dir):
        if server := embedded_postgres.running(data_dir):
            embedded_postgres.stop(server)
        remove_cluster(data_dir)
        for name in (*STORED, "postgres-is-elsewhere.txt"):
            path = data_dir / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def main() -> int:
    """The command."""
    try:
        data_dir = read_settings().data_dir
        reset(data_dir)
    except (AlreadyRunning, PostgresError, SettingsError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{data_dir} is reset.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
