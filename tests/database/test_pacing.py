"""What workers share by the database: slots of a channel's rate, and pauses that providers asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from tests.support.services import service_dsn
from tocsin.engine.actors.machinery.shared_limits import SendRate
from tocsin.engine.model import Channel, SendHold
from tocsin.engine.store.database import Database
from tocsin.engine.store.delivery import hold_sending, take_slots
from tocsin.engine.store.installation import (
    ProcessReport,
    SharedState,
    new_identity,
    report_process,
)

Db = psycopg.Connection[Any]


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    pool = Database(service_dsn(dsn), max_size=3)
    await pool.open()
    yield pool
    await pool.close()


def taken(db: Db) -> float:
    """Returns for how many seconds from now slots of mails are taken."""
    row = db.execute(
        "select extract(epoch from next_slot_at - clock_timestamp())::float8 from tocsin.send_rate"
    ).fetchone()
    assert row is not None
    return float(row[0])


async def test_blocks_of_different_workers_follow_one_another(database: Database) -> None:
    delays = await asyncio.gather(
        *(take_slots(database, Channel.EMAIL, 10, 10.0) for _ in range(6))
    )
    assert [round(each, -1) for each in sorted(delays)] == [0, 100, 200, 300, 400, 500]


async def test_each_channel_has_its_own_slots(database: Database) -> None:
    await take_slots(database, Channel.EMAIL, 10, 10.0)
    assert await take_slots(database, Channel.PUSH, 10, 10.0) < 1


async def test_slots_in_the_past_are_lost_whatever_set_the_clock(
    database: Database, db: Db
) -> None:
    await take_slots(database, Channel.EMAIL, 10, 1.0)
    db.execute("update tocsin.send_rate set next_slot_at = now() - interval '1 hour'")
    assert -1 < await take_slots(database, Channel.EMAIL, 10, 1.0) <= 0
    assert taken(db) <= 10
    db.execute("update tocsin.send_rate set next_slot_at = now() + interval '1 day'")
    assert await take_slots(database, Channel.EMAIL, 10, 1.0) <= 0
    assert taken(db) <= 10


async def test_a_report_returns_what_is_held_and_how_many_processes_serve(
    database: Database, db: Db
) -> None:
    async def report(kind: str) -> SharedState:
        return await report_process(database, new_identity(kind), ProcessReport())

    assert await report("worker") == SharedState(0, [])
    await hold_sending(database, SendHold("fcm", "fcm_429", 60.0))
    await hold_sending(database, SendHold("fcm", "fcm_429_again", 30.0))
    await hold_sending(database, SendHold("chat/7", "slack_429", 600.0))
    await report("serve")
    state = await report("serve")
    found = {each.key: (each.reason, round(each.seconds, -1)) for each in state.holds}
    assert found == {"fcm": ("fcm_429", 60), "chat/7": ("slack_429", 600)}
    assert state.serving == 2
    db.execute("update tocsin.send_hold set until = now() where key = 'fcm'")
    db.execute("update tocsin.process set reported_at = now() - interval '11 seconds'")
    state = await report("serve")
    assert ([each.key for each in state.holds], state.serving) == (["chat/7"], 1)
    await hold_sending(database, SendHold("apns", "apns_503", 5.0))
    assert db.execute("select count(*) from tocsin.send_hold").fetchone() == (2,)


async def test_three_workers_share_the_rate(database: Database) -> None:
    sent: list[float] = []

    def send() -> bool:
        sent.append(time.monotonic())
        return True

    async def work(rate: SendRate) -> None:
        while len(sent) < 200:
            await rate.next(send, lambda: 100)

    async def take(count: int, gap: float) -> float:
        return await take_slots(database, Channel.EMAIL, count, gap)

    await asyncio.gather(*(work(SendRate(100.0, take)) for _ in range(3)))
    assert sent[-1] - sent[0] > 1.5  # 0.7 s if each had the rate for itself
