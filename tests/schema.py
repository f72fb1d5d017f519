"""`make schema`: the schema that the migrations make, dumped to tocsin/sql/schema.sql to be read and compared."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tocsin import postgres
from tocsin.migrate import migrate
from tocsin.postgres.cluster import find_cluster, remove_cluster

FILE = Path(__file__).parent.parent / "tocsin" / "sql" / "schema.sql"
HEADER = "-- Made by `make schema` from the migrations; do not edit.\n\n"
NOISE = re.compile(
    r"^(--.*|SET .*|SELECT pg_catalog\.set_config.*|\\(un)?restrict .*|.* OWNER TO .*"
    # all tables and functions alike: tests/test_roles.py has what this role may do
    r"|GRANT .* TO tocsin_service;)\n",
    re.MULTILINE,
)
# their source is sql/functions already
FUNCTIONS = re.compile(
    r"^CREATE (?:FUNCTION|PROCEDURE) .*?\n\s*AS (\$\w*\$).*?\1;\n", re.MULTILINE | re.DOTALL
)


def dump_schema(dsn: str, pg_dump: str = "pg_dump") -> str:
    """Tocsin's own tables in `dsn`, without what changes from version to version of PostgreSQL."""
    command = [pg_dump, "--schema-only", "--schema=tocsin", f"--dbname={dsn}"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    text = FUNCTIONS.sub("", NOISE.sub("", text))
    return HEADER + re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def main() -> int:
    """The command."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # PostgreSQL may run as another user
        data_dir = Path(folder) / "data"
        server = postgres.start(data_dir, durable=False)
        try:
            migrate(server.dsn)
            cluster = find_cluster(data_dir)
            assert cluster is not None
            FILE.write_text(dump_schema(server.dsn, str(cluster.binaries / "bin" / "pg_dump")))
        finally:
            postgres.stop(server)
            remove_cluster(data_dir)
    print(f"{FILE.name} is written; the diff is the review.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
