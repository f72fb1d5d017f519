"""An email actor with a mail to send, and a real SMTP server for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from tests.support.sending import send_by
from tocsin.engine.actors.email import EmailActor
from tocsin.engine.model import (
    Channel,
    CheckResult,
    Mail,
    Message,
    Outcome,
    Priority,
    Rejected,
)
from tocsin.settings.addresses import SmtpServer

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


NO_MAILBOX = Rejected("smtp_550_5.1.1", address_dead=True, dead_since=NOW)


MAIL = Mail(
    "<delivery-1.abc@example.test>", "Grüße", "Hello\n.\nworld\n", "<p>Hello</p>", (("X-A", "b"),)
)


def message(delivery_id: int = 1, mail: Mail = MAIL) -> Message:
    return Message(delivery_id, UUID(int=delivery_id), Channel.EMAIL, Priority.NORMAL, mail)


class Checks:
    """Passes all messages, with one address."""

    def __init__(self, address: str = "alice@example.test") -> None:
        self.address = address
        self.calls = 0

    async def presend_check(self, messages: Sequence[Message]) -> dict[int, CheckResult]:
        self.calls += 1
        return {
            each.delivery_id: CheckResult(each.delivery_id, self.address, NOW) for each in messages
        }


def make_actor(port: int, **options: Any) -> EmailActor:
    """Returns an actor that sends one message at a time to a server on this machine."""
    settings: dict[str, Any] = {
        "timeout": 30.0,
        "local_hostname": "client.test",
        "senders": 1,
        "hold": 0.01,
    }
    settings |= options
    of_server = {
        name: settings.pop(name)
        for name in ("username", "password", "tls", "starttls")
        if name in settings
    }
    server = SmtpServer(host="127.0.0.1", port=port, **of_server)
    return EmailActor(sender="Tocsin <bell@example.test>", server=server, **settings)


@asynccontextmanager
async def actor_for(
    port: int, address: str = "alice@example.test", **options: Any
) -> AsyncIterator[EmailActor]:
    actor = make_actor(port, presend_check=Checks(address).presend_check, **options)
    await actor.start()
    try:
        yield actor
    finally:
        await actor.stop(grace=1)


async def send_one(port: int, address: str = "alice@example.test", **options: Any) -> Outcome:
    async with actor_for(port, address, **options) as actor:
        return (await send_by(actor, message())).outcome
