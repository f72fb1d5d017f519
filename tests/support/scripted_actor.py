"""An actor whose outcomes a test scripts, and its presend checks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from tests.support.sending import send_by
from tocsin.engine.actors.machinery.base import Actor
from tocsin.engine.actors.machinery.envelope import Envelope, RetryNow, SendResult
from tocsin.engine.model import (
    Channel,
    CheckResult,
    Deferred,
    Mail,
    Message,
    Priority,
    Sent,
    Settlement,
    Withheld,
)

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def message(delivery_id: int, priority: Priority = Priority.NORMAL) -> Message:
    mail = Mail(f"<{delivery_id}@example.test>", "Subject", "text", "<p>html</p>")
    return Message(delivery_id, UUID(int=delivery_id), Channel.EMAIL, priority, mail)


class Checks:
    """The presend check: passes all but those named, and keeps which it checked."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.withheld: dict[int, Withheld] = {}
        self.gone: set[int] = set()
        self.error: Exception | None = None

    async def presend_check(self, messages: Sequence[Message]) -> dict[int, CheckResult]:
        self.calls.append([each.delivery_id for each in messages])
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        return {
            each.delivery_id: CheckResult(
                each.delivery_id,
                f"{each.delivery_id}@example.test",
                NOW,
                self.withheld.get(each.delivery_id),
            )
            for each in messages
            if each.delivery_id not in self.gone
        }


class Connection:
    open = True


Script = Callable[[Envelope], Any]


class ScriptedActor(Actor[Connection]):
    """Returns what its script returns; an awaitable is waited for after the first byte."""

    def __init__(self, checks: Checks, script: Script = lambda _: Sent(), **options: Any) -> None:
        super().__init__(name="scripted", presend_check=checks.presend_check, **options)
        self.script = script
        self.refuse: Deferred | None = None
        self.order: list[int] = []
        self.opened = self.closed = 0
        self.gate: asyncio.Event | None = None  # holds up the connection

    async def prepare(self, connection: Connection | None) -> Connection | Deferred:
        if self.gate:
            await self.gate.wait()
        if self.refuse:
            return self.refuse
        if connection is None:
            self.opened += 1
        return connection or Connection()

    async def transmit(self, connection: Connection, envelope: Envelope) -> SendResult | RetryNow:
        if not envelope.begin():
            return RetryNow(keep_connection=True)
        self.order.append(envelope.message.delivery_id)
        result = self.script(envelope)
        if asyncio.iscoroutine(result) or asyncio.isfuture(result):
            result = await result
        if isinstance(result, Exception):
            raise result
        return result if isinstance(result, SendResult | RetryNow) else SendResult(result)

    async def discard(self, connection: Connection) -> None:
        self.closed += 1


@asynccontextmanager
async def running(actor: ScriptedActor) -> AsyncIterator[ScriptedActor]:
    await actor.start()
    try:
        yield actor
    finally:
        await actor.stop(grace=0)


def post(actor: ScriptedActor, *messages: Message) -> list[asyncio.Task[Settlement]]:
    return [asyncio.create_task(send_by(actor, each)) for each in messages]
