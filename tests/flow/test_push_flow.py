"""One notification from SQL to both push providers, and what is stored of it."""

from __future__ import annotations

from pathlib import Path

from tests.support.phones import *  # noqa: F403 - fixtures
from tests.support.phones import (
    IPHONE,
    Db,
    Phones,
    device,
    far_ends,
    ledger,
    notify_phones,
    settled,
)
from tests.support.services import running, until
from tocsin.testing.apns import ApnsReply
from tocsin.testing.fcm import UNREGISTERED


async def test_a_notification_reaches_both_phones_with_the_exact_badge(
    db: Db, phones: Phones
) -> None:
    device(db, IPHONE, "ios")
    device(db, "pixel", "android")
    db.execute("select tocsin.notify('forum.new_thread', array['alice'], 'Earlier, inbox only')")
    notify_phones(db)
    await until(lambda: settled(db, 2))
    assert ledger(db) == [("sent", None), ("sent", None)]
    (iphone,) = phones.apns.received
    assert iphone.payload["aps"]["alert"] == {"title": "Bob: hello", "body": "How are you?"}
    assert iphone.payload["aps"]["badge"] == 2
    assert iphone.payload["action_url"] == "/messages/7"
    assert iphone.headers["apns-topic"] == "com.example.app"
    (pixel,) = phones.fcm.received
    assert pixel.message["token"] == "pixel"
    assert pixel.message["data"]["action_url"] == "/messages/7"
    assert pixel.message["android"]["notification"]["notification_count"] == 2


async def test_a_dead_token_is_disabled_with_the_reason(db: Db, phones: Phones) -> None:
    device(db, IPHONE, "ios")
    device(db, "pixel", "android")
    phones.apns.plan(IPHONE, ApnsReply(410, "Unregistered", 4_000_000_000_000))
    phones.fcm.script.then("pixel", [UNREGISTERED])
    notify_phones(db)
    await until(lambda: settled(db, 2))
    assert {state for state, _ in ledger(db)} == {"failed"}
    disabled = db.execute(
        "select provider, disabled_reason from tocsin.device where disabled_at is not null order by 1"
    ).fetchall()
    assert [provider for provider, _ in disabled] == ["apns", "fcm"]
    assert [reason for _, reason in disabled] == [reason for _, reason in ledger(db)]
    assert all(
        "nregistered" in reason.lower() or "UNREGISTERED" in reason for _, reason in disabled
    )
    notify_phones(db)
    decision = db.execute(
        "select decisions -> 'push' from tocsin.notification order by notification_id desc limit 1"
    ).fetchone()
    assert decision == (["off", "no_device"],)


async def test_a_token_registered_again_since_stays_enabled(db: Db, phones: Phones) -> None:
    device(db, IPHONE, "ios")
    phones.apns.plan(IPHONE, ApnsReply(410, "Unregistered", 1_500_000_000_000))
    notify_phones(db)
    await until(lambda: settled(db, 1))
    assert db.execute("select disabled_at from tocsin.device").fetchall() == [(None,)]


async def test_a_device_that_moved_gets_nothing_of_its_former_owner(
    db: Db, dsn: str, tmp_path: Path
) -> None:
    for name in ("alice", "bob"):
        db.execute("select tocsin.upsert_recipient(%s)", (name,))
    device(db, IPHONE, "ios")
    db.execute("update tocsin.channel set available = true where channel = 'push'")
    notify_phones(db)
    db.execute("update tocsin.device set recipient_id = 'bob'")
    async with far_ends(tmp_path) as (apns, _, settings):
        settings |= {"database_url": dsn, "data_dir": str(tmp_path)}
        async with running("worker", log=tmp_path / "worker.log", settings=settings):
            await until(lambda: settled(db, 1))
        assert not apns.received
    assert ledger(db) == [("skipped", "device_moved")]


async def test_a_device_whose_provider_nobody_has_is_skipped_not_retried(
    db: Db, dsn: str, tmp_path: Path
) -> None:
    db.execute("select tocsin.upsert_recipient('alice')")
    device(db, IPHONE, "ios")
    device(db, "pixel", "android")
    async with far_ends(tmp_path) as (_, fcm, settings):
        only_fcm = {name: value for name, value in settings.items() if not name.startswith("apns")}
        only_fcm |= {"database_url": dsn, "data_dir": str(tmp_path)}
        async with running("worker", log=tmp_path / "worker.log", settings=only_fcm) as worker:
            await worker.wait_for_log("leading")
            notify_phones(db)
            await until(lambda: settled(db, 2))
        assert len(fcm.received) == 1
    assert sorted(ledger(db)) == [("sent", None), ("skipped", "no_provider")]


async def test_workers_share_one_provider_token(
    db: Db, dsn: str, phones: Phones, tmp_path: Path
) -> None:
    device(db, IPHONE, "ios")
    notify_phones(db)
    await until(lambda: settled(db, 1))
    first = db.execute("select token from tocsin.provider_token").fetchall()
    assert len(first) == 1
    assert phones.apns.received[0].headers["authorization"] == f"bearer {first[0][0]}"


async def test_a_sick_provider_does_not_slow_the_other(db: Db, phones: Phones) -> None:
    device(db, IPHONE, "ios")
    device(db, "pixel", "android")
    phones.apns.plan(IPHONE, *[ApnsReply(503, "ServiceUnavailable")] * 5)
    notify_phones(db)
    await until(lambda: sorted(state for state, _ in ledger(db)) == ["deferred", "sent"])
    assert len(phones.fcm.received) == 1


async def test_a_wrong_topic_costs_no_device_and_no_push(db: Db, phones: Phones) -> None:
    db.execute("select tocsin.upsert_recipient('p' || i) from generate_series(1, 15) i")
    for number in range(1, 16):
        device(db, f"{number:064x}", "ios", f"p{number}")
    phones.apns.default = ApnsReply(400, "DeviceTokenNotForTopic")
    db.execute(
        "select tocsin.notify('messages.new_dm', array(select 'p' || i from generate_series(1, 15) i), 'Hello')"
    )
    await phones.worker.wait_for_log("see TOCSIN_APNS_TOPIC, TOCSIN_APNS_URL, and the environment")
    refused = (
        "select 1 from tocsin.delivery where reason = 'apns_DeviceTokenNotForTopic_mass_rejection'"
    )
    await until(lambda: db.execute(refused).fetchone())
    assert db.execute("select count(*) from tocsin.attempt").fetchone() == (0,)
    phones.apns.default = None  # the operator has corrected it

    def arrived() -> bool:
        db.execute(
            "update tocsin.delivery set due_at = now() where state in ('queued', 'deferred')"
        )
        return ledger(db) == [("sent", None)] * 15

    await until(arrived)
    assert db.execute("select count(disabled_at) from tocsin.device").fetchone() == (0,)
