"""Log lines of errors contain no address, no id of a person and no text of an app."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import logging, sys
import psycopg, structlog
from tocsin.logs import configure_logs
from tocsin.settings import Settings

configure_logs(Settings(log_format=sys.argv[2]))
with psycopg.connect(sys.argv[1], autocommit=True) as db:
    db.execute("create temporary table t (address text primary key)")
    try:
        try:
            for _ in range(2):
                db.execute("insert into t values ('alice@example.com')")
        except psycopg.Error as error:
            raise RuntimeError("not written") from error
    except RuntimeError as error:
        structlog.get_logger("tocsin.test").exception("a failure")
        logging.getLogger("library").error("another", exc_info=error)
"""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_database_error_is_logged_without_the_values_that_it_quotes(
    dsn: str, log_format: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, dsn, log_format], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "alice" not in done.stderr
    assert done.stderr.count("UniqueViolation (SQLSTATE 23505)") == 2
    assert done.stderr.count("RuntimeError") == 2
