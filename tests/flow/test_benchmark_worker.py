"""The worker of the benchmarks replaces parts of the product by name; it still delivers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.services import running, until

Db = psycopg.Connection[Any]
WORKER = Path(__file__).parent.parent.parent / "benchmarks" / "bench" / "null_worker.py"
SENT = "select from tocsin.delivery where state = 'sent'"


@pytest.mark.parametrize("arguments", [(), ("bare",)])
async def test_the_worker_of_the_benchmarks_delivers_rendered_and_constant_messages(
    db: Db, dsn: str, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    db.execute("select tocsin.upsert_recipient('alice', 'alice@example.com')")
    db.execute("select tocsin.notify('forum.new_reply', array['alice'], 'Reply')")
    settings = {"database_url": dsn, "public_url": "http://127.0.0.1:1"}
    program = (sys.executable, str(WORKER), *arguments)
    async with running(log=tmp_path / "log", program=program, settings=settings):
        await until(lambda: db.execute(SENT).fetchone() is not None)
