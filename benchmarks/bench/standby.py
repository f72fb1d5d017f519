"""A streaming standby of the benchmarks' PostgreSQL, from a new base backup; removed at the end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from bench import stage
from bench.rounds import until
from faults.server import Server, free_port
from tocsin.dev.embedded_postgres import Postgres
from tocsin.dev.postgres_cluster import PostgresError, call, find_cluster, give

_BEHIND = """
    select count(*) filter (where replay_lsn = pg_current_wal_lsn()) = 1
    from pg_stat_replication
"""


@contextmanager
def standby(running: Postgres) -> Iterator[int]:
    """Yields the process id of the standby's server."""
    with tempfile.TemporaryDirectory(prefix="tocsin-standby-") as made:
        folder = Path(made)
        home = folder / "postgres"
        home.mkdir()
        folder.chmod(0o755)
        cluster = find_cluster(stage.HOME)
        assert cluster is not None
        give(home, cluster.run_as)
        done = call(
            [
                str(cluster.binaries / "bin" / "pg_basebackup"),
                f"--dbname={running.superuser_dsn}",
                f"--pgdata={home / 'data'}",
                *("--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
            ],
            cluster.run_as,
        )
        if done.returncode != 0:
            raise PostgresError(done.stderr)
        server = Server(folder, free_port())
        server.start()
        try:
            with psycopg.connect(running.superuser_dsn, autocommit=True) as admin:
                until(lambda: admin.execute(_BEHIND).fetchone() == (True,))
            yield server.pid
        finally:
            server.end()
