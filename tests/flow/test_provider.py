"""Which providers are available: each worker reports its own, until its last report is too old."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg

from tests.support.phones import IPHONE, device, far_ends, ledger, notify_phones, settled
from tests.support.services import running, until
from tocsin.engine.model import Channel
from tocsin.engine.store.database import Database
from tocsin.engine.store.installation import is_offered, offer_providers

Db = psycopg.Connection[Any]
APNS, FCM, SMTP = (Channel.PUSH, "apns"), (Channel.PUSH, "fcm"), (Channel.EMAIL, "email")


async def offer(database: Database, *offered: tuple[Channel, str]) -> None:
    await offer_providers(database, [name for _, name in offered])


def available(db: Db) -> set[str]:
    rows = db.execute("select channel from tocsin.channel where available and task is not null")
    return {channel for (channel,) in rows.fetchall()}


def make_offers_old(db: Db) -> None:
    db.execute("update tocsin.provider set offered_at = offered_at - interval '91 s'")


async def test_a_worker_takes_nothing_back_that_another_offers(db: Db, database: Database) -> None:
    for _ in range(2):
        await offer(database, APNS)
        await offer(database, FCM, SMTP)
        assert [await is_offered(database, *each) for each in (APNS, FCM, SMTP)] == [True] * 3
        assert available(db) == {"push", "email"}


async def test_a_channel_ends_once_the_last_worker_that_had_it_does_not_offer_it(
    db: Db, database: Database
) -> None:
    await offer(database, APNS, SMTP)
    make_offers_old(db)
    assert not await is_offered(database, *APNS)
    assert available(db) == {"push", "email"}  # nobody runs who would know better
    await offer(database, SMTP)
    assert available(db) == {"email"}
    await offer(database, FCM)
    assert available(db) == {"push", "email"}


async def test_an_offer_without_a_change_leaves_the_channels_alone(
    db: Db, database: Database
) -> None:
    """notify() reads them, and each new version of a row costs it a step."""
    await offer(database, APNS, SMTP)
    versions = db.execute("select channel, xmin from tocsin.channel order by 1").fetchall()
    await offer(database, APNS, SMTP)
    await offer(database, SMTP)
    assert db.execute("select channel, xmin from tocsin.channel order by 1").fetchall() == versions


async def test_workers_with_another_provider_each_share_the_devices_of_one_person(
    db: Db, dsn: str, tmp_path: Path
) -> None:
    db.execute("select tocsin.upsert_recipient('alice')")
    device(db, IPHONE, "ios")
    device(db, "pixel", "android")
    async with far_ends(tmp_path) as (apns, fcm, settings):
        apple = {name: value for name, value in settings.items() if not name.startswith("fcm")}
        google = {name: value for name, value in settings.items() if not name.startswith("apns")}
        base = {"database_url": dsn, "data_dir": str(tmp_path)}
        async with (
            running("worker", log=tmp_path / "apple.log", settings=apple | base),
            running("worker", log=tmp_path / "google.log", settings=google | base),
        ):
            offered = "select count(*) from tocsin.provider where channel = 'push'"
            await until(lambda: db.execute(offered).fetchone() == (3,))
            for _ in range(10):
                notify_phones(db)

            def arrived() -> bool:
                db.execute("update tocsin.delivery set due_at = now() where state = 'queued'")
                db.execute("select tocsin.wake()")
                return settled(db, 20)

            await until(arrived)
        assert set(ledger(db)) == {("sent", None)}
        assert (len(apns.received), len(fcm.received)) == (10, 10)
