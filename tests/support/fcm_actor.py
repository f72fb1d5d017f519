"""An FCM actor, and a local server that speaks FCM's protocol for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from tests.support.sending import send_by
from tocsin.engine.actors.fcm import FcmActor
from tocsin.engine.model import (
    Channel,
    CheckResult,
    Mail,
    Message,
    Outcome,
    Priority,
    Push,
)
from tocsin.testing.fcm import FcmServer

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


PUSH = Push(
    "Grüße",
    "A new reply",
    data={"notification_id": "7", "action_url": "https://app.test/threads/1"},
)


def message(delivery_id: int = 1, push: Push | Mail = PUSH) -> Message:
    return Message(delivery_id, UUID(int=delivery_id), Channel.PUSH, Priority.NORMAL, push)


class Checks:
    """Passes all messages, each with its own device token."""

    def __init__(self, badge: int | None = None) -> None:
        self.checks = 0
        self._badge = badge

    async def presend_check(self, messages: Sequence[Message]) -> dict[int, CheckResult]:
        self.checks += 1
        return {
            each.delivery_id: CheckResult(
                each.delivery_id, f"device-{each.delivery_id}", NOW, badge=self._badge
            )
            for each in messages
        }


@asynccontextmanager
async def actor_for(fcm: FcmServer, **options: Any) -> AsyncIterator[FcmActor]:
    settings: dict[str, Any] = {
        "presend_check": Checks().presend_check,
        "service_account": fcm.service_account,
        "url": fcm.url,
        "senders": 1,
        "timeout": 5.0,
        "now": lambda: NOW,
        "hold": 0.01,
    }
    actor = FcmActor(**(settings | options))
    await actor.start()
    try:
        yield actor
    finally:
        await actor.stop(grace=1)


@pytest.fixture
async def fcm() -> AsyncIterator[FcmServer]:
    async with FcmServer() as server:
        yield server


async def send(fcm: FcmServer, push: Push | Mail = PUSH, **options: Any) -> Outcome:
    async with actor_for(fcm, **options) as actor:
        return (await send_by(actor, message(1, push))).outcome


@pytest.fixture(scope="module")
def writer() -> FcmActor:
    """Writes drafts; never started."""
    server = FcmServer()
    server.issuer.uri = "http://127.0.0.1:9/token"
    return FcmActor(
        presend_check=Checks().presend_check,
        service_account=server.service_account,
        now=lambda: NOW,
    )
