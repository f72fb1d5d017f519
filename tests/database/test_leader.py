"""The election of the leader: a row that only the service may write, so that no other login can stop it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.services import LONGEST, service_dsn, until
from tocsin.engine.badge.hub import BadgeHub
from tocsin.engine.dispatch.dispatcher import Dispatcher
from tocsin.engine.store.database import Database
from tocsin.engine.store.dispatch import LeaderSession
from tocsin.engine.store.health import ReadinessCheck, blocking_sessions
from tocsin.migrate import login_dsn, migrate

Db = psycopg.Connection[Any]
SILENT = timedelta(seconds=15)


@asynccontextmanager
async def listener(dsn: str) -> AsyncIterator[LeaderSession]:
    connected = await LeaderSession.connect(service_dsn(dsn))
    try:
        yield connected
    finally:
        await connected.close()


@pytest.fixture
def other_role(dsn: str, tmp_path: Path) -> Iterator[Db]:
    """A login of an app, which holds every advisory lock that the service ever used."""
    with psycopg.connect(
        login_dsn(dsn, tmp_path, "app"), autocommit=True, application_name="other_role"
    ) as login:
        for key in (1, 2, 3):
            login.execute("select pg_advisory_lock(1953457011, %s)", (key,))
        yield login


async def test_one_of_two_leads_and_the_other_follows_at_its_end(dsn: str) -> None:
    async with listener(dsn) as second:
        async with listener(dsn) as first:
            assert await first.try_lead(SILENT)
            assert not await second.try_lead(SILENT)
            assert await first.record_heartbeat()
        await until(lambda: second.try_lead(SILENT))


async def test_a_leader_that_hangs_is_replaced_and_its_session_ended(dsn: str, db: Db) -> None:
    async with listener(dsn) as first, listener(dsn) as second:
        assert await first.try_lead(SILENT)
        db.execute("update tocsin.leader set heartbeat_at = heartbeat_at - interval '16 seconds'")
        assert await second.try_lead(SILENT)
        assert await second.record_heartbeat()
        gone = "select not exists (select from pg_stat_activity where pid = %s)"
        await until(lambda: db.execute(gone, (first.pid,)).fetchone() == (True,))


async def test_a_leader_that_was_replaced_learns_it_from_its_heartbeat(dsn: str, db: Db) -> None:
    async with listener(dsn) as first:
        assert await first.try_lead(SILENT)
        db.execute("update tocsin.leader set backend_pid = pg_backend_pid(), backend_start = now()")
        assert not await first.record_heartbeat()


async def test_another_session_with_the_leaders_process_id_is_not_the_leader(
    dsn: str, db: Db
) -> None:
    """A server that was restarted gives process ids a second time."""
    async with listener(dsn) as first, listener(dsn) as second:
        assert await first.try_lead(SILENT)
        db.execute("update tocsin.leader set backend_start = backend_start - interval '1 hour'")
        assert await second.try_lead(SILENT)


async def test_a_role_with_all_advisory_locks_stops_neither_badges_nor_migrations(
    dsn: str, db: Db, database: Database, other_role: Db
) -> None:
    db.execute("select tocsin.upsert_recipient('alice')")
    hub = BadgeHub(database)
    await hub.start()
    dispatcher = Dispatcher(service_dsn(dsn))
    leading = asyncio.create_task(dispatcher.run())
    try:
        await until(lambda: dispatcher.leading)
        async with hub.open_stream("alice", None) as stream:
            assert (await stream.next(LONGEST) or [])[0].data == b'{"count":0,"unseen":0}'
            db.execute("select tocsin.notify('forum.new_thread', array['alice'], 'x')")
            assert b'{"count":1,"unseen":1}' in [
                event.data for event in await stream.next(LONGEST) or []
            ]
        await asyncio.to_thread(migrate, dsn)
        (found,) = await blocking_sessions(database)
        assert (found.pid, found.application_name) == (other_role.info.backend_pid, "other_role")
        assert found.blocks == "the wake-up lock"
    finally:
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
        await hub.stop()


async def test_readiness_names_the_session_that_keeps_a_leader_from_being_elected(
    dsn: str, db: Db, database: Database
) -> None:
    check = ReadinessCheck(database)
    assert await check.why_not() is None  # it started a moment ago
    check = ReadinessCheck(database, elected_within=0.0)
    with psycopg.connect(dsn, application_name="a tool") as held:
        held.execute("select from tocsin.leader for update")
        held.execute("select pg_sleep(3)")
        async with listener(dsn) as waiting:
            assert not await waiting.try_lead(SILENT)
        reason = await check.why_not() or ""
        assert "No process has led" in reason
        assert f"session {held.info.backend_pid}" in reason
        assert "a tool" in reason
