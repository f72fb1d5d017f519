"""Phones: the far ends of APNs and FCM with a worker that uses both, and helpers for pushes to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.services import Service, running
from tocsin.testing.apns import ApnsServer, Authority, Key
from tocsin.testing.fcm import FcmServer

Db = psycopg.Connection[Any]
IPHONE = "a1" * 32


@dataclass
class Phones:
    """The far ends of APNs and FCM, and a worker that uses both."""

    apns: ApnsServer
    fcm: FcmServer
    worker: Service


@pytest.fixture
async def phones(dsn: str, db: Db, tmp_path: Path) -> AsyncIterator[Phones]:
    db.execute("select tocsin.upsert_recipient('alice', 'alice@example.com', 'Alice')")
    async with far_ends(tmp_path) as (apns, fcm, settings):
        settings |= {"database_url": dsn, "data_dir": str(tmp_path)}
        async with running("worker", log=tmp_path / "worker.log", settings=settings) as worker:
            await worker.wait_for_log("leading")
            yield Phones(apns, fcm, worker)


@asynccontextmanager
async def far_ends(folder: Path) -> AsyncIterator[tuple[ApnsServer, FcmServer, dict[str, str]]]:
    authority, key = Authority(), Key.new()
    ca_file = folder / "ca.pem"
    authority.write(ca_file)
    async with ApnsServer(authority, key, topics={"com.example.app"}) as apns, FcmServer() as fcm:
        yield (
            apns,
            fcm,
            {
                "apns_key": key.private,
                "apns_key_id": key.key_id,
                "apns_team_id": key.team_id,
                "apns_topic": "com.example.app",
                "apns_url": apns.url,
                "fcm_service_account": fcm.service_account_json,
                "fcm_url": fcm.url,
                "ca_file": str(ca_file),
            },
        )


def device(db: Db, token: str, platform: str, recipient: str = "alice") -> None:
    provider = "apns" if platform == "ios" else "fcm"
    db.execute(
        "insert into tocsin.device (token, recipient_id, platform, provider) values (%s, %s, %s, %s)",
        (token, recipient, platform, provider),
    )


def notify_phones(db: Db) -> None:
    db.execute(
        "select tocsin.notify('messages.new_dm', array['alice'], 'Bob: hello', 'How are you?', '/messages/7')"
    )


def ledger(db: Db) -> list[tuple[str, str | None]]:
    return db.execute(
        "select state::text, reason from tocsin.delivery where channel = 'push' order by delivery_id"
    ).fetchall()


def settled(db: Db, count: int) -> bool:
    states = [state for state, _ in ledger(db)]
    return len(states) == count and not {"queued", "sending"} & set(states)
