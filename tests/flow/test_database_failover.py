"""A failover behind a proxy that leaves connections to the former server open: nothing comes through them any more."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.support.database_proxy import Proxy
from tests.support.database_proxy import proxy as proxy  # noqa: PLC0414 - a fixture
from tests.support.refusing_mail_server import *  # noqa: F403 - fixtures
from tests.support.refusing_mail_server import Db, Far, notify_people, states
from tests.support.services import running, until
from tocsin.engine.model import Unavailable
from tocsin.engine.store.database import Database, connect_directly
from tocsin.engine.store.lost_sessions import end_lost

END_SESSIONS = """
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()
"""


def fail_over(proxy: Proxy, db: Db) -> None:
    """The new server has none of the sessions of the former one."""
    proxy.abandon()
    db.execute(END_SESSIONS)


async def test_a_worker_leads_and_sends_again_after_a_failover_that_closes_nothing(
    proxy: Proxy, db: Db, far: Far, tmp_path: Path
) -> None:
    settings = {
        "database_url": proxy.dsn,
        "smtp_url": far.url,
        "public_url": "https://notify.example",
        "data_dir": str(tmp_path),
    }
    log = tmp_path / "worker.log"
    async with running("worker", log=log, settings=settings, as_owner=True) as service:
        await service.wait_for_log("leading")
        notify_people(db, 1)
        await until(lambda: states(db) == {"sent": 1})
        fail_over(proxy, db)
        notify_people(db, 1)
        await until(lambda: states(db) == {"sent": 2})
        assert "lost connections ended" in service.log
    assert len(far.mails) == 2


async def test_connections_whose_session_is_there_stay_open(proxy: Proxy, db: Db) -> None:
    database = Database(proxy.dsn)
    await database.open()
    listening = await connect_directly(proxy.dsn)
    asking = await psycopg.AsyncConnection.connect(proxy.dsn)
    assert await end_lost(proxy.dsn, asking) == 0
    assert await database.value("select 1") == 1
    await listening.execute("select 1")
    for each in (listening, asking, database):
        await each.close()


async def test_a_service_reads_nothing_from_a_standby_to_which_a_proxy_leads(proxy: Proxy) -> None:
    database = Database(proxy.dsn, primary=True)
    await database.open()
    proxy.is_standby = True
    proxy.cut()
    with pytest.raises(Unavailable):
        await database.value("select 1")
    proxy.is_standby = False
    await until(lambda: _works(database))
    await database.close()


async def test_a_host_that_does_not_respond_is_not_tried_first_by_each_connection(
    proxy: Proxy, dsn: str
) -> None:
    other = Proxy(dsn)
    await other.open()
    hosts = make_conninfo(dsn, host="127.0.0.1,127.0.0.1", port=f"{proxy.port},{other.port}")
    proxy.freeze()
    await (await connect_directly(hosts)).close()
    assert proxy.accepted == 1
    database = Database(hosts, max_size=2)
    await database.open()
    assert await database.value("select 1") == 1
    await database.close()
    await (await connect_directly(hosts)).close()
    assert proxy.accepted == 1
    await other.shut()


async def _works(database: Database) -> bool:
    with suppress(Unavailable):
        return bool(await database.value("select 1") == 1)
    return False
