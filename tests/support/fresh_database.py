"""An empty database on an embedded PostgreSQL of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.run_folder import run_folder
from tocsin.dev import embedded_postgres


@contextmanager
def fresh_database() -> Iterator[str]:
    """Yields the DSN of its owner."""
    with run_folder() as folder:
        running = embedded_postgres.start(folder / "data", durable=False)
        try:
            yield running.dsn
        finally:
            embedded_postgres.stop(running)
