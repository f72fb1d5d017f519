"""`tocsin worker` whose email channel sends nothing and returns Sent at once; with `bare`, it does not render either.

Everything else is the real worker: Procrastinate, claim, presend check, mailbox, senders, ledger, log.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from tocsin.cli import main
from tocsin.engine import worker
from tocsin.engine.actors.machinery.base import Actor
from tocsin.engine.actors.machinery.envelope import Envelope, RetryNow, SendResult
from tocsin.engine.model import CheckResult, Claimed, Entry, Mail, Message, Sent
from tocsin.engine.store import delivery as store
from tocsin.engine.store.database import Database

# these are replaced below
assert callable(worker._actors)  # noqa: SLF001
assert callable(worker._renderer)  # noqa: SLF001
MAIL = Mail("<1@example.com>", "Subject", "Text\n", "<p>Text</p>")


class NullActor(Actor[object]):
    """Accepts everything."""

    async def prepare(self, connection: object | None) -> object:
        return connection or self

    async def transmit(self, connection: object, envelope: Envelope) -> SendResult | RetryNow:  # noqa: ARG002
        if not envelope.begin():
            return RetryNow(keep_connection=True)
        envelope.commit()
        return SendResult(Sent("ok"))

    async def discard(self, connection: object) -> None:
        pass


def actors(
    _settings: object, database: Database, _key: bytes, _pace: object
) -> dict[str, Actor[Any]]:
    """Replaces the providers."""

    async def presend_check(messages: Sequence[Message]) -> dict[int, CheckResult]:
        return await store.presend_check(database, messages)

    return {"email": NullActor(name="email", presend_check=presend_check)}


def bare(_settings: object, _key: bytes) -> Any:
    """Replaces the templates."""

    def render(together: Sequence[Claimed], _said: Sequence[Entry]) -> Message:
        first, *others = together
        return Message(
            first.delivery_id,
            first.claim,
            first.channel,
            first.priority,
            MAIL,
            others=tuple(one.delivery_id for one in others),
        )

    return render


if __name__ == "__main__":
    worker._actors = actors  # type: ignore[assignment]  # noqa: SLF001
    if "bare" in sys.argv[1:]:
        worker._renderer = bare  # noqa: SLF001
    main(["worker"])
