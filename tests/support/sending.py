"""Sends one message by an actor, as the engine does: on a permit."""

from __future__ import annotations

import asyncio
from typing import Any

from tocsin.engine.actors.machinery.admission import Permits
from tocsin.engine.actors.machinery.base import Actor
from tocsin.engine.model import CheckResult, Message, Settlement, Unsent


async def send_by(actor: Actor[Any], message: Message) -> Settlement:
    """Waits for a permit and for the settlement; returns at once if the breaker is open."""
    async with actor.acquire(1, message.priority) as permits:
        if permits.size:
            return await send_on(permits, message)
    wait = permits.retry_after
    return Settlement(Unsent("circuit_open", wait) if wait else Unsent("shutdown"))


async def send_on(
    permits: Permits, message: Message, check_result: CheckResult | None = None, age: float = 0.0
) -> Settlement:
    """Submits a message on one of these permits and waits for its settlement."""
    result: asyncio.Future[Settlement] = asyncio.get_running_loop().create_future()

    def on_settled(settlement: Settlement) -> None:
        if not result.done():
            result.set_result(settlement)

    envelope = permits.submit(message, on_settled, check_result, age)
    try:
        return await result
    finally:
        envelope.done = True  # if cancelled: its settlement is of no use any more
